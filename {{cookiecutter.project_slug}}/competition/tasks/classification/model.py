"""The network: any classifier of timm."""

from typing import Any

import timm
import torch
from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn

from competition.support.errors import CompetitionError
from competition.tasks.classification.prediction import activation_of
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.encoder import drop_path_arguments, note_encoder, size_arguments
from competition.tasks.pretrained import check_encoder, load_pretrained, note_weights


def build_network(config: TaskConfig, num_classes: int) -> nn.Module:
    """Return a network from images (B, channels, H, W) to logits (B, classes), or numbers (B, columns).

    What makes predictions of them goes with it as `activation_of_answers`, which has no weights.
    """
    model, size = config.model, config.data.image_size
    check_encoder(model.encoder)
    arguments: dict[str, Any] = size_arguments(model.encoder, size)
    arguments |= drop_path_arguments(model.encoder, model.drop_path)
    if model.pool is not None and model.pool != GEM:
        arguments["global_pool"] = model.pool
    try:
        network = timm.create_model(
            model.encoder,
            pretrained=False,
            num_classes=num_classes,
            in_chans=config.data.channels,
            drop_rate=model.dropout,
            **arguments,
        )
    except (AssertionError, TypeError, ValueError, RuntimeError):
        if "global_pool" not in arguments:
            raise
        raise CompetitionError(
            f"model.pool: {model.encoder} cannot pool by {model.pool!r}; expected avg, max, avgmax, catavgmax or gem "
            "of convolutions, token, avg, map or max of transformers"
        ) from None
    note_weights(network, load_pretrained(network, model, config.data.channels, "classifier", size))
    if model.pool == GEM:
        _pool_by_mean_of_powers(network, model.encoder)
    note_encoder(network, "", model.encoder)
    network.add_module("activation_of_answers", activation_of(config))
    return network


GEM = "gem"


class MeanOfPowers(nn.Module):
    """The p-th root of the mean of p-th powers (Radenovic et al. 2018), between mean (1) and maximum; p is learnt."""

    def __init__(self, like: SelectAdaptivePool2d, least: float = 1e-6) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.full((1,), 3.0))
        self.axes: tuple[int, int] = getattr(like.pool, "dim", (2, 3))
        flattens = getattr(like.pool, "flatten", None)  # its own, or a step behind it
        self.keeps_axes = not (flattens if isinstance(flattens, bool) else isinstance(like.flatten, nn.Flatten))
        self.least = least

    def forward(self, features: Tensor) -> Tensor:
        """Pool (B, channels, H, W), or channels last, to (B, channels), with two axes of 1 where those are wanted."""
        powers = features.float().clamp(min=self.least) ** self.power
        return (powers.mean(dim=self.axes, keepdim=self.keeps_axes) ** (1 / self.power)).to(features.dtype)


def _pool_by_mean_of_powers(network: nn.Module, name: str) -> None:
    """Put MeanOfPowers in the place of a network's pooling."""
    places = [place for place, module in network.named_modules() if isinstance(module, SelectAdaptivePool2d)]
    if not places:
        raise CompetitionError(f"model.pool: {name} does not pool a grid of features; gem is for those that do")
    for place in places:
        pool = network.get_submodule(place)
        assert isinstance(pool, SelectAdaptivePool2d)
        network.set_submodule(place, MeanOfPowers(pool))
