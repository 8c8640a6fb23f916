"""From logits to stored predictions: probabilities at model resolution."""

from typing import Any

from torch import nn

from competition.task import Prediction
from competition.tasks.segmentation.outputs import outputs_of
from competition.views import View


def predictions(network: nn.Module, outputs: Any, batch: dict[str, Any]) -> list[Prediction]:
    """Return `probabilities` (classes, h, w) float16 for each image of logits (B, classes, h, w)."""
    probabilities = outputs_of(outputs).logits.float().sigmoid().half().cpu().numpy()
    return [{"probabilities": image} for image in probabilities]


def undo_view(prediction: Prediction, view: View, height: int, width: int) -> Prediction:
    """Flip and turn `probabilities` (classes, h, w) back; a scaled view keeps its resolution until it is averaged."""
    return {"probabilities": view.undo_map(prediction["probabilities"])}
