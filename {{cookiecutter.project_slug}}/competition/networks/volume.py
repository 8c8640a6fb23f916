"""Encoders of images that see the slices of a stack as a volume: `model.volume`.

Slices go through an encoder of two axes one beside another, as if each were an image, and what a convolution that is
wider than a point says of a slice takes in what it says of those next to it: together a convolution of 3 x k x k points
whose kernel is a product, of that of the image and, for each output, one over three slices. Whole kernels of three axes
learnt no better in the same time. With pretrained weights it begins as the encoder's own: so all convolutional encoders
can be had with their weights, and what stands behind them is as it was.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from competition.config.data_settings import Data
from competition.config.settings import Model
from competition.support.errors import CompetitionError

FIRST_WEIGHT = 0.5  # of another slice in networks that begin at random
ACROSS = "across"  # what a convolution's part is called that looks at other slices


def channels_of(model: Model, data: Data) -> int:
    """Return how many channels an encoder sees at a time: those of the image, or of one slice of its volume."""
    return data.channels // len(data.stack.take) if model.volume and data.stack is not None else data.channels


def see_volume(encoder: nn.Module, model: Model, data: Data) -> None:
    """Let an encoder that was built for `channels_of` an image see its stack as a volume, where the config says so.

    Its features are those of the image's own slice where answers are places in it, and else the mean over all slices.
    Raises CompetitionError where it could not see all of the stack.
    """
    if not model.volume or data.stack is None:
        return
    slices, own = len(data.stack.take), data.stack.own
    wide = [one for one in encoder.modules() if isinstance(one, nn.Conv2d) and max(one.kernel_size) > 1]
    if len(wide) < (farthest := max(own, slices - 1 - own)):
        raise CompetitionError(
            f"model.volume: {model.encoder} has {len(wide)} convolutions that are wider than a point, each of which "
            f"looks one slice further; data.stack.take needs {farthest}: take a convolutional encoder, as resnet18"
        )
    for one in wide:
        one.register_module(ACROSS, AcrossSlices(one.out_channels, slices, 0 if model.pretrained else FIRST_WEIGHT))
        one.register_forward_hook(_look_across)
    encoder.register_forward_pre_hook(partial(_as_slices, slices))
    encoder.register_forward_hook(partial(_as_image, slices, own if model.answers_places else None))


class AcrossSlices(nn.Module):
    """Adds to each channel of a slice a learnt share of the slices before and behind, at first `weight` or so."""

    def __init__(self, channels: int, slices: int, weight: float) -> None:
        super().__init__()
        self.slices = slices
        self.weight = nn.Parameter(weight * torch.randn(2, channels, 1, 1))  # of the one before, and of the one behind

    def forward(self, features: Tensor) -> Tensor:
        """Map (B * slices, channels, H, W) to the same shape."""
        volume = features.unflatten(0, (-1, self.slices))
        before, behind = self.weight.to(features.dtype)
        # Of slices alone, which are views: that is all that a backward pass has to keep.
        seen = torch.cat([volume[:, :1], volume[:, 1:] + before * volume[:, :-1]], dim=1)
        seen = torch.cat([seen[:, :-1] + behind * volume[:, 1:], seen[:, -1:]], dim=1)
        return seen.flatten(0, 1)


def is_of_volume(name: str) -> bool:
    """Return whether a parameter is one that no network of images has."""
    return f".{ACROSS}." in f".{name}"


# Of modules that are copied and sent to other processes, so no functions within functions.


def _look_across(convolution: nn.Module, _: tuple[Any, ...], features: Tensor) -> Tensor:
    return convolution.get_submodule(ACROSS)(features)


def _as_slices(slices: int, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return inputs[0].unflatten(1, (slices, -1)).flatten(0, 1), *inputs[1:]


def _as_image(slices: int, own: int | None, _: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> Any:
    def joined(features: Tensor) -> Tensor:
        volume = features.unflatten(0, (-1, slices))
        return volume.mean(dim=1) if own is None else volume[:, own]

    return _each(joined, outputs)


def _each(change: Callable[[Tensor], Tensor], outputs: Any) -> Any:
    """Change each tensor of what an encoder returns: features, several levels of them, or more."""
    if isinstance(outputs, list | tuple):
        return type(outputs)(_each(change, one) for one in outputs)
    return change(outputs) if isinstance(outputs, Tensor) else outputs
