"""Masks as run lengths in rows of a csv file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from competition.files.csv_file import LongTexts, line
from competition.support.errors import CompetitionError
from competition.tasks.segmentation.formats.rle import decode_pixels, decode_rle, rle_numbers
from competition.tasks.segmentation.objects import Objects, objects_from
from competition.tasks.segmentation.settings import RunLengths

MOST_MERGED = 128  # channels that OpenCV knows of


@dataclass(frozen=True)
class MaskRows:
    """Run lengths of n images: the rows of image i are `order[starts[i]:starts[i + 1]]`."""

    path: Path
    num_classes: int
    order: np.ndarray  # (rows,) row numbers sorted by image
    starts: np.ndarray  # (n + 1,)
    row_class: np.ndarray  # (rows,) class number, -1 where the row has none
    rle: pd.Series  # (rows,) how the run lengths begin, empty for no mask
    texts: LongTexts  # (rows,) the run lengths
    form: RunLengths

    def mask(self, index: int, height: int, width: int) -> np.ndarray:
        """Return (height, width, classes) uint8 of 0 and 1: the rows of the image united.

        Raises CompetitionError with a line for every row at fault.
        """
        planes = [np.zeros((height, width), dtype=np.uint8)] * self.num_classes
        for number, layer in self._decoded(index, lambda text: decode_rle(text, height, width, self.form)):
            planes[number] = planes[number] | layer
        if self.num_classes > MOST_MERGED:
            return np.stack(planes, axis=2)
        return cv2.merge(planes).reshape(height, width, self.num_classes)  # faster than a strided copy

    def objects(self, index: int, height: int, width: int) -> Objects:
        """Return the objects of an image, a row each; errors as of `mask`."""
        found = self._decoded(index, lambda text: decode_pixels(text, height, width, self.form))
        return objects_from(list(found), height, width)

    def run_lengths(self, index: int) -> list[str]:
        """Return the run lengths of an image's rows, as they stand there."""
        rows = self.order[self.starts[index] : self.starts[index + 1]]
        return [self.texts[row].strip() for row in rows if self.rle.iloc[row]]

    def _decoded(self, index: int, decode: Callable[[str], np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield class and decoded run lengths of an image's rows; at the end raise CompetitionError where one is at
        fault."""
        faults: list[str] = []
        for row in self.order[self.starts[index] : self.starts[index + 1]]:
            if not self.rle.iloc[row]:
                continue
            try:
                decoded = decode(self.texts[row].strip())
            except ValueError as error:
                faults.append(str(self._fault(row, error)))
                continue
            yield int(self.row_class[row]), decoded
        if faults:
            raise CompetitionError("\n".join(faults))

    def present(self) -> np.ndarray:
        """Return (n, classes) bool."""
        present = np.zeros((len(self.starts) - 1, self.num_classes), dtype=bool)
        filled = (self.rle != "").to_numpy()[self.order]
        present[self._image()[filled], self.row_class[self.order][filled]] = True
        return present

    def counts(self) -> np.ndarray:
        """Return (n,) int: an image's rows with a mask."""
        filled = (self.rle != "").to_numpy()[self.order]
        return np.bincount(self._image()[filled], minlength=len(self.starts) - 1)

    def amounts(self) -> np.ndarray:
        """Return (n,) float: pixels of an image's masks, those of several rows added up."""
        pixels = np.zeros(len(self.rle))
        for row in np.flatnonzero(self.rle != ""):
            try:
                pixels[row] = rle_numbers(self.texts[row].strip(), self.form)[1::2].sum()
            except ValueError as error:
                raise self._fault(row, error) from None
        return np.bincount(self._image(), weights=pixels[self.order], minlength=len(self.starts) - 1)

    def _image(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def _fault(self, row: int, error: ValueError) -> CompetitionError:
        return CompetitionError(f"{self.path}: line {line(int(self.rle.index[row]))}: {self.rle.name}: {error}")
