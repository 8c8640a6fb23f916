"""The score of several answers an image (`format.targets`): of each, their mean, and hosts' metrics of all."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from competition.tasks.classification.decode import evidence_by_group
from competition.tasks.classification.kinds.heads import heads_in, of_head
from competition.tasks.classification.metrics_together import TOGETHER
from competition.tasks.classification.settings.metric_names import MEANS
from competition.tasks.contract import Evidence


def scores_of_heads(
    entries: Sequence[Evidence], metrics: Iterable[str], score_one: Callable[[Sequence[Evidence], str], float]
) -> dict[str, float]:
    """Compute metrics of each target, as grapheme/macro_recall, over the images, or groups of images, of which it is
    known (NaN where there are none), and their weighted mean; those of targets that are not among the answers are left
    out."""
    heads = heads_in(entries[0])
    answered = {name: evidence_by_group([of_head(entry, name) for entry in entries]) for name in heads}

    def value(name: str, metric: str) -> float:
        known = [one for one in answered[name] if one.get("is_known", True)]
        return score_one(known, metric) if known else np.nan

    found: dict[str, float] = {}
    for metric in metrics:
        name, _, own = metric.partition("/")
        if metric in MEANS:
            found[metric] = _mean(answered, value)
        elif metric in TOGETHER:
            found[metric] = TOGETHER[metric].score(*_together(answered))
        elif name in answered:
            found[metric] = value(name, own)
    return found


def _mean(answered: Mapping[str, Sequence[Evidence]], value: Callable[[str, str], float]) -> float:
    """Return the weighted mean of the metrics of targets that count, without those of which nothing is known."""
    first = {name: each[0] for name, each in answered.items() if "score_weight" in each[0]}
    values = np.array([value(name, str(each["metric"])) for name, each in first.items()])
    shares = np.array([float(each["score_weight"]) for each in first.values()]) * np.isfinite(values)
    return float(np.average(np.nan_to_num(values), weights=shares)) if shares.any() else np.nan


def _together(answered: Mapping[str, Sequence[Evidence]]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return by target that counts what is said (n, classes) and true (n,) of the same images, or groups, -1 where
    nobody knows."""
    said, truth = {}, {}
    for name, each in answered.items():
        if "score_weight" not in each[0]:
            continue
        said[name] = np.stack([one["probabilities"] for one in each])
        truth[name] = np.array([one["truth"] if one.get("is_known", True) else -1 for one in each], dtype=np.int64)
    return said, truth
