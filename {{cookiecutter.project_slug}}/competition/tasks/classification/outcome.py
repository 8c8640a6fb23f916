"""What an answer says of its image, and how it compares with the truth, to see where a run fails."""

from collections.abc import Sequence

import numpy as np

from competition.config.settings import Config
from competition.tasks.classification.decode import hands_in_decisions
from competition.tasks.classification.kinds.find import kind_in, kind_of
from competition.tasks.classification.kinds.heads import heads_in, of_head
from competition.tasks.classification.kinds.kind import said_labels
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.contract import Outcome, Prediction, Target


def outcome(prediction: Prediction, answer: Target, truth: Target, num_classes: int) -> Outcome:
    """Score by the probability of the truth (the geometric mean over known labels), or by the absolute error of
    numbers; of several targets by the mean of theirs."""
    if heads_in(truth):
        return _of_heads(prediction, answer, truth)
    return kind_in(truth).outcome(prediction, answer, truth)


def score_name(config: Config) -> str:
    """Return what an outcome's score is."""
    assert isinstance(config, TaskConfig)
    if config.format.targets:
        return "mean over the targets of probability of the truth, or minus the error"
    return kind_of(config).score_name


def threshold_names(config: Config) -> Sequence[str]:
    """Return the threshold of labels; the likeliest class and probabilities are not decided by one number of ours."""
    assert isinstance(config, TaskConfig)
    if config.format.targets or config.format.target != "multi" or not hands_in_decisions(config):
        return []
    return ["thresholds" if config.decode.quantile is None else "quantile"]


def _of_heads(prediction: Prediction, answer: Target, truth: Target) -> Outcome:
    """Put the outcomes of the targets that are known side by side, classes numbered on."""
    each: list[Outcome] = []
    first, num_true, labels = 0, [], [np.zeros(0, dtype=np.int64)]
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
        confidences=np.concatenate([np.zeros(0), *(one.confidences for one in each)]),
        hits=np.concatenate([np.zeros(0, dtype=bool), *(one.hits for one in each)]),
        num_true=np.concatenate(num_true),
    )


def present(answer: Target, num_classes: int) -> np.ndarray:
    """Return (classes,) bool: the labels that are decided, else the most likely class; (0,) of a regression, which of
    several targets has none either."""
    heads = heads_in(answer)
    if not heads:
        return said_labels(answer, num_classes)
    each = [of_head(answer, name) for name in heads]
    sizes = [np.size(one["value"] if "value" in one else one["probabilities"]) for one in each]
    shown = [said_labels(one, size) for one, size in zip(each, sizes, strict=True)]
    return np.concatenate([one if len(one) else np.zeros(size, bool) for one, size in zip(shown, sizes, strict=True)])


def summary(prediction: Prediction, height: int, width: int, num_classes: int) -> np.ndarray:
    """Return the probabilities (classes,), or numbers (columns,)."""
    return np.concatenate(list(prediction.values())).astype(np.float64)
