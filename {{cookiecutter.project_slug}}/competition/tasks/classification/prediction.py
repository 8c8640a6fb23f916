"""From logits to stored predictions, of an image or of its windows."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from competition.config.views import View
from competition.tasks.classification.kinds.find import KINDS
from competition.tasks.classification.kinds.heads import each_head, head_classes, side_by_side
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.settings.metric_names import TargetKind
from competition.tasks.contract import Prediction
from competition.tasks.windows import Place


class Activation(nn.Module):
    """Softmax for one class an image, sigmoid for any number of them; numbers as they are, or within bounds.

    With the `scale` of cosines each class has 0 (the opposite) to 1 (the same): however many others are as near, or
    near at all.
    """

    def __init__(
        self, target: TargetKind, bounds: tuple[float, float] | None = None, scale: float | None = None
    ) -> None:
        super().__init__()
        self.scale = scale
        self.target = target
        self.bounds = bounds

    @property
    def key(self) -> str:
        """What the predictions are called."""
        return KINDS[self.target].said

    def forward(self, outputs: Tensor) -> Tensor:
        """Map outputs (B, n) to predictions (B, n)."""
        if self.scale is not None:
            return ((1 + outputs / self.scale) / 2).clamp(0, 1)
        if self.target == "single":
            return outputs.softmax(dim=1)
        if self.target == "multi":
            return outputs.sigmoid()
        if self.bounds is None:
            return outputs
        low, high = self.bounds
        return low + (high - low) * outputs.sigmoid()


class Heads(nn.Module):
    """Several targets, each with its part of the outputs."""

    def __init__(self, each: dict[str, Activation], sizes: dict[str, int]) -> None:
        super().__init__()
        self.each = nn.ModuleDict(each)
        self.sizes = sizes

    def parts(self, outputs: Tensor) -> dict[str, Tensor]:
        """Cut outputs (B, n) into those of each target."""
        return dict(zip(self.sizes, outputs.split(list(self.sizes.values()), dim=1), strict=True))


def activation_of(config: TaskConfig) -> Activation | Heads:
    """Return what makes predictions of outputs; of several targets the config must know their classes."""
    if config.format.targets:
        each = {name: Activation(one.format.target, one.format.bounds) for name, one in each_head(config).items()}
        return Heads(each, {name: len(head_classes(config.data.classes or [], name)) for name in each})
    compares = config.model.head != "linear" and config.format.submission.layout == "top"
    scale = config.model.metric_learning.scale if compares else None
    return Activation(config.format.target, config.format.bounds, scale)


@torch.no_grad()
def predictions(network: nn.Module, outputs: Tensor, batch: dict[str, Any]) -> list[Prediction]:
    """Return `probabilities` (classes,), or `values` (columns,), float32 for each image of outputs (B, n)."""
    activation = network.get_submodule("activation_of_answers")
    if isinstance(activation, Heads):
        said = {name: _said(activation.each[name], part) for name, part in activation.parts(outputs).items()}
        return [side_by_side(dict(zip(said, image, strict=True))) for image in zip(*said.values(), strict=True)]
    return _said(activation, outputs)


def _said(activation: nn.Module, outputs: Tensor) -> list[Prediction]:
    assert isinstance(activation, Activation)
    return [{activation.key: image} for image in activation(outputs.float()).cpu().numpy()]


def undo_view(prediction: Prediction, view: View, height: int, width: int) -> Prediction:
    """Return it as it is: a class looks the same from everywhere."""
    return prediction


class Mean:
    """The average of what the network says of the windows: `probabilities` (classes,) or `values` (columns,)."""

    def __init__(self) -> None:
        self._each: list[Prediction] = []

    def add(self, prediction: Prediction, place: Place) -> None:
        """Take the prediction of a window."""
        self._each.append(prediction)

    def joined(self) -> Prediction:
        """Return that of the image."""
        return {key: np.mean([one[key] for one in self._each], axis=0).astype(np.float32) for key in self._each[0]}


def joining(height: int, width: int) -> Mean:
    """Begin an image."""
    return Mean()
