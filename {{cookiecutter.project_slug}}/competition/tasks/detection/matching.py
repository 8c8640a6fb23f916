"""Metrics that count boxes right and wrong at given IoUs, as known competitions define them. No torch."""

from collections.abc import Mapping

import numpy as np

from competition.task import Evidence
from competition.tasks.detection.boxes import box_iou

# By metric, the IoUs from which a box counts as found.
THRESHOLDS: Mapping[str, np.ndarray] = {
    "wheat": np.linspace(0.5, 0.75, 6),  # kaggle.com/c/global-wheat-detection
    "rsna": np.linspace(0.4, 0.75, 8),  # kaggle.com/c/rsna-pneumonia-detection-challenge
    "f1": np.array([0.5]),
    "f2": np.linspace(0.3, 0.8, 11),  # kaggle.com/c/tensorflow-great-barrier-reef
}
TOLERANCE = 1e-9  # so that an IoU of 3/5 counts at .6, however the numbers are rounded


def match(one: Evidence, thresholds: np.ndarray) -> np.ndarray:
    """Return (boxes, thresholds) bool: which predicted boxes of an image find a true box.

    Greedy by score: each box takes the true box of its class that it overlaps most of those not yet taken. So what a
    box finds does not depend on boxes of lower score.
    """
    hits = np.zeros((len(one["scores"]), len(thresholds)), dtype=bool)
    overlap = box_iou(one["boxes"].astype(np.float64), one["true_boxes"].astype(np.float64))
    overlap = np.where(one["labels"][:, None] == one["true_labels"][None, :], overlap, 0) + TOLERANCE
    free = np.ones((len(thresholds), overlap.shape[1]), dtype=bool)
    every = np.arange(len(thresholds))
    order = np.argsort(-one["scores"], kind="stable")
    for i in order[(overlap[order] >= thresholds[0]).any(axis=1)]:
        left = np.where(free, overlap[i], 0)
        best = left.argmax(axis=1)
        hits[i] = left[every, best] >= thresholds
        free[every[hits[i]], best[hits[i]]] = False
    return hits


def score_of_counts(metric: str, right: np.ndarray, found: np.ndarray, true: np.ndarray) -> float:
    """Compute a metric from counts of an image's boxes: `right` (n, thresholds), `found` (n,) and `true` (n,).

    wheat: right / (found or true), the mean over thresholds of each image, then over images; nothing found where
    nothing is counts as 1. rsna: the same, but such images are left out. f1, f2: over the boxes of all images
    together, the mean over thresholds. 1 where there is nothing to find and nothing found at all.
    """
    if metric in ("f1", "f2"):
        beta2 = 4 if metric == "f2" else 1
        all_boxes = beta2 * true.sum() + found.sum()
        return float(np.mean((1 + beta2) * right.sum(axis=0) / all_boxes)) if all_boxes else 1.0
    either = (found + true)[:, None] - right
    images = np.where(either > 0, right / np.maximum(either, 1), 1).mean(axis=1)
    if metric == "rsna":
        images = images[found + true > 0]
    return float(images.mean()) if len(images) else 1.0
