"""A number an image, or several. No torch."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from competition.tasks.classification.kinds.kind import MOST_NAMED, Kind, stacked
from competition.tasks.classification.metrics import NUMBERS, Numbers
from competition.tasks.contract import Evidence, Outcome, Prediction, Target


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

    def outcome(self, prediction: Prediction, answer: Target, truth: Target) -> Outcome:
        """Score by the absolute error."""
        value, true = np.atleast_1d(answer["value"]), np.atleast_1d(truth["value"])
        error = value.astype(np.float64) - true
        return Outcome(
            score=-float(np.abs(error).mean()),
            too_much=float(np.maximum(error, 0).mean()),
            too_little=float(np.maximum(-error, 0).mean()),
            labels=np.zeros(0, dtype=np.int64),
            confidences=np.zeros(0),
            hits=np.zeros(0, dtype=bool),
            num_true=np.zeros(len(true), dtype=np.int64),
            pair=(float(true[0]), float(value[0])),
        )

    def caption(self, truth: Any, classes: Sequence[str]) -> str:
        """Write the first numbers."""
        return ", ".join(f"{value:.4g}" for value in np.atleast_1d(truth).tolist()[: MOST_NAMED + 1])

    def trial_predictions(self, num_classes: int, bounds: tuple[float, float] | None) -> Iterator[np.ndarray]:
        """Yield what lies in the middle."""
        yield np.full(num_classes, sum(bounds or (0.0, 1.0)) / 2)
