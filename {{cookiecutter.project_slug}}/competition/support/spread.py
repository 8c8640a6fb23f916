"""Some of many, evenly spread. No torch."""

import numpy as np


def spread(number: int, most: int) -> list[int]:
    """Return at most `most` of the places 0 to `number` - 1, in order, from the first to the last; none of nothing."""
    return np.unique(np.linspace(0, number - 1, most).astype(int)).tolist() if number else []
