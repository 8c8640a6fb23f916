"""What images and their answers show once all have been looked at, and what that says of a config. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from competition.config.settings import Config
from competition.files.image_folder import row_in_words
from competition.files.item_source import ImageSource
from competition.support.errors import CompetitionError
from competition.tasks.contract import Part, Table, Target, Task

MOST_IMAGES = 2000  # whose boxes or parts of masks are looked at, drawn by chance
SAMPLED_SIDE = 32  # pixels, at least, of the shorter side that brightness is measured on
WARNING = "warning: "  # how lines begin that are to be seen beside faults, too
# Of values once normalised. Images of 8 bits, by any usual mean and std: black and white ones have deviation 2.2, means
# are at most 2.6 from 0. Floats of mean 0 and deviation 1 by those of photographs: 4.4.
USUAL_DEVIATION, FARTHEST_MEAN = (0.15, 4.0), 4.0


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
    turned: list[tuple[str, bool]] = field(default_factory=list)  # by image: its file, and whether a viewer turns it
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

    def note_orientation(self, source: ImageSource) -> None:
        """Note whether an image, or one of its files, is turned by a viewer."""
        files = source.present()
        self.turned.append((str(files[0]), any(file.is_turned for file in files)))

    def add(self, index: int, pixels: np.ndarray, target: Target) -> None:
        """Note a training image and its answer."""
        self.train.add(index, pixels)
        if index in self.sampled:
            self.parts[index] = self.task.picture.parts(self.table, index, target, *pixels.shape[:2])


def told_by_images(config: Config, seen: Seen) -> tuple[list[str], list[str]]:
    """Return what images and their answers tell of the config, and warnings where they speak against it."""
    _, said = seen.task.recognise.settle(config, seen.table)
    odd = [line for line in said if line.startswith(WARNING)]
    ranges = seen.train.ranges()
    odd += _unfit_normalisation(config, seen.train) if ranges else []
    odd += [*_outside(config, seen), *_turned(config, seen)]
    return [*(line for line in said if not line.startswith(WARNING)), *ranges], odd


def _turned(config: Config, seen: Seen) -> list[str]:
    """Warn of images that a viewer shows otherwise than they are read."""
    turned = [file for file, is_turned in seen.turned if is_turned]
    if not turned or config.data.turns_upright:
        return []
    return [
        f"warning: {len(turned)} of {len(seen.turned)} images have an EXIF orientation other than 1, as {min(turned)}: "
        "they are read as stored, not as viewers show them; where answers are of upright images, and where they are of "
        "whole images: data.exif_orientation: apply"
    ]


def _unfit_normalisation(config: Config, looks: Looks) -> list[str]:
    """Warn where what `data.mean` and `data.std` make of the training images is far from mean 0 and deviation 1."""
    mean, std = (values[: config.data.own_channels] for values in looks.channels())
    varies = std > 1e-6 * np.abs(mean)  # a channel of one value tells nothing, however it is normalised
    if not varies.any():
        return []
    our_mean, our_std = (np.array(values)[: config.data.own_channels] for values in (config.data.mean, config.data.std))
    found = (std / our_std)[varies]
    off = (np.abs(mean - our_mean) / our_std)[varies]
    low, high = USUAL_DEVIATION
    if low <= found.min() and found.max() <= high and off.max() <= FARTHEST_MEAN:
        return []
    ours = [
        f"data.{name}=[{', '.join(f'{one:.4g}' for one in values)}]"
        for name, values in (("mean", mean), ("std", np.where(varies, std, 1)))
    ]
    return [
        f"warning: data.mean and data.std do not fit the training images: normalised by them, values have means up to "
        f"{off.max():.3g} from 0 and standard deviations from {found.min():.3g} to {found.max():.3g}, where networks "
        f"expect about 1; those of the images: {' '.join(ours)}"
    ]


def _outside(config: Config, seen: Seen) -> list[str]:
    """Warn of boxes that lie outside their image: they are left out of what is trained on."""
    lost = [index for index in sorted(seen.parts) if any(part.outside >= 1 for part in seen.parts[index])]
    if not lost:
        return []
    number = sum(part.outside >= 1 for index in lost for part in seen.parts[index])
    line = seen.table.lines[lost[0]]
    return [
        f"warning: {number} boxes of {len(lost)} images lie outside their image or have no area, as one of "
        f"{seen.table.image_ids[lost[0]]!r} ({row_in_words(config.data, line)}): they are left out"
    ]
