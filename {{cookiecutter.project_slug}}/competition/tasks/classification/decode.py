"""From stored probabilities to those that are handed in."""

from collections.abc import Sequence

import numpy as np

from competition.task import Prediction, Target
from competition.tasks.classification.settings import TaskConfig


def average(predictions: Sequence[Prediction], config: TaskConfig) -> Prediction:
    """Average `probabilities` (classes,) of several networks."""
    return {"probabilities": np.stack([p["probabilities"] for p in predictions]).astype(np.float32).mean(axis=0)}


def decode(prediction: Prediction, height: int, width: int, config: TaskConfig) -> Target:
    """Return `probabilities` (classes,) as they are."""
    return {"probabilities": prediction["probabilities"]}
