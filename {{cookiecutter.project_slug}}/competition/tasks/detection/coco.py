"""COCO's mean average precision, by faster-coco-eval (the numbers of pycocotools)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from competition.task import Evidence


def average_precisions(evidence: Sequence[Evidence], num_classes: int, thresholds: Sequence[float]) -> np.ndarray:
    """Return (thresholds,) AP at each IoU, the mean over the classes there are boxes of; 0 where there is no box.

    Interpolated at 101 levels of recall, at most 100 boxes an image.
    """
    found, true = _boxes(evidence, "boxes", "labels", "scores"), _boxes(evidence, "true_boxes", "true_labels")
    if not found or not true:
        return np.zeros(len(thresholds))
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
