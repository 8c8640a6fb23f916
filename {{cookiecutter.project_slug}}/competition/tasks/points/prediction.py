"""From logits to stored predictions: heatmaps of an image, or joined from its windows."""

from typing import Any

import cv2
import numpy as np
from torch import nn

from competition.config.views import View
from competition.tasks.contract import Prediction
from competition.tasks.windows import Blend, Place


def predictions(network: nn.Module, outputs: Any, batch: dict[str, Any]) -> list[Prediction]:
    """Return `heatmap` (classes, h, w) float16 for each image of logits (B, classes, h, w)."""
    return [{"heatmap": image} for image in outputs.float().sigmoid().half().cpu().numpy()]


def undo_view(prediction: Prediction, view: View, height: int, width: int) -> Prediction:
    """Flip and turn `heatmap` (classes, h, w) back; a scaled view keeps its resolution until it is averaged."""
    return {"heatmap": view.undo_map(prediction["heatmap"])}


class BlendedHeatmaps:
    """`heatmap` (classes, h, w) of windows, blended into one of the image whose cells are as large as theirs."""

    def __init__(self, height: int, width: int) -> None:
        self._size = height, width
        self._blend: Blend | None = None
        self._cells = self._size  # of the whole image

    def add(self, prediction: Prediction, place: Place) -> None:
        """Take the prediction of a window."""
        heatmap = prediction["heatmap"].astype(np.float32)
        sides = place.height, place.width
        if self._blend is None:
            self._cells = tuple(
                max(round(side * cells / own), 1)
                for side, cells, own in zip(self._size, heatmap.shape[1:], sides, strict=True)
            )
            self._blend = Blend(*self._cells)
        spans = [
            self._span(axis, start, side, cells)
            for axis, (start, side, cells) in enumerate(
                zip((place.top, place.left), sides, heatmap.shape[1:], strict=True)
            )
        ]
        (top, height, along, down), (left, width, across, right) = spans
        matrix = np.array([[across, 0, right], [0, along, down]])
        how: dict[str, Any] = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
        layers = [cv2.warpAffine(layer, matrix, (width, height), **how) for layer in heatmap]
        self._blend.add(np.stack(layers), Place(top, left, height, width))

    def _span(self, axis: int, start: int, side: int, cells: int) -> tuple[int, int, float, float]:
        """Return along an axis the image's first cell that a window shows, how many it shows, and by what factor and
        shift their numbers become those of its own cells."""
        cell, own = self._size[axis] / self._cells[axis], side / cells  # pixels
        first = int(start / cell)
        last = min(int(np.ceil(min(start + side, self._size[axis]) / cell)), self._cells[axis])
        # The middle of cell k from `first` on is at (first + k + .5) * cell pixels.
        return first, max(last - first, 1), cell / own, ((first + 0.5) * cell - start) / own - 0.5

    def joined(self) -> Prediction:
        """Return that of the image."""
        assert self._blend is not None, "no window was added"
        return {"heatmap": self._blend.mean().astype(np.float16)}


def joining(height: int, width: int) -> BlendedHeatmaps:
    """Begin an image."""
    return BlendedHeatmaps(height, width)
