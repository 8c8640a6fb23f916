"""From logits to stored predictions: a probability per class."""

from typing import Any

from torch import Tensor, nn

from competition.task import Prediction
from competition.views import View


def predictions(network: nn.Module, outputs: Tensor, batch: dict[str, Any]) -> list[Prediction]:
    """Return `probabilities` (classes,) float32 for each image of logits (B, classes)."""
    return [{"probabilities": image} for image in outputs.float().softmax(dim=1).cpu().numpy()]


def undo_view(prediction: Prediction, view: View, height: int, width: int) -> Prediction:
    """Return it as it is: a class looks the same from everywhere."""
    return prediction
