"""From logits to stored predictions, of an image or of its windows."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from competition.config.views import View
from competition.tasks.classification.settings import TargetKind
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
        return "values" if self.target == "regression" else "probabilities"

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


@torch.no_grad()
def predictions(network: nn.Module, outputs: Tensor, batch: dict[str, Any]) -> list[Prediction]:
    """Return `probabilities` (classes,), or `values` (columns,), float32 for each image of outputs (B, n)."""
    activation = network.get_submodule("activation_of_answers")
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
