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
    truth = COCO(
        {
            "images": [{"id": i} for i in range(len(evidence))],
            "categories": [{"id": i, "name": str(i)} for i in range(num_classes)],
            "annotations": [box | {"id": i, "iscrowd": 0} for i, box in enumerate(true, start=1)],
        }
    )
    evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox")
    evaluation.params.iouThrs = np.array(thresholds)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    # thresholds x recall levels x classes x areas x numbers of boxes; -1 for classes without a true box
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    return precision[:, :, (precision > -1).all(axis=(0, 1))].mean(axis=(1, 2))


def _boxes(evidence: Sequence[Evidence], boxes: str, labels: str, scores: str | None = None) -> list[dict[str, Any]]:
    """List boxes as COCO annotations."""
    rows = []
    for image, one in enumerate(evidence):
        xywh = np.concatenate([one[boxes][:, :2], one[boxes][:, 2:] - one[boxes][:, :2]], axis=1).astype(float)
        for index, (box, label) in enumerate(zip(xywh.tolist(), one[labels].tolist(), strict=True)):
            row = {"image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3]}
            rows.append(row | ({"score": float(one[scores][index])} if scores else {}))
    return rows
