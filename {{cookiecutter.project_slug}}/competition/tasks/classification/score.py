"""The score: evidence of single images gathered to one case, of which each metric is computed once."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from competition.tasks.classification.decode import evidence_by_group, settle, true_class
from competition.tasks.classification.kinds.find import KINDS, kind_in
from competition.tasks.classification.kinds.heads import head_by_head, heads_in, side_by_side
from competition.tasks.classification.kinds.several_scores import scores_of_heads
from competition.tasks.classification.kinds.several_tables import SeveralTable
from competition.tasks.classification.kinds.tables import MultiLabelTable, RegressionTable
from competition.tasks.classification.settings.metric_names import LOWER_IS_BETTER
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
        return scores_of_heads(entries, metrics, lambda own, metric: scores(own, [metric], num_classes)[metric])
    return KINDS[str(entries[0]["kind"])].scores(settle(evidence_by_group(entries)), metrics)


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
