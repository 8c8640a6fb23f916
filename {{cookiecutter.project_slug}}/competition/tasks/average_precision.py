"""Average precision of boxes or objects that are right or wrong: the area under precision over recall. No torch."""

from typing import Literal

import numpy as np

Curve = Literal["coco", "voc"]
RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the curve


def mean_average_precision(
    hits: np.ndarray, scores: np.ndarray, labels: np.ndarray, num_true: np.ndarray, curve: Curve
) -> float:
    """Average over IoUs and over the classes there are true ones of; 0 where there are none at all.

    `hits` (k, IoUs) bool tells which boxes or objects of all images, image after image, found a true one; `scores` (k,)
    and `labels` (k,) are theirs, `num_true` (classes,) counts the true ones.
    """
    each = [
        _average_precision(hits[labels == label], scores[labels == label], int(num_true[label]), curve)
        for label in np.flatnonzero(num_true)
    ]
    return float(np.mean(each)) if each else 0.0


def _average_precision(hits: np.ndarray, scores: np.ndarray, num_true: int, curve: Curve) -> np.ndarray:
    """Return (IoUs,) the AP of a class.

    A precision counts from the left up to where it is reached for the last time. coco: the mean at 101 levels of
    recall; voc: the area under every step (PASCAL VOC since 2010).

    Of voc, answers of one score are one step: a constant score, as of `none`, would otherwise be the better the more of
    the first images are right. COCO's own evaluation takes them one by one, as they come.
    """
    order = np.argsort(-scores, kind="stable")
    right, number = np.cumsum(hits[order], axis=0), np.arange(1, len(order) + 1)
    if curve == "voc":
        ends = np.flatnonzero(np.diff(scores[order], append=np.nan))  # the last of each score
        right, number = right[ends], number[ends]
    recall = right / num_true
    precision = right / number[:, None]
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    if curve == "voc":
        return (np.diff(recall, axis=0, prepend=0) * precision).sum(axis=0)
    read = [np.append(p, 0)[np.searchsorted(r, RECALLS)] for r, p in zip(recall.T, precision.T, strict=True)]
    return np.mean(read, axis=1)
