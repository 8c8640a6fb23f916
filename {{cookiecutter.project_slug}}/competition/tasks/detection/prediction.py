"""From head outputs to stored predictions: boxes in pixels of the original image."""

from typing import Any

import numpy as np

from competition.task import Prediction
from competition.tasks.detection.model import Detector, DetectorOutputs
from competition.views import View


def predictions(network: Detector, outputs: DetectorOutputs, batch: dict[str, Any]) -> list[Prediction]:
    """Return predictions as decode.py describes them, best box first, all of one model."""
    rows = []
    model_height, model_width = outputs.image_size
    sizes = zip(batch["height"].tolist(), batch["width"].tolist(), strict=True)
    for detected, (height, width) in zip(network.detections(outputs), sizes, strict=True):
        to_original = np.array([width / model_width, height / model_height] * 2, dtype=np.float32)
        rows.append(
            {
                "boxes": detected["boxes"].float().cpu().numpy() * to_original,
                "scores": detected["scores"].float().cpu().numpy(),
                "labels": detected["labels"].cpu().numpy(),
                "model": np.zeros(len(detected["scores"]), dtype=np.int16),
                "model_weights": np.ones(1, dtype=np.float32),
            }
        )
    return rows


def undo_view(prediction: Prediction, view: View, height: int, width: int) -> Prediction:
    """Flip and turn `boxes` back; they are in pixels of the original image whatever the scale."""
    return {**prediction, "boxes": view.undo_boxes(prediction["boxes"], height, width).astype(np.float32)}
