"""Metrics that count boxes: COCO's mean average precision, and those that known competitions define."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from competition.tasks.average_precision import mean_average_precision
from competition.tasks.contract import Evidence
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


def average_precisions(evidence: Sequence[Evidence], num_classes: int, thresholds: Sequence[float]) -> np.ndarray:
    """Return (thresholds,) AP at each IoU, the mean over the classes there are boxes of; 0 where there is no box.

    Interpolated at 101 levels of recall, at most 100 boxes an image.
    """
    found, true = _boxes(evidence, "boxes", "labels", "scores"), _boxes(evidence, "true_boxes", "true_labels")
    if not found or not true:
        return np.zeros(len(thresholds))
    from faster_coco_eval import COCO, COCOeval_faster  # not where a bundle predicts, which uses the rest of this file

    known = {
        "images": [{"id": i} for i in range(len(evidence))],
        "categories": [{"id": i, "name": str(i)} for i in range(num_classes)],
    }
    # Not by `loadRes`, which adds to every box found the polygon around it.
    evaluation = COCOeval_faster(COCO(known | {"annotations": true}), COCO(known | {"annotations": found}), "bbox")
    evaluation.params.iouThrs = np.array(thresholds)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    # thresholds x recall levels x classes x areas x numbers of boxes; -1 for classes without a true box
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    return precision[:, :, (precision > -1).all(axis=(0, 1))].mean(axis=(1, 2))


def _boxes(evidence: Sequence[Evidence], boxes: str, labels: str, scores: str | None = None) -> list[dict[str, Any]]:
    """List boxes as COCO annotations."""
    joined = np.concatenate([one[boxes] for one in evidence]).astype(float)
    sizes = joined[:, 2:] - joined[:, :2]
    columns = {
        "image_id": np.repeat(np.arange(len(evidence)), [len(one[labels]) for one in evidence]),
        "category_id": np.concatenate([one[labels] for one in evidence]),
        "bbox": np.concatenate([joined[:, :2], sizes], axis=1),
        "area": sizes.prod(axis=1),
        "id": np.arange(1, len(joined) + 1),
        "iscrowd": np.zeros(len(joined), dtype=int),
    }
    if scores:
        columns["score"] = np.concatenate([one[scores] for one in evidence]).astype(float)
    return [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]


# By metric in which an image without any box counts as found, too, the IoU over which a box does: see `score_voc`.
OVER_IOU: Mapping[str, float] = {
    "vinbigdata": 0.4,  # kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection
    "voc_map": 0.5,  # kaggle.com/c/siim-covid19-detection
}


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


def score_voc(
    hits: np.ndarray, scores: np.ndarray, labels: np.ndarray, found: np.ndarray, num_true: np.ndarray
) -> float:
    """Compute PASCAL VOC's mAP (2010), in which an image without any box is a class of its own: "No finding", "none".

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
