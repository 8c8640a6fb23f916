"""From logits to stored predictions: probabilities at model resolution."""

from typing import Any

from torch import Tensor, nn

from competition.task import Prediction


def predictions(network: nn.Module, outputs: Tensor, batch: dict[str, Any]) -> list[Prediction]:
    """Return `probabilities` (classes, h, w) float16 for each image of logits (B, classes, h, w)."""
    probabilities = outputs.float().sigmoid().half().cpu().numpy()
    return [{"probabilities": image} for image in probabilities]
