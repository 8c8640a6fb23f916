"""Where an image's file is: the pattern of `data.image_file`, both ways. No torch."""

import re
from glob import escape
from pathlib import Path

import numpy as np

from competition.data_settings import Data

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")


def suffix_of(path: Path) -> str | None:
    """Return what a file's name lacks to be that of an image in the same folder."""
    return next((suffix for suffix in SUFFIXES if path.with_name(path.name + suffix).is_file()), None)


def train_image(data: Data, image_id: str) -> Path:
    """Return the file of a training image."""
    return data.dir / data.train_images / data.image_file.format(image_id=image_id)


def test_image(data: Data, image_id: str) -> Path:
    """Return the file of a test image."""
    return data.dir / data.test_images / data.image_file.format(image_id=image_id)


def absent_images(data: Data, path: Path, present: np.ndarray) -> np.ndarray:
    """Return (n,) str: the images without a row in a csv file that count as images without mask or box.

    Those of train.csv are training images, those of another file beside it (a solution) test images.
    """
    folder = data.train_images if path == data.dir / data.train_csv else data.test_images
    if data.absent_images == "ignore" or path.parent != data.dir:
        return np.empty(0, dtype=object)
    found = ids_in(data.dir / folder, data.image_file)
    return found[~np.isin(found.astype(str), present.astype(str))]


def row_in_words(data: Data, line: int) -> str:
    """Say where a training image stands in train.csv; line 0 is that of images without a row."""
    return f"{data.train_csv} line {line}" if line else f"no row in {data.train_csv}"


def ids_in(folder: Path, pattern: str) -> np.ndarray:
    """Return (n,) str, sorted: the ids of the images in a folder whose names follow the pattern, which may name folders
    below it."""
    before, after = pattern.split("{image_id}")
    names = (path.relative_to(folder).as_posix() for path in folder.glob(f"{escape(before)}*{escape(after)}"))
    found = (re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", name) for name in names)
    return np.array(sorted(name[1] for name in found if name), dtype=object)
