"""Average precision of boxes that are right or wrong: the area under precision over recall. No torch."""

from typing import Literal

import numpy as np

from competition.task import Evidence
from competition.tasks.detection.boxes import box_iou

Curve = Literal["coco", "voc"]
RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the curve
VINBIGDATA_IOU = 0.4  # kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection: over it


def mean_average_precision(
    hits: np.ndarray, scores: np.ndarray, labels: np.ndarray, num_true: np.ndarray, curve: Curve
) -> float:
    """Average over IoUs and over the classes there are true boxes of; 0 where there are none at all.

    `hits` (boxes, IoUs) bool tells which boxes of all images, image after image, found a true box; `scores` (boxes,)
    and `labels` (boxes,) are theirs, `num_true` (classes,) counts the true boxes.
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
    """
    right = np.cumsum(hits[np.argsort(-scores, kind="stable")], axis=0)
    recall = right / num_true
    precision = right / np.arange(1, len(right) + 1)[:, None]
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    if curve == "voc":
        return (np.diff(recall, axis=0, prepend=0) * precision).sum(axis=0)
    read = [np.append(p, 0)[np.searchsorted(r, RECALLS)] for r, p in zip(recall.T, precision.T, strict=True)]
    return np.mean(read, axis=1)


def match_voc(one: Evidence, min_iou: float) -> np.ndarray:
    """Return (boxes, 1) bool: which boxes of an image find a true box by PASCAL VOC's rule, at an IoU over `min_iou`.

    A box looks only at the true box of its class that it overlaps most, and is wrong if a better one found that.
    """
    hits = np.zeros((len(one["scores"]), 1), dtype=bool)
    if not len(one["true_labels"]):
        return hits
    overlap = box_iou(one["boxes"].astype(np.float64), one["true_boxes"].astype(np.float64))
    overlap = np.where(one["labels"][:, None] == one["true_labels"][None, :], overlap, 0)
    order = np.argsort(-one["scores"], kind="stable")
    order = order[overlap[order].max(axis=1) > min_iou]
    _, firsts = np.unique(overlap[order].argmax(axis=1), return_index=True)
    hits[order[firsts]] = True
    return hits


def score_vinbigdata(
    hits: np.ndarray, scores: np.ndarray, labels: np.ndarray, found: np.ndarray, num_true: np.ndarray
) -> float:
    """Compute VinBigData's mAP, in which an image without any box is a class of its own: "No finding".

    Such an answer is handed in as a box of that class, of score 1, and finds the one of an image without true boxes.
    Beside the arguments of `mean_average_precision` there are `found` (n,), boxes of each image, and `num_true`
    (n, classes).
    """
    is_empty = found == 0
    is_truly_empty = num_true.sum(axis=1) == 0
    return mean_average_precision(
        np.concatenate([hits, is_truly_empty[is_empty][:, None]]),
        np.concatenate([scores, np.ones(is_empty.sum(), dtype=scores.dtype)]),
        np.concatenate([labels, np.full(is_empty.sum(), num_true.shape[1])]),
        np.append(num_true.sum(axis=0), is_truly_empty.sum()),
        "voc",
    )
