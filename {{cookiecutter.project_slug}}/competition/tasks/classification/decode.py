"""From stored probabilities to those that are handed in."""

from collections.abc import Sequence

import numpy as np

from competition.task import Prediction, Target
from competition.tasks.classification.settings import TaskConfig


def average(
    predictions: Sequence[Prediction], config: TaskConfig, weights: Sequence[float] | None = None
) -> Prediction:
    """Average `probabilities` (classes,) of several networks."""
    stacked = np.stack([p["probabilities"] for p in predictions]).astype(np.float32)
    return {"probabilities": np.average(stacked, axis=0, weights=weights).astype(np.float32)}


def decode(prediction: Prediction, height: int, width: int, config: TaskConfig) -> Target:
    """Return `probabilities` (classes,) as they are."""
    return {"probabilities": prediction["probabilities"]}
