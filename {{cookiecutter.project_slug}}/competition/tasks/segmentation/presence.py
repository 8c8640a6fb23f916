"""Which classes an answer says are there."""

import numpy as np

from competition.task import Target


def present(answer: Target, num_classes: int) -> np.ndarray:
    """Return (classes,) bool: which classes have a mask."""
    return answer["mask"].any(axis=(0, 1))
