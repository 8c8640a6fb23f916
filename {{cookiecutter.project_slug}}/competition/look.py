"""What `check` notes of every image on its way, for the page that it writes: numbers and parts, no pixels. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from competition.errors import CompetitionError
from competition.settings import Config
from competition.task import Part, Table, Target, Task

MOST_IMAGES = 2000  # whose boxes or parts of masks are looked at, drawn by chance
SAMPLED_SIDE = 32  # pixels, at least, of the shorter side that brightness is measured on


@dataclass(frozen=True)
class Looks:
    """Numbers of n images, NaN for those that could not be read; brightness and contrast are the mean and standard
    deviation of pixel values, from 0 to 1 but for files of floats."""

    heights: np.ndarray  # (n,), as the next five
    widths: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    means: np.ndarray  # (n, channels), as the next, of squares
    squares: np.ndarray

    @classmethod
    def of(cls, number: int, channels: int) -> "Looks":
        """Return room for so many images."""
        return cls(*(np.full(shape, np.nan) for shape in [number] * 6 + [(number, channels)] * 2))

    def add(self, index: int, pixels: np.ndarray) -> None:
        """Note an image (H, W, channels)."""
        height, width = pixels.shape[:2]
        step = max(min(height, width) // SAMPLED_SIDE, 1)
        most = 255 if pixels.dtype == np.uint8 else 1
        some = pixels[::step, ::step].astype(np.float64) / most
        self.heights[index], self.widths[index] = height, width
        self.brightness[index], self.contrast[index] = some.mean(), some.std()
        self.lowest[index], self.highest[index] = pixels.min() / most, pixels.max() / most
        self.means[index], self.squares[index] = some.mean(axis=(0, 1)), (some**2).mean(axis=(0, 1))

    def channels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (channels,), (channels,): mean and standard deviation of the values of all images."""
        mean = np.nanmean(self.means, axis=0)
        return mean, np.sqrt(np.maximum(np.nanmean(self.squares, axis=0) - mean**2, 0))

    def ranges(self) -> list[str]:
        """Return a line on the range of values, as images are read; none where no image could be."""
        read = np.isfinite(self.lowest)
        if not read.any():
            return []
        low, high = self.lowest[read].min(), self.highest[read].max()
        return [f"values of training images: {low:.4g} to {high:.4g} (8 and 16 bits are read as 0 to 1)"]


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
    def of(cls, task: Task, table: Table, num_test: int, config: Config) -> "Seen":
        """Return room for the images of a table and so many test images."""
        number, channels = len(table.image_ids), config.data.channels
        chosen = np.random.default_rng(config.seed).permutation(number)[:MOST_IMAGES]
        looks = Looks.of(number, channels), Looks.of(num_test, channels)
        return cls(task, table, *looks, frozenset(chosen.tolist()))

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
