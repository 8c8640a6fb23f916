"""The three kinds of target, each in one place: what is true and said of an image, how that is scored, shown and sure.

What is decided hangs on how it is handed in: decode.py. Losses need tensors: loss.py. Several targets an image are as
many of these: heads.py. No torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from competition.tasks.classification.metrics import (
    MULTI,
    NUMBERS,
    SINGLE,
    MultiLabels,
    Numbers,
    SingleLabels,
    group_roc_auc,
)
from competition.tasks.classification.settings import TargetKind, TaskConfig
from competition.tasks.contract import Evidence, Outcome, Target

LEAST = 1e-6  # probability
NOTHING = np.zeros(0)
BY_GROUP = "group_roc_auc"
BEST = 5  # classes that map5 looks at
MOST_NAMED = 3  # classes in a caption


class Kind(ABC):
    """What an image's answer is: a class, any number of them, or numbers."""

    name: ClassVar[TargetKind]
    truth: ClassVar[str]  # its key in a target, and in a batch
    said: ClassVar[str] = "probabilities"  # its key in a stored prediction
    usual_loss: ClassVar[str]
    score_name: ClassVar[str] = "probability of the truth"  # of an outcome
    amount_name: ClassVar[str | None] = None  # of what varies from image to image
    confidence_name: ClassVar[str] = ""

    @abstractmethod
    def perfect_answer(self, truth: Any, num_classes: int) -> Target:
        """Return the answer that is the truth."""

    @abstractmethod
    def numbers(self, truth: Any, num_classes: int) -> np.ndarray:
        """Return the truth as (n,) numbers, which predictions (n,) should be near to."""

    @abstractmethod
    def scores(self, entries: Sequence[Evidence], metrics: Iterable[str]) -> dict[str, float]:
        """Compute metrics of decided answers."""

    @abstractmethod
    def outcome(self, said: np.ndarray, answer: Target, truth: Target) -> Outcome:
        """Compare what is said (n,) with the truth."""

    @abstractmethod
    def caption(self, truth: Any, classes: Sequence[str]) -> str:
        """Say the truth in words."""

    def trial_predictions(self, num_classes: int, bounds: tuple[float, float] | None) -> Iterator[np.ndarray]:
        """Yield equal probabilities, then those of each class for sure."""
        yield np.full(num_classes, 1 / num_classes)
        yield from np.eye(num_classes)

    def confidence(self, probabilities: np.ndarray) -> float:
        """Return how sure a prediction is."""
        raise NotImplementedError


class OneClass(Kind):
    """One class an image."""

    name, truth, usual_loss = "single", "label", "cross_entropy"
    confidence_name = "the probability of its best class"

    def perfect_answer(self, truth: Any, num_classes: int) -> Target:
        """Return `probabilities` of 0 and 1 with `choice` and `top`."""
        return {"probabilities": self._is(truth, num_classes), "choice": int(truth), "top": np.array([int(truth)])}

    def numbers(self, truth: Any, num_classes: int) -> np.ndarray:
        """Return 1 for its class, 0 for the others."""
        return self._is(truth, num_classes).astype(np.float64)

    def _is(self, truth: Any, num_classes: int) -> np.ndarray:
        return (np.arange(num_classes) == int(truth)).astype(np.float32)

    def scores(self, entries: Sequence[Evidence], metrics: Iterable[str]) -> dict[str, float]:
        """Compute metrics of the chosen class, the best ones or probabilities."""
        return _scores(SINGLE, self._case, entries, list(metrics))

    def _case(self, entries: Sequence[Evidence]) -> SingleLabels:
        truth = stacked(entries, "truth").astype(np.int64)
        if "top" in entries[0]:
            top = stacked(entries, "top")
            return SingleLabels(None, top[:, 0], top, truth, entries[0].get("grades"))
        probabilities = stacked(entries, "probabilities")
        top = np.argsort(-probabilities, axis=1, kind="stable")[:, :BEST]
        choice = stacked(entries, "choice") if "choice" in entries[0] else top[:, 0]
        return SingleLabels(probabilities, choice, top, truth, entries[0].get("grades"))

    def outcome(self, said: np.ndarray, answer: Target, truth: Target) -> Outcome:
        """Compare with the only true class, which is negative where train.csv does not have it."""
        label, num_classes = int(truth["label"]), len(said)
        chosen = int(np.flatnonzero(said_labels(answer, num_classes))[0])
        of_truth = float(said[label]) if label >= 0 else 0.0
        is_wrong = chosen != label
        return Outcome(
            score=of_truth,
            too_much=float(said[chosen]) * is_wrong,
            too_little=(1 - of_truth) * is_wrong,
            labels=np.array([chosen]),
            confidences=said[[chosen]],
            hits=np.array([chosen == label]),
            num_true=(np.arange(num_classes) == label).astype(np.int64),
            pair=(label, chosen) if label >= 0 else None,
        )

    def caption(self, truth: Any, classes: Sequence[str]) -> str:
        """Name the class."""
        return classes[truth] if truth >= 0 else "a class that is not in train.csv"

    def confidence(self, probabilities: np.ndarray) -> float:
        """Return the probability of the best class."""
        return float(probabilities.max())


class AnyClasses(Kind):
    """Any number of classes an image, also the yes or no of one."""

    name, truth, usual_loss, amount_name = "multi", "labels", "bce", "labels"
    confidence_name = "the least sure class's probability of being there, or of not being there"

    def perfect_answer(self, truth: Any, num_classes: int) -> Target:
        """Return `probabilities` of 0 and 1 with `labels`."""
        return {"probabilities": truth.astype(np.float32), "labels": truth}

    def numbers(self, truth: Any, num_classes: int) -> np.ndarray:
        """Return 1 for its classes, 0 for the others."""
        return np.asarray(truth, dtype=np.float64)

    def scores(self, entries: Sequence[Evidence], metrics: Iterable[str]) -> dict[str, float]:
        """Compute metrics of the decided labels or probabilities, where they are known."""
        return _scores(MULTI, self._case, entries, list(metrics))

    def _case(self, entries: Sequence[Evidence]) -> MultiLabels:
        probabilities = stacked(entries, "probabilities")
        labels = stacked(entries, "labels") if "labels" in entries[0] else probabilities >= 0.5
        weights = entries[0].get("class_weights", np.ones(probabilities.shape[1]))
        is_decision = bool(entries[0].get("is_decision", False))
        truth, labels = stacked(entries, "truth") > 0, labels.astype(bool)
        if "known" not in entries[0]:
            return MultiLabels(probabilities, labels, truth, weights, is_decision)
        known = stacked(entries, "known").astype(bool)
        return MultiLabels(probabilities, labels & known, truth & known, weights, is_decision, known)

    def outcome(self, said: np.ndarray, answer: Target, truth: Target) -> Outcome:
        """Score by the geometric mean of the probabilities of known labels."""
        num_classes = len(said)
        known = np.flatnonzero(truth["known"]) if "known" in truth else np.arange(num_classes)
        decided = said_labels(answer, num_classes)
        true, chosen = (np.asarray(each, dtype=bool)[known] for each in (truth["labels"], decided))
        probabilities = said[known]
        likelihood = np.where(true, probabilities, 1 - probabilities)
        num_true = np.zeros(num_classes, dtype=np.int64)
        num_true[known] = true
        return Outcome(
            score=float(np.exp(np.log(np.maximum(likelihood, LEAST)).mean())) if len(known) else 1.0,
            too_much=float(probabilities[~true].max(initial=0) * (chosen & ~true).any()),
            too_little=float((1 - probabilities)[true].max(initial=0) * (true & ~chosen).any()),
            labels=known,
            confidences=probabilities,
            hits=true,
            num_true=num_true,
        )

    def caption(self, truth: Any, classes: Sequence[str]) -> str:
        """Name the classes, some of them where there are many."""
        numbers = np.flatnonzero(truth).tolist()
        if not numbers:
            return "none"
        more = f" and {len(numbers) - 6} more" if len(numbers) > 6 else ""
        return ", ".join(classes[number] for number in numbers[:6]) + more

    def confidence(self, probabilities: np.ndarray) -> float:
        """Return the probability of the least sure class."""
        return float(np.maximum(probabilities, 1 - probabilities).min())


class SomeNumbers(Kind):
    """A number an image, or several."""

    name, truth, usual_loss, amount_name = "regression", "value", "mse", "value"
    said = "values"
    score_name = "minus the error"

    def perfect_answer(self, truth: Any, num_classes: int) -> Target:
        """Return `value`."""
        return {"value": np.asarray(truth, dtype=np.float64)}

    def numbers(self, truth: Any, num_classes: int) -> np.ndarray:
        """Return them as they are."""
        return np.asarray(truth)

    def scores(self, entries: Sequence[Evidence], metrics: Iterable[str]) -> dict[str, float]:
        """Compute metrics of the numbers."""
        weights = entries[0].get("class_weights", 1.0)
        case = Numbers(stacked(entries, "value"), stacked(entries, "truth"), weights)
        return {name: float(NUMBERS[name](case)) for name in metrics}

    def outcome(self, said: np.ndarray, answer: Target, truth: Target) -> Outcome:
        """Score by the absolute error."""
        value, true = np.atleast_1d(answer["value"]), np.atleast_1d(truth["value"])
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

    def caption(self, truth: Any, classes: Sequence[str]) -> str:
        """Write the first numbers."""
        return ", ".join(f"{value:.4g}" for value in np.atleast_1d(truth).tolist()[: MOST_NAMED + 1])

    def trial_predictions(self, num_classes: int, bounds: tuple[float, float] | None) -> Iterator[np.ndarray]:
        """Yield what lies in the middle."""
        yield np.full(num_classes, sum(bounds or (0.0, 1.0)) / 2)


def _scores(
    functions: Mapping[str, Callable[[Any], float]],
    case_of: Callable[[Sequence[Evidence]], Any],
    entries: Sequence[Evidence],
    metrics: Sequence[str],
) -> dict[str, float]:
    """Compute metrics of classes over all images together, and of the groups of `format.score_by` by themselves."""
    case, found = case_of(entries), {}
    for name in metrics:
        if name == BY_GROUP:
            values = [str(entry["score_by"]) for entry in entries]
            parts = [
                [entry for entry, own in zip(entries, values, strict=True) if own == value]
                for value in sorted(set(values))
            ]
            found[name] = group_roc_auc([case_of(part) for part in parts])
        else:
            found[name] = float(functions[name](case))
    return found


KINDS: dict[str, Kind] = {kind.name: kind for kind in (OneClass(), AnyClasses(), SomeNumbers())}


def kind_of(config: TaskConfig) -> Kind:
    """Return the kind of the only target of a config."""
    return KINDS[config.format.target]


def kind_in(target: Mapping[str, Any]) -> Kind:
    """Return the kind of a truth, or of a batch."""
    return next(kind for kind in KINDS.values() if kind.truth in target)


def said_labels(answer: Target, num_classes: int) -> np.ndarray:
    """Return (classes,) bool: the labels that are decided, else the most likely class; (0,) of numbers."""
    if "probabilities" not in answer:
        return np.zeros(0, dtype=bool)
    if "labels" in answer:
        return np.asarray(answer["labels"], dtype=bool)
    probabilities = np.asarray(answer["probabilities"])
    if "thresholds" in answer and not answer.get("is_single", False):
        return probabilities >= np.asarray(answer["thresholds"])
    chosen = answer["choice"] if "choice" in answer else probabilities.argmax()
    return np.arange(num_classes) == chosen


def stacked(entries: Sequence[Mapping[str, np.ndarray]], key: str) -> np.ndarray:
    """Return what every image has under a key (n, ...)."""
    return np.stack([entry[key] for entry in entries])
