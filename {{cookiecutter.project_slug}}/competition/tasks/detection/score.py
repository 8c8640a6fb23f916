"""The metrics: COCO's mean average precision, by faster-coco-eval (the numbers of pycocotools)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from competition.task import Evidence, Table, Target


def evidence(answer: Target, truth: Target) -> Evidence:
    """Keep what mAP needs: the boxes of both sides."""
    return {
        "boxes": answer["bboxes"],
        "scores": answer["scores"],
        "labels": answer["labels"],
        "true_boxes": truth["bboxes"],
        "true_labels": truth["labels"],
    }


def scores(evidence: Sequence[Evidence], metrics: Iterable[str], num_classes: int) -> dict[str, float]:
    """Compute metrics over all images, those without boxes included.

    map: COCO's AP, averaged over IoU .50:.05:.95 and classes. map50: at IoU .50. Both are 0 where there is no
    true box at all.
    """
    found, true = _boxes(evidence, "boxes", "labels", "scores"), _boxes(evidence, "true_boxes", "true_labels")
    if not found or not true:
        return dict.fromkeys(metrics, 0.0)
    truth = COCO(
        {
            "images": [{"id": i} for i in range(len(evidence))],
            "categories": [{"id": i, "name": str(i)} for i in range(num_classes)],
            "annotations": [box | {"id": i, "iscrowd": 0} for i, box in enumerate(true, start=1)],
        }
    )
    evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    results = {"map": evaluation.stats[0], "map50": evaluation.stats[1]}
    return {name: max(float(results[name]), 0.0) for name in metrics}


def lower_is_better(metric: str) -> bool:
    """Return whether a smaller value is the better one."""
    return False


def constant_answers(table: Table) -> tuple[str, Target]:
    """The best blind submission has no box."""
    nothing = np.zeros(0, dtype=np.float32)
    return "an empty submission", {"bboxes": nothing.reshape(0, 4), "scores": nothing, "labels": nothing.astype(int)}


def _boxes(evidence: Sequence[Evidence], boxes: str, labels: str, scores: str | None = None) -> list[dict[str, Any]]:
    """List boxes as COCO annotations."""
    rows = []
    for image, one in enumerate(evidence):
        xywh = np.concatenate([one[boxes][:, :2], one[boxes][:, 2:] - one[boxes][:, :2]], axis=1).astype(float)
        for index, (box, label) in enumerate(zip(xywh.tolist(), one[labels].tolist(), strict=True)):
            row = {"image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3]}
            rows.append(row | ({"score": float(one[scores][index])} if scores else {}))
    return rows
