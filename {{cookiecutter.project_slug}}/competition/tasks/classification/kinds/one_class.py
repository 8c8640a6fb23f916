"""One class an image. No torch."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from competition.tasks.classification.kinds.kind import Kind, class_scores, said_labels, stacked
from competition.tasks.classification.metrics import SINGLE, SingleLabels
from competition.tasks.contract import Evidence, Outcome, Prediction, Target

BEST = 5  # classes that map5 looks at


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
        return class_scores(SINGLE, self._case, entries, metrics)

    def _case(self, entries: Sequence[Evidence]) -> SingleLabels:
        truth = stacked(entries, "truth").astype(np.int64)
        if "top" in entries[0]:
            top = stacked(entries, "top")
            return SingleLabels(None, top[:, 0], top, truth, entries[0].get("grades"))
        probabilities = stacked(entries, "probabilities")
        top = np.argsort(-probabilities, axis=1, kind="stable")[:, :BEST]
        choice = stacked(entries, "choice") if "choice" in entries[0] else top[:, 0]
        return SingleLabels(probabilities, choice, top, truth, entries[0].get("grades"))

    def outcome(self, prediction: Prediction, answer: Target, truth: Target) -> Outcome:
        """Compare with the only true class, which is negative where train.csv does not have it."""
        said, label = np.asarray(prediction["probabilities"], dtype=np.float64), int(truth["label"])
        num_classes = len(said)
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
