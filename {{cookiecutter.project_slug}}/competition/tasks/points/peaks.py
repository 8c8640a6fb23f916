"""The peaks of heatmaps, between their cells, and those that stay beside better ones. No torch."""

import cv2
import numpy as np
from scipy.spatial import KDTree

MOST_PEAKS = 10_000  # of an image, before those near a better one are left out
LEAST = 1e-7  # a height of which the logarithm is taken; stored heights are 0 below


def peaks(heatmap: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points (k, 2) float64 xy in cells from the upper left corner, scores (k,) and labels (k,), best first, of
    the cells of a heatmap (classes, h, w) over `least` that none around them is higher than."""
    heat = heatmap.astype(np.float32)
    around = np.ones((3, 3), dtype=np.uint8)
    highest = np.stack([cv2.dilate(layer, around) for layer in heat])
    labels, rows, columns = np.nonzero((heat >= highest) & (heat >= least) & (heat > 0))
    scores = heat[labels, rows, columns]
    order = np.argsort(-scores, kind="stable")[:MOST_PEAKS]
    cells = labels[order], rows[order], columns[order]
    x, y = (cells[axis] + 0.5 + _offset(heat, cells, axis) for axis in (2, 1))
    return np.stack([x, y], axis=1), scores[order], cells[0].astype(np.int64)


def _offset(heat: np.ndarray, cells: tuple[np.ndarray, ...], axis: int) -> np.ndarray:
    """Return (k,) how far the top of a peak is from the middle of its cell along an axis.

    A parabola through the logarithms of three cells is exact where the bump is a Gaussian. At the border they are those
    beside it.
    """
    size = heat.shape[axis]
    if size < 3:
        return np.zeros(len(cells[axis]))
    middle = np.clip(cells[axis], 1, size - 2)
    lines = (tuple(middle + step if one == axis else cells[one] for one in range(3)) for step in (-1, 0, 1))
    before, here, after = (np.log(np.maximum(heat[line], LEAST).astype(np.float64)) for line in lines)
    bend = before - 2 * here + after
    top = middle - cells[axis] + (before - after) / (2 * np.where(bend < 0, bend, -1))
    return np.where(bend < 0, np.clip(top, -0.5, 0.5), 0)  # even cells have it in the middle


def apart(points: np.ndarray, labels: np.ndarray, distance: float) -> np.ndarray:
    """Return the numbers of the points that stay, of points best first: none is nearer than `distance` to a better one
    of its label."""
    if distance <= 0 or len(points) < 2:
        return np.arange(len(points))
    near = KDTree(points).query_ball_point(points, distance)
    stays = np.ones(len(points), dtype=bool)
    for one, others in enumerate(near):
        if stays[one]:
            stays[[other for other in others if other > one and labels[other] == labels[one]]] = False
    return np.flatnonzero(stays)
