"""Hosts' metrics that look at all of `format.targets` together: all that is known of each but its format. No torch."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Scores = Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], float]


class Together(NamedTuple):
    """A metric of several targets at once."""

    # Of what is said (n, classes) and true (n,) by target, negative where nobody knows.
    score: Scores
    takes: Callable[[str, str, Sequence[str] | None], bool]  # a target, by its name, kind and the classes it lists
    words: str  # what it takes
    lower_is_better: bool


NUM_GRADES = 3
SPINE_CONDITIONS = ("spinal", "foraminal", "subarticular")  # a part of targets' names


def is_spine_condition(name: str, kind: str, classes: Sequence[str] | None) -> bool:
    """Return whether a target has grades, and a condition of the spine in its name."""
    is_graded = kind == "single" and len(classes or ()) in (0, NUM_GRADES)
    return is_graded and any(one in name for one in SPINE_CONDITIONS)


def rsna2024(said: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> float:
    """Mean of four log losses weighted 1, 2, 4 by the true grade: of each condition of the spine, at all levels, and of
    whether a study's spinal canal is severely narrow at any, for which the most severe level speaks.

    By target, `said` (n, grades) and `truth` (n,), negative where nobody knows. Source: RSNA 2024 Lumbar Spine
    Degenerative Classification (Kaggle), whose file takes the largest weight of a study's levels for the last.
    """
    losses, least = [], np.finfo(np.float64).eps  # scikit-learn's, as their file has it
    for condition in SPINE_CONDITIONS:
        names = [name for name in truth if condition in name]
        if not names:
            continue
        grades, each = np.stack([truth[name] for name in names]), np.stack([said[name] for name in names])
        sure = each.astype(np.float64).clip(least, 1)
        sure /= sure.sum(axis=2, keepdims=True)
        of_truth = np.take_along_axis(sure, grades[..., None].clip(min=0), axis=2)[..., 0]
        weights = np.where(grades >= 0, 2.0**grades, 0.0)
        losses.append((-np.log(of_truth), weights))
        if condition == "spinal":
            severe = np.where(grades >= 0, sure[..., -1], 0.0).max(axis=0).clip(least, 1 - least)
            is_severe = (grades == sure.shape[2] - 1).any(axis=0)
            losses.append((-np.where(is_severe, np.log(severe), np.log1p(-severe)), weights.max(axis=0)))
    means = [(loss * weights).sum() / weights.sum() for loss, weights in losses if weights.any()]
    return float(np.mean(means)) if means else np.nan


TOGETHER: dict[str, Together] = {
    "rsna2024": Together(
        rsna2024,
        is_spine_condition,
        f"three grades, the worst last, of {', '.join(SPINE_CONDITIONS)} conditions",
        lower_is_better=True,
    )
}
