"""The score: evidence of single images gathered to one case, of which each metric is computed once."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from competition.tasks.classification.decode import join_groups, settle, true_class
from competition.tasks.classification.kinds.find import KINDS, kind_in
from competition.tasks.classification.kinds.heads import head_by_head, heads_in, of_head, side_by_side
from competition.tasks.classification.kinds.several_tables import SeveralTable
from competition.tasks.classification.kinds.tables import MultiLabelTable, RegressionTable
from competition.tasks.classification.metrics_together import TOGETHER
from competition.tasks.classification.settings.metric_names import LOWER_IS_BETTER, MEANS
from competition.tasks.contract import Evidence, Table, Target


@head_by_head
def evidence(answer: Target, truth: Target, metrics: Collection[str]) -> Evidence:
    """Keep the answer and `truth`; with `format.group` also `group`, with `format.class_weights` those, with
    `format.unknown` what is `known`, for qwk the `grades`, with `format.score_by` what the image has there."""
    kept = {key: np.asarray(value) for key, value in answer.items()}
    if "top" in kept:
        # There are thousands of classes where only the best are handed in.
        kept.pop("probabilities", None)
        kept.pop("is_new_at_0", None)
    key = kind_in(truth).truth
    kept["kind"] = np.asarray(kind_in(truth).name)
    kept["truth"] = np.asarray(true_class(answer, truth["label"]) if key == "label" else truth[key])
    also = ("group", "score_by", "class_weights", "known", "is_known", "metric", "score_weight")
    also += ("grades",) if any(metric.endswith("qwk") for metric in metrics) else ()
    return kept | {key: np.asarray(truth[key]) for key in also if key in truth}


def scores(evidence: Sequence[Evidence], metrics: Iterable[str], num_classes: int) -> dict[str, float]:
    """Compute metrics over all images, or groups of images where the truth has `group`; see metrics.py for each."""
    entries = list(evidence)
    if heads_in(entries[0]):
        return _of_heads(entries, metrics, num_classes)
    if "group" in entries[0]:
        _, entries = join_groups(entries, [str(entry["group"]) for entry in entries])
    return KINDS[str(entries[0]["kind"])].scores(settle(entries), metrics)


def _of_heads(entries: Sequence[Evidence], metrics: Iterable[str], num_classes: int) -> dict[str, float]:
    """Compute metrics of each target, as grapheme/macro_recall, over the images of which it is known (NaN where there
    are none), and their weighted mean; those of targets that are not among the answers are left out."""
    answered = {name: [of_head(entry, name) for entry in entries] for name in heads_in(entries[0])}

    def value(name: str, metric: str) -> float:
        known = [one for one in answered[name] if one.get("is_known", True)]
        return scores(known, [metric], num_classes)[metric] if known else np.nan

    found: dict[str, float] = {}
    for metric in metrics:
        name, _, own = metric.partition("/")
        if metric in MEANS:
            first = {one: each[0] for one, each in answered.items() if "score_weight" in each[0]}
            values = np.array([value(one, str(each["metric"])) for one, each in first.items()])
            shares = np.array([float(each["score_weight"]) for each in first.values()]) * np.isfinite(values)
            found[metric] = float(np.average(np.nan_to_num(values), weights=shares)) if shares.any() else np.nan
        elif metric in TOGETHER:
            found[metric] = TOGETHER[metric].score(*_together(answered))
        elif name in answered:
            found[metric] = value(name, own)
    return found


def _together(answered: Mapping[str, Sequence[Evidence]]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return by target that counts what is said (n, classes) and true (n,) of the same images, or groups, -1 where
    nobody knows."""
    said, truth = {}, {}
    for name, each in answered.items():
        if "score_weight" not in each[0]:
            continue
        entries = join_groups(each, [str(one["group"]) for one in each])[1] if "group" in each[0] else each
        said[name] = np.stack([one["probabilities"] for one in entries])
        truth[name] = np.array([one["truth"] if one.get("is_known", True) else -1 for one in entries], dtype=np.int64)
    return said, truth


def lower_is_better(metric: str) -> bool:
    """Return whether a smaller value is the better one."""
    return metric.rpartition("/")[2] in LOWER_IS_BETTER


def constant_answers(table: Table) -> tuple[str, Target]:
    """Every image gets the shares of the classes in train.csv, or the mean number: of constants the one with the best
    log loss or root mean square."""
    name = "a constant submission"
    if isinstance(table, SeveralTable):
        return name, side_by_side({head: constant_answers(each)[1] for head, each in table.tables.items()})
    if isinstance(table, RegressionTable):
        return name, {"value": table.values.mean(axis=0)}
    present = table.present()
    known = table.known if isinstance(table, MultiLabelTable) else None
    shares = present.mean(axis=0) if known is None else present.sum(axis=0) / known.sum(axis=0).clip(1)
    if present.sum(axis=1).max() > 1 or (present.sum(axis=1) == 0).any():
        return name, {"probabilities": shares, "labels": shares >= 0.5}
    return name, {"probabilities": shares, "choice": int(shares.argmax())}
