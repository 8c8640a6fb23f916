"""Pooling that timm has not: the generalised mean, `model.pool: gem`."""

import torch
from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn

from competition.support.errors import CompetitionError

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


def pool_by_mean_of_powers(network: nn.Module, name: str) -> None:
    """Put MeanOfPowers in the place of a network's pooling."""
    places = [place for place, module in network.named_modules() if isinstance(module, SelectAdaptivePool2d)]
    if not places:
        raise CompetitionError(f"model.pool: {name} does not pool a grid of features; gem is for those that do")
    for place in places:
        pool = network.get_submodule(place)
        assert isinstance(pool, SelectAdaptivePool2d)
        network.set_submodule(place, MeanOfPowers(pool))
