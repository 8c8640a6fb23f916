"""What `check` notes of every image on its way, for the page that it writes: numbers and parts, no pixels. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from competition.errors import CompetitionError
from competition.task import Part, Table, Target, Task

MOST_IMAGES = 2000  # whose boxes or parts of masks are looked at, drawn by chance
SAMPLED_SIDE = 32  # pixels, at least, of the shorter side that brightness is measured on


@dataclass(frozen=True)
class Looks:
    """Numbers of n images, NaN for those that could not be read; brightness and contrast are the mean and standard
    deviation of pixel values, from 0 to 1 but for files of floats."""

    heights: np.ndarray  # (n,), as the next three
    widths: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray

    @classmethod
    def of(cls, number: int) -> "Looks":
        """Return room for so many images."""
        return cls(*(np.full(number, np.nan) for _ in range(4)))

    def add(self, index: int, pixels: np.ndarray) -> None:
        """Note an image (H, W, channels)."""
        height, width = pixels.shape[:2]
        step = max(min(height, width) // SAMPLED_SIDE, 1)
        some = pixels[::step, ::step].astype(np.float32) / (255 if pixels.dtype == np.uint8 else 1)
        self.heights[index], self.widths[index] = height, width
        self.brightness[index], self.contrast[index] = some.mean(), some.std()


@dataclass
class Seen:
    """What is known of a competition's images once all of them have been looked at."""

    task: Task
    table: Table
    train: Looks
    test: Looks
    sampled: frozenset[int]  # training images whose parts are noted
    parts: dict[int, Sequence[Part]] = field(default_factory=dict)
    folds: np.ndarray | None = None  # (n,)
    groups: np.ndarray | None = None  # (n,) of near-duplicates, -1 for an image without; none where not looked for

    @classmethod
    def of(cls, task: Task, table: Table, num_test: int, seed: int) -> "Seen":
        """Return room for the images of a table and so many test images."""
        number = len(table.image_ids)
        chosen = np.random.default_rng(seed).permutation(number)[:MOST_IMAGES]
        return cls(task, table, Looks.of(number), Looks.of(num_test), frozenset(chosen.tolist()))

    def amounts(self) -> np.ndarray | None:
        """Return (n,) float, how much is on each image; none where an answer is at fault, which is told elsewhere."""
        try:
            return self.table.amounts()
        except CompetitionError:
            return None

    def add(self, index: int, pixels: np.ndarray, target: Target) -> None:
        """Note a training image and its answer."""
        self.train.add(index, pixels)
        if index in self.sampled:
            self.parts[index] = self.task.picture.parts(self.table, index, target, *pixels.shape[:2])
