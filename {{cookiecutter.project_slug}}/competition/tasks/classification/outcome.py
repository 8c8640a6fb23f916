"""What an answer says of its image, and how it compares with the truth, to see where a run fails."""

from collections.abc import Sequence

import numpy as np

from competition.config.settings import Config
from competition.tasks.classification.decode import hands_in_decisions
from competition.tasks.classification.heads import heads_in, of_head
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.contract import Outcome, Prediction, Target

LEAST = 1e-6  # probability
NOTHING = np.zeros(0)


def outcome(prediction: Prediction, answer: Target, truth: Target, num_classes: int) -> Outcome:
    """Score by the probability of the truth (the geometric mean over known labels), or by the absolute error of
    numbers; of several targets by the mean of theirs."""
    if heads_in(truth):
        return _of_heads(prediction, answer, truth)
    if "value" in truth:
        return _of_numbers(np.atleast_1d(answer["value"]), np.atleast_1d(truth["value"]))
    probabilities = np.asarray(prediction["probabilities"], dtype=np.float64)
    if "label" in truth:
        return _of_one_label(probabilities, answer, int(truth["label"]))
    known = np.flatnonzero(truth["known"]) if "known" in truth else np.arange(num_classes)
    true, said = (np.asarray(each, dtype=bool)[known] for each in (truth["labels"], present(answer, num_classes)))
    probabilities = probabilities[known]
    likelihood = np.where(true, probabilities, 1 - probabilities)
    num_true = np.zeros(num_classes, dtype=np.int64)
    num_true[known] = true
    return Outcome(
        score=float(np.exp(np.log(np.maximum(likelihood, LEAST)).mean())) if len(known) else 1.0,
        too_much=float(probabilities[~true].max(initial=0) * (said & ~true).any()),
        too_little=float((1 - probabilities)[true].max(initial=0) * (true & ~said).any()),
        labels=known,
        confidences=probabilities,
        hits=true,
        num_true=num_true,
    )


def score_name(config: Config) -> str:
    """Return what an outcome's score is."""
    assert isinstance(config, TaskConfig)
    if config.format.targets:
        return "mean over the targets of probability of the truth, or minus the error"
    return "minus the error" if config.format.target == "regression" else "probability of the truth"


def threshold_names(config: Config) -> Sequence[str]:
    """Return the threshold of labels; the likeliest class and probabilities are not decided by one number of ours."""
    assert isinstance(config, TaskConfig)
    if config.format.targets or config.format.target != "multi" or not hands_in_decisions(config):
        return []
    return ["thresholds" if config.decode.quantile is None else "quantile"]


def _of_heads(prediction: Prediction, answer: Target, truth: Target) -> Outcome:
    """Put the outcomes of the targets that are known side by side, classes numbered on."""
    each: list[Outcome] = []
    first, num_true, labels = 0, [], [NOTHING.astype(np.int64)]
    for name in heads_in(truth):
        own, [values] = of_head(truth, name), of_head(prediction, name).values()
        known = own.get("is_known", True)
        if known:
            each.append(outcome(of_head(prediction, name), of_head(answer, name), own, len(values)))
            labels.append(each[-1].labels + first)
        num_true.append(each[-1].num_true if known else np.zeros(len(values), dtype=np.int64))
        first += len(values)
    return Outcome(
        score=float(np.mean([one.score for one in each])) if each else 1.0,
        too_much=max((one.too_much for one in each), default=0.0),
        too_little=max((one.too_little for one in each), default=0.0),
        labels=np.concatenate(labels),
        confidences=np.concatenate([NOTHING, *(one.confidences for one in each)]),
        hits=np.concatenate([NOTHING.astype(bool), *(one.hits for one in each)]),
        num_true=np.concatenate(num_true),
    )


def _of_one_label(probabilities: np.ndarray, answer: Target, label: int) -> Outcome:
    """Compare with the only true class, which is negative where train.csv does not have it."""
    num_classes = len(probabilities)
    chosen = int(np.flatnonzero(present(answer, num_classes))[0])
    of_truth = float(probabilities[label]) if label >= 0 else 0.0
    is_wrong = chosen != label
    return Outcome(
        score=of_truth,
        too_much=float(probabilities[chosen]) * is_wrong,
        too_little=(1 - of_truth) * is_wrong,
        labels=np.array([chosen]),
        confidences=probabilities[[chosen]],
        hits=np.array([chosen == label]),
        num_true=(np.arange(num_classes) == label).astype(np.int64),
        pair=(label, chosen) if label >= 0 else None,
    )


def _of_numbers(value: np.ndarray, true: np.ndarray) -> Outcome:
    error = value.astype(np.float64) - true
    return Outcome(
        score=-float(np.abs(error).mean()),
        too_much=float(np.maximum(error, 0).mean()),
        too_little=float(np.maximum(-error, 0).mean()),
        labels=NOTHING.astype(np.int64),
        confidences=NOTHING,
        hits=NOTHING.astype(bool),
        num_true=np.zeros(len(true), dtype=np.int64),
        pair=(float(true[0]), float(value[0])),
    )


def present(answer: Target, num_classes: int) -> np.ndarray:
    """Return (classes,) bool: the labels that are decided, else the most likely class; (0,) of a regression, which of
    several targets has none either."""
    if heads := heads_in(answer):
        each = [of_head(answer, name) for name in heads]
        sizes = [np.size(one["value"] if "value" in one else one["probabilities"]) for one in each]
        shown = [present(one, size) for one, size in zip(each, sizes, strict=True)]
        return np.concatenate(
            [np.resize(one, size) if len(one) else np.zeros(size, bool) for one, size in zip(shown, sizes, strict=True)]
        )
    if "probabilities" not in answer:
        return np.zeros(0, dtype=bool)
    if "labels" in answer:
        return np.asarray(answer["labels"], dtype=bool)
    probabilities = np.asarray(answer["probabilities"])
    if "thresholds" in answer and not answer.get("is_single", False):
        return probabilities >= np.asarray(answer["thresholds"])
    chosen = answer["choice"] if "choice" in answer else probabilities.argmax()
    return np.arange(num_classes) == chosen


def summary(prediction: Prediction, height: int, width: int, num_classes: int) -> np.ndarray:
    """Return the probabilities (classes,), or numbers (columns,)."""
    return np.concatenate(list(prediction.values())).astype(np.float64)
