"""Masks as files: one an image, whose pixel values are the classes, or one an image and class; how they are named."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from competition.config.data_settings import MAX_PIXELS, Data
from competition.files.image_folder import file_name, row_in_words
from competition.files.images import NPY, TIF, decoded, read_image, read_npy, read_tif, refuse_large
from competition.support.errors import CompetitionError
from competition.tasks.segmentation.settings import TaskConfig, TrainLayout

MOST_NAMED = 6  # classes in a line


@dataclass(frozen=True)
class MaskFiles:
    """Mask files of n images by the pattern of `format.train.files`; an image or class without a file is empty."""

    pattern: str  # with the folder
    image_ids: np.ndarray
    classes: tuple[str, ...]
    data: Data
    lines: np.ndarray | None  # (n,) of train.csv, 0 for an image without a row; none without a train.csv
    layout: TrainLayout

    @classmethod
    def of(
        cls, config: TaskConfig, image_ids: np.ndarray, classes: tuple[str, ...], lines: np.ndarray | None = None
    ) -> "MaskFiles":
        """Return the mask files of these images, on those lines (n,) of train.csv if there is one.

        Raises CompetitionError if not one of them has any.
        """
        assert config.format.train.files is not None
        pattern = f"{config.data.dir}/{config.format.train.files}"
        masks = cls(pattern, image_ids, classes, config.data, lines, config.format.train)
        if masks.layout.threshold and masks.tells_classes_by_values:
            raise CompetitionError(
                f"format.train.threshold: found {masks.layout.threshold} beside {len(classes)} classes in a file, "
                "which its pixel values tell; leave it out, or name a file a class ({class_id} in format.train.files)"
            )
        if not any(masks.has_file(index) for index in range(len(image_ids))):  # it would train on empty masks
            raise CompetitionError(
                f"{masks.pattern}: no such mask file of any of {len(image_ids)} images, as {masks.paths(0)[0]}; set "
                f"format.train.files as the files are named"
            )
        return masks

    def paths(self, index: int) -> list[Path]:
        """Return the file of the image, or a file a class in their order."""
        names = self.classes if self.is_by_class else ("",)
        return [Path(file_name(self.pattern, self.image_ids[index], name)) for name in names]

    @property
    def is_by_class(self) -> bool:
        """Return whether each class has a file of its own."""
        return "{class_id}" in self.pattern

    @property
    def tells_classes_by_values(self) -> bool:
        """Return whether the values of a file's pixels are its classes."""
        return not self.is_by_class and not self.layout.colors and len(self.classes) > 1

    def has_file(self, index: int) -> bool:
        """Return whether there is a mask of the image."""
        return any(path.is_file() for path in self.paths(index))

    def remarks(self) -> list[str]:
        """Return lines on the images without a file, or without that of a class, where there are some: names of
        another pattern look the same."""
        total = len(self.image_ids)
        is_there = np.array([[path.is_file() for path in self.paths(index)] for index in range(total)])
        has_any, lines = is_there.any(axis=1), list[str]()
        if not has_any.all():
            first = self.paths(int(np.argmin(has_any)))[0]
            lines.append(f"{(~has_any).sum()} of {total} images have no mask file, as {first}: taken as empty")
        if not is_there[has_any].all():  # an answer that got lost looks like one that is none
            lacks = dict(zip(self.classes, (~is_there).sum(axis=0).tolist(), strict=True))
            counts = [f"{number} of {name}" for name, number in lacks.items() if number]
            counts[0] = counts[0].replace(" of ", f" of {total} images have no file of ", 1)
            more = [f"{len(counts) - MOST_NAMED} classes more"] if len(counts) > MOST_NAMED else []
            lines.append(f"masks: {', '.join(counts[:MOST_NAMED] + more)}, taken as empty")
        return [*lines, *self._shaded()]

    def _shaded(self) -> list[str]:
        """Warn of masks of one class that have shades, which are inside like all that is not zero."""
        _, shades, sizes = self._counted
        if self.layout.threshold or not shades.any():
            return []
        index = int(np.argmax(shades > 0))
        is_shaded = [_shades(layer) > 0 for layer in self._layers(index)]
        first = self.paths(index)[is_shaded.index(True)]
        return [
            f"warning: masks of {(shades > 0).sum()} images have pixel values beside 0 and one other, as {first}: "
            f"{shades.sum() / sizes.sum():.2%} of all pixels, which count as inside; where they are traces of JPEG or "
            "of scaling, and do not number objects: format.train.threshold: 127, the highest value that is outside"
        ]

    def mask(self, index: int, height: int, width: int) -> np.ndarray:
        """Return (height, width, classes) uint8 of 0 and 1; errors as of `masks`."""
        return self.masks(index, height, width)[0]

    def masks(self, index: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (height, width, classes) and (height, width) uint8 of 0 and 1: the masks, and what is to be ignored.

        Raises CompetitionError with a line for every file that is broken, or one if they are not of that size.
        """
        read = self._read(index)
        if read is None:
            return np.zeros((height, width, len(self.classes)), dtype=np.uint8), np.zeros((height, width), np.uint8)
        if read[0].shape[:2] != (height, width):
            found = f"{read[0].shape[0]} x {read[0].shape[1]}"
            path = next(path for path in self.paths(index) if path.is_file())
            raise self._fault(index, f"{path}: mask of {found} pixels; its image has {height} x {width}")
        return read

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return masks (H, W, classes) and what is to be ignored (H, W), uint8 of 0 and 1; none where the image has no
        file."""
        layers = self._layers(index)
        return self._masks_of(layers, index) if layers else None

    def _masks_of(self, layers: Sequence[np.ndarray], index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the same of what its files hold."""
        ignored = self._ignored(layers)
        if self.layout.colors:
            masks = self._split_colors(layers[0], ignored, index)
        elif self.tells_classes_by_values:
            masks = self._split(np.where(ignored, 0, layers[0]), index)
        else:
            masks = np.stack([self._is_inside(layer) & ~ignored for layer in layers], axis=-1).astype(np.uint8)
        return masks, ignored.astype(np.uint8)

    def _is_inside(self, layer: np.ndarray) -> np.ndarray:
        return layer > self.layout.threshold if self.layout.threshold else layer != 0

    def _layers(self, index: int) -> list[np.ndarray]:
        """Return what the files of an image hold, each (H, W), zeros for one that is not there; nothing for none."""
        read, faults = list[np.ndarray | None](), list[str]()
        read_file = read_colors if self.layout.colors else read_labels
        for path in self.paths(index):
            try:
                read.append(read_file(path, self.data.max_pixels) if path.is_file() else None)
            except CompetitionError as error:
                faults.append(str(error))
        if faults:
            raise self._fault(index, *faults)
        shape = next((one.shape for one in read if one is not None), None)
        if shape is None:
            return []
        layers = [np.zeros(shape, np.uint8) if one is None else one for one in read]
        for path, layer in zip(self.paths(index), layers, strict=True):
            if layer.shape != shape:
                raise self._fault(index, f"{path}: mask of {layer.shape} pixels; that of another class has {shape}")
        return layers

    def _fault(self, index: int, *faults: str) -> CompetitionError:
        """Return the error of an image's files, a line a fault, each with the row of train.csv."""
        row = "" if self.lines is None else f" ({row_in_words(self.data, self.lines[index])})"
        return CompetitionError("\n".join(f"{fault}{row}" for fault in faults))

    def _split(self, labels: np.ndarray, index: int) -> np.ndarray:
        """Return a layer a class of labels (H, W): 0 is none, 1 the first class."""
        if labels.max() > len(self.classes) or labels.min() < 0:
            wrong = labels.max() if labels.min() >= 0 else labels.min()
            hint = "; what is to be left out: format.train.ignore" if self.layout.ignore is None else ""
            raise self._fault(
                index,
                f"{self.paths(index)[0]}: found pixel value {wrong}; expected 0 for none, and 1 to "
                f"{len(self.classes)} for the classes {', '.join(self.classes)} (data.classes){hint}",
            )
        return (labels[:, :, None] == np.arange(1, len(self.classes) + 1)).astype(np.uint8)

    def _ignored(self, layers: Sequence[np.ndarray]) -> np.ndarray:
        """Return (H, W) bool: where a file of an image says that a pixel counts for nothing."""
        ignore = self.layout.ignore
        if ignore is None:
            return np.zeros(layers[0].shape, dtype=bool)
        value = code_of(ignore) if isinstance(ignore, tuple) else ignore
        return np.any([layer == value for layer in layers], axis=0)

    def _split_colors(self, codes: np.ndarray, ignored: np.ndarray, index: int) -> np.ndarray:
        """Return a layer a class of colours as numbers (H, W); those of classes that nobody asks for are none."""
        colors = self.layout.colors
        known = np.isin(codes, [0, *map(code_of, colors.values())]) | ignored
        if not known.all():
            row, column = np.argwhere(~known)[0].tolist()
            found = [int(codes[row, column]) >> shift & 255 for shift in (16, 8, 0)]
            raise self._fault(
                index,
                f"{self.paths(index)[0]}: found colour {found} in row {row}, column {column}; expected [0, 0, 0] for "
                f"none, or one of format.train.colors: {', '.join(f'{k} {list(v)}' for k, v in colors.items())}",
            )
        return np.stack([codes == code_of(colors[name]) for name in self.classes], axis=-1).astype(np.uint8)

    def present(self) -> np.ndarray:
        """Return (n, classes) bool."""
        return self._pixels > 0

    def amounts(self) -> np.ndarray:
        """Return (n,) float: pixels of an image's masks."""
        return self._pixels.sum(1).astype(float)

    @property
    def _pixels(self) -> np.ndarray:
        return self._counted[0]

    @cached_property
    def _counted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count (n, classes) pixels, and (n,) those of shades and all: every file is read, once, several at a time."""

        def count(index: int) -> tuple[np.ndarray, int, int]:
            layers = self._layers(index)
            if not layers:
                return np.zeros(len(self.classes), int), 0, 0
            masks, ignored = self._masks_of(layers, index)
            is_binary = not self.layout.colors and not self.tells_classes_by_values
            shades = sum(_shades(layer[ignored == 0]) for layer in layers) if is_binary else 0
            return np.count_nonzero(masks, axis=(0, 1)), shades, sum(layer.size for layer in layers)

        with ThreadPoolExecutor() as pool:
            pixels, shades, sizes = zip(*pool.map(count, range(len(self.image_ids))), strict=True)
        return np.stack(pixels), np.array(shades), np.array(sizes)


def _shades(values: np.ndarray) -> int:
    """Return how many of the pixels of a mask are neither 0 nor of the value that most others have."""
    inside = values[values != 0]
    if not len(inside) or (inside == inside[0]).all():
        return 0
    _, counts = np.unique(inside, return_counts=True)
    return len(inside) - int(counts.max())


def read_labels(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a mask file as it is stored, (H, W) of whole numbers: a palette's indices, not its colours.

    Raises CompetitionError if it is broken, larger than `max_pixels`, or has several channels that differ.
    """
    labels = decoded(path, lambda file: _stored_numbers(file, path.suffix.lower(), max_pixels), "mask")
    if labels.ndim == 3 and (labels == labels[:, :, :1]).all():
        labels = labels[:, :, 0]
    if labels.ndim != 2:
        raise CompetitionError(
            f"{path}: expected a mask height x width, found shape {labels.shape}; of colours: "
            "format.train.colors, as {NAME: [255, 0, 0]}"
        )
    return labels


def read_colors(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a mask file of colours as (H, W) int64, a number a colour; errors as of `read_image`."""
    pixels = read_image(path, 3, max_pixels)
    if pixels.dtype != np.uint8:
        raise CompetitionError(f"{path}: found colours of more than 8 bits; expected red, green and blue from 0 to 255")
    return pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])


def code_of(color: Sequence[int]) -> int:
    """Return the number of a colour."""
    return color[0] << 16 | color[1] << 8 | color[2]


def _stored_numbers(file: BinaryIO, suffix: str, max_pixels: int) -> np.ndarray:
    if suffix == NPY:
        return read_npy(file, max_pixels)
    if suffix in TIF:
        return read_tif(file, max_pixels, as_stored=True)
    with Image.open(file) as image:
        refuse_large(image.height, image.width, max_pixels)
        return np.asarray(image)


# A file or folder must be called a mask to be one: images also come with depths, contours and the like.
MASK_NAME = re.compile(r"mask|label|segm|annot|(?<![a-z])(seg|gt|truth)(?![a-z])", re.IGNORECASE)
WORD = r"(?:masks?|labels?|segmentations?|seg|annotations?|gt)"
# The part of a name beside the image's id or beside the word for masks.
BESIDE_ID = (
    re.compile(rf"(?P<before>\{{image_id\}}[_-](?:{WORD}[_-])?)(?P<name>.+?)(?P<after>(?:[_-]{WORD})?)", re.IGNORECASE),
    re.compile(rf"(?P<before>(?:{WORD}[_-])?)(?P<name>.+?)(?P<after>(?:[_-]{WORD})?[_-]\{{image_id\}})", re.IGNORECASE),
)
BESIDE_WORD = (
    re.compile(rf"(?P<before>{WORD}[_-])(?P<name>.+)(?P<after>)", re.IGNORECASE),
    re.compile(rf"(?P<before>)(?P<name>.+)(?P<after>[_-]{WORD})", re.IGNORECASE),
)


def is_mask_name(path: str) -> bool:
    """Return whether a path says that it is a mask's."""
    return MASK_NAME.search(path) is not None


def name_pattern(path: str, image_id: str) -> str | None:
    """Return the path with {image_id} where the id stands; none where it does not, or only as a part of another."""
    pattern, number = re.subn(
        rf"(?<![A-Za-z0-9]){re.escape(image_id)}(?![A-Za-z0-9])", lambda _: "{image_id}", path, flags=re.ASCII
    )
    return pattern if number and is_mask_name(pattern) else None


def class_patterns(pattern: str) -> Iterator[tuple[str, str]]:
    """Yield patterns with {class_id}, each with the class that this one would be of: of a folder, or a file's name."""
    *folders, file = pattern.split("/")
    stem, dot, suffix = file.rpartition(".")
    if not dot:
        stem, suffix = file, ""
    for place, folder in enumerate(folders):
        if "{image_id}" in folder or re.fullmatch(WORD, folder, re.IGNORECASE):
            continue
        for general, name in [*_general(folder, BESIDE_WORD), *([("{class_id}", folder)] if place else [])]:
            yield "/".join([*folders[:place], general, *folders[place + 1 :], file]), name
    for general, name in _general(stem, BESIDE_ID):
        yield "/".join([*folders, f"{general}{dot}{suffix}"]), name


def _general(text: str, forms: tuple[re.Pattern[str], ...]) -> Iterator[tuple[str, str]]:
    """Yield the text with {class_id} in place of a name, and that name."""
    for form in forms:
        found = form.fullmatch(text)
        if found and not re.fullmatch(WORD, found["name"], re.IGNORECASE) and "{image_id}" not in found["name"]:
            yield f"{found['before']}{{class_id}}{found['after']}", found["name"]
