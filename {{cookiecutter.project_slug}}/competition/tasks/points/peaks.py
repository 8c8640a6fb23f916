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
    labels, rows, columns = labels[order], rows[order], columns[order]
    logs = np.log(np.maximum(heat, LEAST))
    x = columns + 0.5 + _offset(logs[labels, rows], columns)
    y = rows + 0.5 + _offset(logs[labels, :, columns], rows)
    return np.stack([x, y], axis=1), scores[order], labels.astype(np.int64)


def _offset(logs: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return (k,) how far the top of a peak is from the middle of its cell, by logarithms (k, cells) along a line.

    A parabola through three of them is exact where the bump is a Gaussian. At the border they are those beside it.
    """
    size = logs.shape[1]
    if size < 3:
        return np.zeros(len(cells))
    middle, at = np.clip(cells, 1, size - 2), np.arange(len(cells))
    before, here, after = (logs[at, middle + step].astype(np.float64) for step in (-1, 0, 1))
    bend = before - 2 * here + after
    top = middle + np.where(bend < 0, (before - after) / (2 * np.where(bend < 0, bend, 1)), 0)
    return np.where(bend < 0, np.clip(top - cells, -0.5, 0.5), 0)


def apart(points: np.ndarray, labels: np.ndarray, distance: float) -> np.ndarray:
    """Return the numbers of the points that stay, of points best first: none is nearer than `distance` to a better one
    of its label."""
    if distance <= 0 or len(points) < 2:
        return np.arange(len(points))
    near = KDTree(points).query_ball_point(points, distance)
    stays = np.ones(len(points), dtype=bool)
    for one, others in enumerate(near):
        if stays[one]:
            worse = np.array(
                [other for other in others if other > one and labels[other] == labels[one]], dtype=np.int64
            )
            stays[worse] = False
    return np.flatnonzero(stays)
