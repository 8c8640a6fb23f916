"""Which classes an answer says are there."""

import numpy as np

from competition.task import Target


def present(answer: Target, num_classes: int) -> np.ndarray:
    """Return (classes,) bool: the labels that are decided, else the most likely class; (0,) of a regression."""
    if "probabilities" not in answer:
        return np.zeros(0, dtype=bool)
    if "labels" in answer:
        return np.asarray(answer["labels"], dtype=bool)
    probabilities = np.asarray(answer["probabilities"])
    if "thresholds" in answer and not answer.get("is_single", False):
        return probabilities >= np.asarray(answer["thresholds"])
    chosen = answer["choice"] if "choice" in answer else probabilities.argmax()
    return np.arange(num_classes) == chosen
