"""The metrics by name: COCO's mean average precision and those that count boxes; see metrics.py."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from competition.tasks.contract import Evidence, Table, Target
from competition.tasks.detection.metrics import (
    OVER_IOU,
    THRESHOLDS,
    average_precisions,
    match,
    match_voc,
    score_of_counts,
    score_voc,
)

COCO_THRESHOLDS = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def evidence(answer: Target, truth: Target, metrics: Collection[str]) -> Evidence:
    """Keep the boxes of both sides, which all metrics need."""
    return {
        "boxes": answer["bboxes"],
        "scores": answer["scores"],
        "labels": answer["labels"],
        "true_boxes": truth["bboxes"],
        "true_labels": truth["labels"],
    }


def scores(evidence: Sequence[Evidence], metrics: Iterable[str], num_classes: int) -> dict[str, float]:
    """Compute metrics over all images, those without boxes included.

    map: COCO's AP, averaged over IoU .50:.05:.95 and classes. map40 to map95: at IoU .40 to .95. They are 0 where
    there is no true box at all. vinbigdata, voc_map: see `score_voc`. wheat, rsna, f1, f2: see `score_of_counts`.
    """
    metrics = list(metrics)
    wanted = {name: coco_thresholds(name) for name in metrics if is_coco(name)}
    results: dict[str, float] = {}
    if wanted:
        thresholds = sorted({threshold for each in wanted.values() for threshold in each})
        at = dict(zip(thresholds, average_precisions(evidence, num_classes, thresholds).tolist(), strict=True))
        results = {name: float(np.mean([at[threshold] for threshold in each])) for name, each in wanted.items()}
    found = np.array([len(one["labels"]) for one in evidence])
    for name in metrics:
        if name in OVER_IOU:
            hits = np.concatenate([match_voc(one, OVER_IOU[name]) for one in evidence])
            boxes, labels = (np.concatenate([one[key] for one in evidence]) for key in ("scores", "labels"))
            results[name] = score_voc(hits, boxes, labels, found, count_true(evidence, num_classes))
        elif name in THRESHOLDS:
            right = np.stack([match(one, THRESHOLDS[name]).sum(axis=0) for one in evidence])
            results[name] = score_of_counts(name, right, found, count_true(evidence, num_classes).sum(axis=1))
    return {name: results[name] for name in metrics}


def count_true(evidence: Sequence[Evidence], num_classes: int) -> np.ndarray:
    """Count (n, classes) true boxes."""
    return np.stack([np.bincount(one["true_labels"], minlength=num_classes) for one in evidence])


def lower_is_better(metric: str) -> bool:
    """Return whether a smaller value is the better one."""
    return False


def constant_answers(table: Table) -> tuple[str, Target]:
    """The best blind submission has no box."""
    nothing = np.zeros(0, dtype=np.float32)
    return "an empty submission", {"bboxes": nothing.reshape(0, 4), "scores": nothing, "labels": nothing.astype(int)}


def is_coco(metric: str) -> bool:
    """Return whether a metric is COCO's mean average precision, at one IoU or several."""
    return metric.startswith("map")


def coco_thresholds(metric: str) -> list[float]:
    """Return the IoUs a metric averages over: `map`, or `map75`."""
    return COCO_THRESHOLDS if metric == "map" else [int(metric.removeprefix("map")) / 100]
