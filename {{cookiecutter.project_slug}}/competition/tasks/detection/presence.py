"""Which classes an answer says are there."""

import numpy as np

from competition.task import Target


def present(answer: Target, num_classes: int) -> np.ndarray:
    """Return (classes,) bool: which classes have a box."""
    return np.bincount(answer["labels"], minlength=num_classes) > 0
