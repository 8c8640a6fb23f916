"""Single objects of an image: those that a csv file or polygons name, or else the connected parts of a mask."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import csr_matrix

from competition.tasks.contract import Target


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
        each = [(one, pixels) for one, pixels in self if one == number]
        return objects_from(each, self.height, self.width)

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
        # Sorted by object, each object's pixels staying in order.
        found = csr_matrix((inside, (labels.ravel()[inside] - 1, inside)), shape=(number - 1, labels.size))
        each += [(k, found.indices[a:b]) for a, b in zip(found.indptr[:-1], found.indptr[1:], strict=True)]
    return objects_from(each, height, width)


def overlaps(said: Objects, true: Objects) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the IoU (pairs,) of every two objects that share a pixel, and the numbers of either."""
    shared = (said.as_rows() @ true.as_rows().T).tocoo()
    area_said, area_true = np.diff(said.starts), np.diff(true.starts)
    return shared.data / (area_said[shared.row] + area_true[shared.col] - shared.data), shared.row, shared.col
