"""From logits to stored predictions: probabilities at model resolution."""

from typing import Any

from torch import Tensor, nn

from competition.task import Prediction
from competition.views import View


def predictions(network: nn.Module, outputs: Any, batch: dict[str, Any]) -> list[Prediction]:
    """Return `probabilities` (classes, h, w) float16 for each image of logits (B, classes, h, w)."""
    logits: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs  # the auxiliary head only helps to train
    probabilities = logits.float().sigmoid().half().cpu().numpy()
    return [{"probabilities": image} for image in probabilities]


def undo_view(prediction: Prediction, view: View, height: int, width: int) -> Prediction:
    """Flip and turn `probabilities` (classes, h, w) back; a scaled view keeps its resolution until it is averaged."""
    return {"probabilities": view.undo_map(prediction["probabilities"])}
