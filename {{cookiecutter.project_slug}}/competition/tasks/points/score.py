"""The metrics by name, computed over the points of all images: see metrics.py."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from competition.tasks.contract import Evidence, Table, Target
from competition.tasks.points.metrics import joined, match, score_of_points


def evidence(answer: Target, truth: Target, metrics: Collection[str]) -> Evidence:
    """Keep the points of both sides, which all metrics need, and within what they count as found."""
    return {
        "points": answer["keypoints"],
        "scores": answer["scores"],
        "labels": answer["labels"],
        "true_points": truth["keypoints"],
        "true_labels": truth["labels"],
        "reach": truth["reach"],
        **({"half_sides": truth["half_sides"]} if "half_sides" in truth else {}),
    }


def scores(evidence: Sequence[Evidence], metrics: Iterable[str], num_classes: int) -> dict[str, float]:
    """Compute metrics over all images, those without points included: see `score_of_counts` and `score_of_points`."""
    hits = np.concatenate([match(one) for one in evidence])
    found, labels = joined(evidence, "scores"), joined(evidence, "labels")
    true = np.bincount(joined(evidence, "true_labels"), minlength=num_classes)
    return {name: score_of_points(name, hits, found, labels, true) for name in metrics}


def lower_is_better(metric: str) -> bool:
    """Return whether a smaller value is the better one."""
    return False


def constant_answers(table: Table) -> tuple[str, Target]:
    """The best blind submission has no point."""
    nothing = np.zeros(0, dtype=np.float32)
    return "an empty submission", {"keypoints": nothing.reshape(0, 2), "scores": nothing, "labels": nothing.astype(int)}
