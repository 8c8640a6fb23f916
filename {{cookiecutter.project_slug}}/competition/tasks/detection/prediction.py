"""From head outputs to stored predictions: boxes in pixels of the original image, joined from its windows."""

from typing import Any

import numpy as np

from competition.config.views import View
from competition.tasks.contract import Prediction
from competition.tasks.detection import decode
from competition.tasks.detection.model import BoxNetwork
from competition.tasks.presence import PRESENCE
from competition.tasks.windows import Place, is_cut_off


def predictions(network: BoxNetwork, outputs: Any, batch: dict[str, Any]) -> list[Prediction]:
    """Return predictions as decode.py describes them, best box first, all of one model."""
    rows = list[Prediction]()
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
    if (said := network.presence(outputs)) is not None:
        return [row | {PRESENCE: one} for row, one in zip(rows, said.float().sigmoid().cpu().numpy(), strict=True)]
    return rows


def undo_view(prediction: Prediction, view: View, height: int, width: int) -> Prediction:
    """Flip and turn `boxes` back; they are in pixels of the original image whatever the scale."""
    return {**prediction, "boxes": view.undo_boxes(prediction["boxes"], height, width).astype(np.float32)}


class JoinedBoxes:
    """Boxes shifted to the image and put together, without those that another window shows better.

    What several windows show in the same way is left to `decode`, which joins boxes that overlap.
    """

    def __init__(self, height: int, width: int) -> None:
        self._size = height, width
        self._windows: list[tuple[Prediction, Place]] = []

    def add(self, prediction: Prediction, place: Place) -> None:
        """Take the prediction of a window."""
        self._windows.append((decode.shift_boxes(prediction, place.left, place.top), place))

    def joined(self) -> Prediction:
        """Return that of the image."""
        places = [place for _, place in self._windows]
        whole = []
        for moved, place in self._windows:
            keep = ~is_cut_off(moved["boxes"], place, places, *self._size)
            whole.append({key: values[keep] if key in decode.OF_BOXES else values for key, values in moved.items()})
        return decode.join_windows(whole)


def joining(height: int, width: int) -> JoinedBoxes:
    """Begin an image."""
    return JoinedBoxes(height, width)
