"""Which of two masks lies on what their image shows: it changes more at its borders than beside them. No torch."""

from collections.abc import Sequence

import cv2
import numpy as np

MOST_SIDE = 1024  # of an image that is compared: of a larger one each few pixels are put together
NEAREST_CONTROL = 6  # pixels that a mask is moved at least to see what is beside it: behind a soft border


def clearer_mask(pixels: np.ndarray, first: np.ndarray, second: np.ndarray) -> int:
    """Return 1 where the first mask (H, W) lies on what the image (H, W, C) shows, -1 where the second does; 0 where
    neither does, or both alike."""
    step = -(-max(pixels.shape[:2]) // MOST_SIDE)
    changes = _changes(pixels, step)
    one, other = (_contrast(mask[step // 2 :: step, step // 2 :: step], changes) for mask in (first, second))
    return int(np.sign(one - other)) if max(one, other) > 1 else 0


def _changes(pixels: np.ndarray, step: int) -> list[np.ndarray]:
    """Return how much a smoothed image changes from row to row and from column to column, 1 being usual of each."""
    height, width, channels = pixels.shape
    size = (width // step, height // step)
    planes = [np.ascontiguousarray(pixels[..., channel]) for channel in range(channels)]  # OpenCV resizes 4 at most
    small = [cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in planes] if step > 1 else planes
    grey = np.asarray(np.mean(small, axis=0), dtype=np.float32)
    smooth = cv2.blur(np.nan_to_num(grey), (3, 3))
    changes = [np.abs(np.diff(smooth, axis=axis)) for axis in (0, 1)]
    return [one / (float(one.mean()) or 1.0) if one.size else one for one in changes]


def _contrast(mask: np.ndarray, changes: Sequence[np.ndarray]) -> float:
    """Return how much more an image changes at a mask's borders than at those of the same mask a little beside it.

    Against the whole image any mask in its textured part would do better than one in its smooth part.
    """
    borders = [np.argwhere(np.diff(mask, axis=axis)) for axis in (0, 1)]
    far = max(NEAREST_CONTROL, len(mask) // 20)
    shifts = ((far, 0), (-far, 0), (0, far), (0, -far))
    usual = float(np.mean([_change(borders, changes, shift) for shift in shifts]))
    return _change(borders, changes, (0, 0)) / usual if usual else 0.0


def _change(borders: Sequence[np.ndarray], changes: Sequence[np.ndarray], shift: tuple[int, int]) -> float:
    """Return the mean change at borders (k, 2) moved by so many rows and columns, as far as they are inside then."""
    found: list[np.ndarray] = []
    for border, change in zip(borders, changes, strict=True):
        moved = border + shift
        inside = ((moved >= 0) & (moved < change.shape)).all(axis=1)
        found.append(change[tuple(moved[inside].T)])
    values = np.concatenate(found)
    return float(values.mean()) if len(values) else 0.0
