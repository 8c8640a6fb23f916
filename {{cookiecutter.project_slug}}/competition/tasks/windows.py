"""Looking at an image through windows at full resolution: where they lie, what is in them, how they join. No torch.

Windows cover the image exactly and evenly, and overlap by at least the share asked for; what lies beyond the border of
an image smaller than a window is zero.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from competition.tasks.contract import Target

LEAST_VISIBLE = 0.2  # a box of which a window shows less than this share is not in it


@dataclass(frozen=True)
class Place:
    """Where a window lies in its image, in pixels; it may reach over the lower and right border of a small image."""

    top: int
    left: int
    height: int
    width: int


def places(height: int, width: int, size: tuple[int, int], overlap: float) -> list[Place]:
    """Return the windows of an image, row by row."""
    return [
        Place(top, left, *size) for top in starts(height, size[0], overlap) for left in starts(width, size[1], overlap)
    ]


def starts(length: int, size: int, overlap: float) -> list[int]:
    """Return where windows of a size begin along a side: the first at 0, the last ends with the side."""
    if length <= size:
        return [0]
    step = max(int(size * (1 - overlap)), 1)
    number = -(-(length - size) // step) + 1
    return np.linspace(0, length - size, number).round().astype(int).tolist()


def cut_image(image: np.ndarray, place: Place) -> np.ndarray:
    """Return (height, width, ...) of an image (H, W, ...), zero beyond its border."""
    part = image[place.top : place.top + place.height, place.left : place.left + place.width]
    missing = (place.height - part.shape[0], place.width - part.shape[1])
    return np.pad(part, [(0, missing[0]), (0, missing[1]), *[(0, 0)] * (image.ndim - 2)]) if any(missing) else part


def cut_target(target: Target, place: Place) -> Target:
    """Return what of a target is in a window: `mask` and `ignored` cut, `bboxes` or `keypoints` (and `labels`) shifted,
    and boxes clipped."""
    if "mask" in target:
        return target | {key: cut_image(target[key], place) for key in ("mask", "ignored") if key in target}
    if "keypoints" in target:
        points = target["keypoints"] - np.array([place.left, place.top], dtype=np.float32)
        within = ((points >= 0) & (points <= np.array([place.width, place.height]))).all(axis=1)
        return {**target, "keypoints": points[within], "labels": target["labels"][within]}
    if "bboxes" not in target:
        return target
    boxes = target["bboxes"] - np.array([place.left, place.top] * 2, dtype=np.float32)
    inside = np.clip(boxes, 0, np.array([place.width, place.height] * 2, dtype=np.float32))
    area, visible = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, inside))
    keep = visible > np.maximum(LEAST_VISIBLE * area, 0)
    return {**target, "bboxes": inside[keep], "labels": target["labels"][keep]}


def blending_weights(height: int, width: int) -> np.ndarray:
    """Return (height, width) float32, largest in the middle, small but not zero at the border (Hann's window)."""
    along, across = (np.hanning(length + 2)[1:-1] for length in (height, width))
    return (along[:, None] * across[None, :]).astype(np.float32)


class Blend:
    """The weighted mean of maps (channels, h, w) of an image's windows; holds one image, however many windows."""

    def __init__(self, height: int, width: int) -> None:
        self._total: np.ndarray | None = None
        self._weight = np.zeros((height, width), dtype=np.float32)

    def add(self, values: np.ndarray, place: Place) -> None:
        """Take the map of a window."""
        height, width = self._weight.shape
        if self._total is None:
            self._total = np.zeros((len(values), height, width), dtype=np.float32)
        rows, columns = slice(place.top, place.top + place.height), slice(place.left, place.left + place.width)
        inside = (slice(min(place.height, height - place.top)), slice(min(place.width, width - place.left)))
        weights = blending_weights(place.height, place.width)
        self._total[:, rows, columns] += (values * weights)[:, *inside]
        self._weight[rows, columns] += weights[inside]

    def mean(self) -> np.ndarray:
        """Return (channels, height, width) float32, once every pixel is in a window; nothing can be added after."""
        assert self._total is not None, "no window was added"
        return np.divide(self._total, self._weight, out=self._total)


def is_cut_off(boxes: np.ndarray, place: Place, where: list[Place], height: int, width: int) -> np.ndarray:
    """Return (k,) bool: which boxes (k, 4) xyxy of a window, in pixels of the image, another window shows better.

    These end at a border of the window inside the image, and their middle is nearer to another window's.
    """
    own = [
        (place.left, place.width, width, {p.left for p in where}),
        (place.top, place.height, height, {p.top for p in where}),
    ]
    cut = np.zeros(len(boxes), dtype=bool)
    for axis, (start, size, side, all_starts) in enumerate(own):
        low, high = boxes[:, axis], boxes[:, axis + 2]
        begin, end = _cell(start, size, side, sorted(all_starts))
        middle = (low + high) / 2
        cut |= (start > 0) & (low <= start + 1) & (middle < begin)
        cut |= (start + size < side) & (high >= start + size - 1) & (middle >= end)
    return cut


def _cell(start: int, size: int, side: int, all_starts: list[int]) -> tuple[float, float]:
    """Return the part of a side that is nearer to the middle of the window at `start` than to any other's."""
    borders = [0.0, *((one + other + size) / 2 for one, other in pairwise(all_starts)), float(side)]
    number = all_starts.index(start)
    return borders[number], borders[number + 1]
