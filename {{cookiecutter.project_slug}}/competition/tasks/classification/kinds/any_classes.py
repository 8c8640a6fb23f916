"""Any number of classes an image, also the yes or no of one. No torch."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from competition.tasks.classification.kinds.kind import Kind, class_scores, said_labels, stacked
from competition.tasks.classification.metrics import MULTI, MultiLabels
from competition.tasks.contract import Evidence, Outcome, Prediction, Target

LEAST = 1e-6  # probability


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
        return class_scores(MULTI, self._case, entries, metrics)

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

    def outcome(self, prediction: Prediction, answer: Target, truth: Target) -> Outcome:
        """Score by the geometric mean of the probabilities of known labels."""
        said = np.asarray(prediction["probabilities"], dtype=np.float64)
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
