"""The score: evidence of single images gathered to one case, of which each metric is computed once."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from competition.tasks.classification.decode import join_groups, settle, true_class
from competition.tasks.classification.metrics import (
    MULTI,
    NUMBERS,
    SINGLE,
    MultiLabels,
    Numbers,
    SingleLabels,
    group_roc_auc,
)
from competition.tasks.classification.table import MultiLabelTable, RegressionTable
from competition.tasks.contract import Evidence, Table, Target

BY_GROUP = "group_roc_auc"
BEST = 5  # classes that map5 looks at


def evidence(answer: Target, truth: Target, metrics: Collection[str]) -> Evidence:
    """Keep the answer and `truth`; with `format.group` also `group`, with `format.class_weights` those, with
    `format.unknown` what is `known`, for qwk the `grades`, with `format.score_by` what the image has there."""
    kept = {key: np.asarray(value) for key, value in answer.items()}
    if "top" in kept:
        # There are thousands of classes where only the best are handed in.
        kept.pop("probabilities", None)
        kept.pop("is_new_at_0", None)
    key = next(key for key in ("label", "labels", "value") if key in truth)
    kept["truth"] = np.asarray(true_class(answer, truth["label"]) if key == "label" else truth[key])
    also = ("group", "score_by", "class_weights", "known", *(["grades"] if "qwk" in metrics else []))
    return kept | {key: np.asarray(truth[key]) for key in also if key in truth}


def scores(evidence: Sequence[Evidence], metrics: Iterable[str], num_classes: int) -> dict[str, float]:
    """Compute metrics over all images, or groups of images where the truth has `group`; see metrics.py for each."""
    entries, metrics = list(evidence), list(metrics)
    if "group" in entries[0]:
        _, entries = join_groups(entries, [str(entry["group"]) for entry in entries])
    entries = settle(entries)
    if "value" in entries[0]:
        weights = entries[0].get("class_weights", 1.0)
        numbers = Numbers(_stack(entries, "value"), _stack(entries, "truth"), weights)
        return {name: float(NUMBERS[name](numbers)) for name in metrics}
    is_single = entries[0]["truth"].ndim == 0
    case: Any = _single(entries) if is_single else _multi(entries, num_classes)
    functions: Mapping[str, Callable[[Any], float]] = SINGLE if is_single else MULTI
    found = {name: float(functions[name](case)) for name in metrics if name != BY_GROUP}
    if BY_GROUP in metrics:
        parts = [_part(entries, value) for value in np.unique([str(entry["score_by"]) for entry in entries])]
        found[BY_GROUP] = group_roc_auc([_single(part) if is_single else _multi(part, num_classes) for part in parts])
    return {name: found[name] for name in metrics}


def _part(entries: Sequence[Evidence], value: str) -> list[Evidence]:
    return [entry for entry in entries if str(entry["score_by"]) == value]


def _single(entries: Sequence[Evidence]) -> SingleLabels:
    truth = _stack(entries, "truth").astype(np.int64)
    if "top" in entries[0]:
        top = _stack(entries, "top")
        return SingleLabels(None, top[:, 0], top, truth, entries[0].get("grades"))
    probabilities = _stack(entries, "probabilities")
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :BEST]
    choice = _stack(entries, "choice") if "choice" in entries[0] else top[:, 0]
    return SingleLabels(probabilities, choice, top, truth, entries[0].get("grades"))


def _multi(entries: Sequence[Evidence], num_classes: int) -> MultiLabels:
    probabilities = _stack(entries, "probabilities")
    labels = _stack(entries, "labels") if "labels" in entries[0] else probabilities >= 0.5
    weights = entries[0].get("class_weights", np.ones(num_classes))
    is_decision = bool(entries[0].get("is_decision", False))
    truth, labels = _stack(entries, "truth") > 0, labels.astype(bool)
    if "known" not in entries[0]:
        return MultiLabels(probabilities, labels, truth, weights, is_decision)
    known = _stack(entries, "known").astype(bool)
    return MultiLabels(probabilities, labels & known, truth & known, weights, is_decision, known)


def _stack(entries: Sequence[Evidence], key: str) -> np.ndarray:
    return np.stack([entry[key] for entry in entries])


def lower_is_better(metric: str) -> bool:
    """Return whether a smaller value is the better one."""
    return metric in ("log_loss", "rsna2022", "error", "rmse", "mae")


def constant_answers(table: Table) -> tuple[str, Target]:
    """Every image gets the shares of the classes in train.csv, or the mean number: of constants the one with the best
    log loss or root mean square."""
    name = "a constant submission"
    if isinstance(table, RegressionTable):
        return name, {"value": table.values.mean(axis=0)}
    present = table.present()
    known = table.known if isinstance(table, MultiLabelTable) else None
    shares = present.mean(axis=0) if known is None else present.sum(axis=0) / known.sum(axis=0).clip(1)
    if present.sum(axis=1).max() > 1 or (present.sum(axis=1) == 0).any():
        return name, {"probabilities": shares, "labels": shares >= 0.5}
    return name, {"probabilities": shares, "choice": int(shares.argmax())}
