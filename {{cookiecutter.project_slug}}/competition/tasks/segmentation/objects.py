"""Objects of a mask, its connected parts, and how well they are found."""

import cv2
import numpy as np

MAP_IOU = 0.6  # kaggle.com/c/hubmap-hacking-the-human-vasculature
MOST_COUNTERS = 1 << 22  # in 32 MB
IOUS = np.round(np.arange(0.5, 1.0, 0.05), 2)


def object_counts(answer: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return (12,) int64 of two masks (h, w): objects found at each of IOUS, objects said, true objects.

    An object is found where one that is said overlaps it by more than the IoU; over a half there is only one such.
    """
    num_said, said = cv2.connectedComponents(answer)
    num_true, true = cv2.connectedComponents(truth)
    found = (_overlaps(said, num_said, true, num_true)[0][:, None] > IOUS).sum(0)
    return np.array([*found, num_said - 1, num_true - 1], dtype=np.int64)


def object_hits(answer: np.ndarray, truth: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which objects of a mask (h, w) find a true one at an IoU of MAP_IOU, (k,) bool, and how sure each is:
    the mean over it of `confidence` (h, w)."""
    number, said = cv2.connectedComponents(answer)
    num_true, true = cv2.connectedComponents(truth)
    ious, which = _overlaps(said, number, true, num_true)
    hits = np.isin(np.arange(1, number), which[ious >= MAP_IOU])
    sums = np.bincount(said.ravel(), weights=confidence.ravel().astype(np.float64), minlength=number)
    return hits, (sums / np.bincount(said.ravel(), minlength=number).clip(1))[1:]


def _overlaps(said: np.ndarray, num_said: int, true: np.ndarray, num_true: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the IoU (pairs,) of every two objects that overlap, and which of `said` it is of; labels (h, w), 0 is
    none."""
    pairs, pixels = _count((said.astype(np.int64) * num_true + true).ravel(), num_said * num_true)
    first, second = pairs // num_true, pairs % num_true
    area_said, area_true = np.bincount(first, pixels), np.bincount(second, pixels)
    both = (first > 0) & (second > 0)
    first, second, overlap = first[both], second[both], pixels[both]
    return overlap / (area_said[first] + area_true[second] - overlap), first


def _count(numbers: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which numbers below `end` there are, and how often each; a table of all is far quicker than sorting."""
    if end > MOST_COUNTERS:
        return np.unique(numbers, return_counts=True)
    counts = np.bincount(numbers, minlength=end)
    found = np.flatnonzero(counts)
    return found, counts[found]


def mean_precision(counts: np.ndarray) -> np.ndarray:
    """Return (n, classes) from counts (n, 12, classes): the mean over IOUS of TP / (TP + FP + FN), 1 without objects.

    Source: the evaluation page of the Data Science Bowl 2018 (Kaggle).
    """
    found, said, true = counts[:, :-2], counts[:, -2], counts[:, -1]
    total = said[:, None] + true[:, None] - found  # TP + FP + FN
    return np.where(total == 0, 1.0, found / np.maximum(total, 1)).mean(axis=1)
