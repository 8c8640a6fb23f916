"""Maps of probabilities that networks say of an image: at another size, and their average. No torch."""

from collections.abc import Sequence

import cv2
import numpy as np


def resize_probabilities(probabilities: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (h, w) bilinearly to float32."""
    as_float = probabilities.astype(np.float32)
    if as_float.shape == (height, width):
        return as_float
    return cv2.resize(as_float, (width, height), interpolation=cv2.INTER_LINEAR)


def average_maps(maps: Sequence[np.ndarray], weights: Sequence[float] | None = None) -> np.ndarray:
    """Average maps (classes, h, w) to float16; those of another resolution than the first are resized to it."""
    _, height, width = maps[0].shape
    resized = [np.stack([resize_probabilities(layer, height, width) for layer in one]) for one in maps]
    return np.average(np.stack(resized), axis=0, weights=weights).astype(np.float16)
