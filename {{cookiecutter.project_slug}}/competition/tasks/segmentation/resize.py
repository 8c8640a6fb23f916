"""Masks at another size, without a shift."""

import cv2
import numpy as np

from competition.tasks.contract import Target


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (h, w) or (h, w, classes) of 0 and 1 by the pixel whose centre is nearest."""
    if mask.shape[:2] == (height, width):
        return mask
    layers = mask.reshape(*mask.shape[:2], -1)
    resized = [
        cv2.resize(np.ascontiguousarray(layers[:, :, k]), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        for k in range(layers.shape[2])
    ]
    return np.stack(resized, axis=-1).reshape(height, width, *mask.shape[2:])


def without_ignored(mask: np.ndarray, truth: Target) -> np.ndarray:
    """Return a mask (h, w, classes), at any size, without what the truth says is to be ignored."""
    if "ignored" not in truth:
        return mask
    return mask * (1 - resize_mask(truth["ignored"], *mask.shape[:2]))[:, :, None]
