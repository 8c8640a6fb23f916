"""Which points find a true one, and the metrics that count them. No torch."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist

from competition.tasks.average_precision import mean_average_precision
from competition.tasks.contract import Evidence
from competition.tasks.points.settings import beta_of

TOLERANCE = 1e-4  # pixels, so that a point at the distance itself counts, however coordinates are rounded


def match(one: Evidence) -> np.ndarray:
    """Return (points,) bool: which points of an image find a true point, each another.

    Greedy by score: each point takes the nearest true one of its class, within the reach or the box of that, of those
    not yet taken. So what a point finds does not depend on points of lower score: a higher cut takes points away and
    changes no other, as average precision has it and tuning makes use of. The assignment that finds the most points at
    once (Hungarian) has not that property, and differs only where points are nearer to each other than they may be off.
    """
    hits = np.zeros(len(one["labels"]), dtype=bool)
    if not len(one["true_labels"]):
        return hits
    distances = cdist(one["points"].astype(np.float64), one["true_points"].astype(np.float64))
    is_near = _is_within(one, distances) & (one["labels"][:, None] == one["true_labels"][None, :])
    left = np.where(is_near, distances, np.inf)
    order = np.argsort(-one["scores"], kind="stable")
    for i in order[is_near[order].any(axis=1)]:
        best = int(left[i].argmin())
        if np.isfinite(left[i, best]):
            hits[i] = True
            left[:, best] = np.inf
    return hits


def _is_within(one: Evidence, distances: np.ndarray) -> np.ndarray:
    """Return (points, true points) bool: where a point is near enough, by distance or by the box of the true one."""
    if "half_sides" not in one:
        return distances <= one["reach"][one["true_labels"]] + TOLERANCE
    away = np.abs(one["points"][:, None].astype(np.float64) - one["true_points"])
    return (away < one["half_sides"]).all(axis=2)


def score_of_counts(metric: str, right: np.ndarray, found: np.ndarray, true: np.ndarray) -> float:
    """Compute a metric from the counts of each class, (classes,), over all images.

    f1, f0.5, f4: F-beta of the points of all classes together; f1_mean: the mean of the classes that there are true
    points of. precision and recall: of all classes together. 1 where there is nothing to find and nothing found.
    """
    beta = beta_of(metric)
    if beta is None:
        whole = found if metric == "precision" else true
        return _share(right.sum(), whole.sum(), is_right=not found.sum() + true.sum())
    if not metric.endswith("_mean"):
        right, found, true = (counts.sum(keepdims=True) for counts in (right, found, true))
    elif true.any():
        right, found, true = (counts[true > 0] for counts in (right, found, true))
    squared = beta**2
    values = [
        _share((1 + squared) * hit, squared * all_true + said, is_right=not said + all_true)
        for hit, said, all_true in zip(right.tolist(), found.tolist(), true.tolist(), strict=True)
    ]
    return float(np.mean(values))


def _share(part: float, whole: float, *, is_right: bool) -> float:
    """Return part of whole; of nothing 1 if that is right, else 0."""
    return float(part / whole) if whole else float(is_right)


def score_of_points(metric: str, hits: np.ndarray, scores: np.ndarray, labels: np.ndarray, true: np.ndarray) -> float:
    """Compute a metric from the points of all images, (k,) each, and the number of true ones of each class.

    ap: average precision, the area under precision over recall (PASCAL VOC since 2010), the mean over the classes that
    there are true points of.
    """
    if metric == "ap":
        return mean_average_precision(hits[:, None], scores, labels, true, "voc")
    found = np.bincount(labels, minlength=len(true))
    return score_of_counts(metric, np.bincount(labels[hits], minlength=len(true)), found, true)


def joined(evidence: Sequence[Evidence], key: str) -> np.ndarray:
    """Return what is known of the points of all images, image after image."""
    return np.concatenate([one[key] for one in evidence])
