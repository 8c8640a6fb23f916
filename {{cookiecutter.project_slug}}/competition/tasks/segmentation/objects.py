"""Single objects of an image: those that a csv file or polygons name, or else the connected parts of a mask."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import csr_matrix

from competition.tasks.contract import Target

MOST_COUNTERS = 1 << 22  # in 32 MB


@dataclass(frozen=True)
class Objects:
    """k objects of an image (height, width), each of a class; they may touch, and those that people drew overlap.

    The pixels of object i are `pixels[starts[i]:starts[i + 1]]`, counted along the rows from 0.
    """

    classes: np.ndarray  # (k,) int
    starts: np.ndarray  # (k + 1,)
    pixels: np.ndarray  # (n,) int
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield class and pixels of each."""
        for number, first, end in zip(self.classes.tolist(), self.starts[:-1], self.starts[1:], strict=True):
            yield number, self.pixels[first:end]

    def of_class(self, number: int) -> "Objects":
        """Return those of a class."""
        if (self.classes == number).all():
            return self
        each = [(one, pixels) for one, pixels in self if one == number]
        return objects_from(each, self.height, self.width)

    def numbers(self) -> np.ndarray:
        """Return (n,) the number of the object of each of `pixels`."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def mask(self, num_classes: int) -> np.ndarray:
        """Return (height, width, classes) uint8 of 0 and 1: all objects of a class together."""
        mask = np.zeros((self.height * self.width, num_classes), dtype=np.uint8)
        mask[self.pixels, np.repeat(self.classes, np.diff(self.starts))] = 1
        return mask.reshape(self.height, self.width, num_classes)

    def as_rows(self) -> csr_matrix:
        """Return (k, pixels of the image): 1 where an object is."""
        ones, shape = np.ones(len(self.pixels), dtype=np.int64), (len(self), self.height * self.width)
        return csr_matrix((ones, self.pixels, self.starts), shape=shape)


def objects_from(each: Sequence[tuple[int, np.ndarray]], height: int, width: int) -> Objects:
    """Return objects of the class and pixels of each."""
    starts = np.cumsum([0, *(len(pixels) for _, pixels in each)])
    pixels = np.concatenate([np.zeros(0, dtype=np.int64), *(pixels for _, pixels in each)])
    return Objects(np.array([number for number, _ in each], dtype=np.int64), starts, pixels, height, width)


def objects_of(answer: Target) -> Objects:
    """Return the objects of an answer, or, where it names none, the connected parts of its `mask`."""
    return answer["objects"] if "objects" in answer else parts_of(answer["mask"])


def parts_of(mask: np.ndarray) -> Objects:
    """Return the connected parts of a mask (height, width, classes), pixels that touch at a corner together."""
    height, width, num_classes = mask.shape
    each = []
    for k in range(num_classes):
        number, labels = cv2.connectedComponents(np.ascontiguousarray(mask[:, :, k]))
        inside = np.flatnonzero(labels)
        of_object = labels.ravel()[inside]
        ends = np.cumsum(np.bincount(of_object, minlength=number))
        kind = np.uint16 if number < 1 << 16 else np.int64  # of 16 bits a stable sort takes no longer than a look
        order = np.argsort(of_object.astype(kind), kind="stable")
        each += [(k, one) for one in np.split(inside[order], ends[1:-1]) if len(one)]
    return objects_from(each, height, width)


def overlaps(said: Objects, true: Objects) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the IoU (pairs,) of every two objects that share a pixel, and the numbers of either."""
    area_said, area_true = np.diff(said.starts), np.diff(true.starts)
    first, second, shared = _shared(said, true)
    return shared / (area_said[first] + area_true[second] - shared), first, second


def _shared(said: Objects, true: Objects) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers (pairs,) of every two objects that share pixels, and how many."""
    labels = np.zeros(said.height * said.width, dtype=np.int64)
    labels[said.pixels] = said.numbers() + 1
    if np.count_nonzero(labels) < len(said.pixels):  # some lie over others: a pixel has no one number
        both = (said.as_rows() @ true.as_rows().T).tocoo()
        return both.row, both.col, both.data
    under = labels[true.pixels]
    is_shared = under > 0
    pairs, counts = _count((under[is_shared] - 1) * len(true) + true.numbers()[is_shared], len(said) * len(true))
    return *np.divmod(pairs, max(len(true), 1)), counts


def _count(numbers: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which numbers below `end` there are, and how often each; a table of all is far quicker than sorting."""
    if end > MOST_COUNTERS:
        return np.unique(numbers, return_counts=True)
    counts = np.bincount(numbers, minlength=end)
    found = np.flatnonzero(counts)
    return found, counts[found]
