"""What each kind of target says of itself: what is true and said of an image, how that is scored, shown and sure.

What is decided hangs on how it is handed in: decode.py. Losses need tensors: loss.py. No torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from competition.tasks.classification.metrics import group_roc_auc
from competition.tasks.classification.settings.metric_names import TargetKind
from competition.tasks.contract import Evidence, Outcome, Prediction, Target

BY_GROUP = "group_roc_auc"
MOST_NAMED = 3  # classes, or numbers but one, in a caption


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
    def outcome(self, prediction: Prediction, answer: Target, truth: Target) -> Outcome:
        """Compare what is said with the truth."""

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


def class_scores(
    functions: Mapping[str, Callable[[Any], float]],
    case_of: Callable[[Sequence[Evidence]], Any],
    entries: Sequence[Evidence],
    metrics: Iterable[str],
) -> dict[str, float]:
    """Compute metrics of classes over all images together, and of the groups of `format.score_by` by themselves."""
    case, found = case_of(entries), dict[str, float]()
    for name in metrics:
        if name == BY_GROUP:
            own = [str(entry["score_by"]) for entry in entries]
            parts = [[one for one, its in zip(entries, own, strict=True) if its == value] for value in sorted(set(own))]
            found[name] = group_roc_auc([case_of(part) for part in parts])
        else:
            found[name] = float(functions[name](case))
    return found


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
