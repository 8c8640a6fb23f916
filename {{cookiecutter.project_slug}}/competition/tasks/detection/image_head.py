"""A second head of a detector, `loss.auxiliary`: which classes an image has at all, by its encoder's last features.

It listens to what is noted as the encoder (see networks/encoder.py), and so serves every architecture alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.layers import Format
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from competition.networks.encoder import refuse_other_sizes
from competition.support.errors import CompetitionError
from competition.tasks.detection.settings import TaskConfig


class ImageHead(nn.Module):
    """A linear layer on the mean of an encoder's last features; it keeps what it said until that is asked for."""

    def __init__(self, encoder: nn.Module, width: int, num_classes: int) -> None:
        super().__init__()
        self.classes = nn.Linear(width, num_classes)
        self._said: Tensor | None = None
        encoder.register_forward_hook(self._listen)

    def _listen(self, encoder: nn.Module, images: Any, features: Any) -> None:
        pooled = pooled_features(encoder, features)
        with torch.autocast(pooled.device.type, enabled=False):
            self._said = self.classes(pooled.to(self.classes.weight.dtype))

    def take(self) -> Tensor | None:
        """Return (B, classes) logits of the images that the encoder saw last, once; nothing is kept behind."""
        said, self._said = self._said, None
        return said


def pooled_features(encoder: nn.Module, features: Any) -> Tensor:
    """Return (B, channels): the mean over the places of the last of an encoder's maps, however they are packed."""
    last = _maps(features)[-1]
    is_last_axis = getattr(encoder, "output_fmt", None) == Format.NHWC  # swin, mambaout
    return last.mean(dim=(1, 2) if is_last_axis else (2, 3))


def _maps(features: Any) -> list[Tensor]:
    """Return the maps of (B, channels, H, W) in lists, pairs with masks or dicts of them, in order."""
    if isinstance(features, Tensor):
        return [features] if features.ndim == 4 else []
    each = features.values() if isinstance(features, Mapping) else features if isinstance(features, Sequence) else ()
    return [found for one in each for found in _maps(one)]


def build_image_head(network: nn.Module, config: TaskConfig, num_classes: int) -> ImageHead:
    """Return a head for a network, whose encoder it listens to from now on; raise CompetitionError where it gives no
    maps. An image of zeros tells how many features these have, whatever the architecture calls them."""
    place, name = network.__dict__["encoder_note"]
    encoder, widths = network.get_submodule(place), list[int]()

    def measure(encoder: nn.Module, images: Any, features: Any) -> None:
        widths.extend(pooled_features(encoder, features).shape[1:] if _maps(features) else ())

    listening = encoder.register_forward_hook(measure)
    refuse_other_sizes(network, config.data.channels, {config.data.image_size: "data.image_size"})
    listening.remove()
    if not widths:
        raise CompetitionError(
            f"loss.auxiliary: the encoder of {name} gives no maps of features that a head could be put on; set it to 0"
        )
    return ImageHead(encoder, widths[-1], num_classes)


def presence_losses(said: Tensor, labels: Sequence[Tensor]) -> Tensor:
    """Return (B,) the mean binary cross entropy of logits (B, classes) against the classes of each image's boxes."""
    has_class = torch.zeros_like(said)
    for one, of_image in zip(has_class, labels, strict=True):
        one[of_image] = 1
    return binary_cross_entropy_with_logits(said, has_class, reduction="none").mean(dim=1)
