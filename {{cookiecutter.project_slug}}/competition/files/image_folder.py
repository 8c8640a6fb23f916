"""Where an image's file is, by `data.image_file`, both ways, or as told from the files that are there. No torch."""

import os
import re
from collections import Counter
from glob import escape
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from competition.config.data_settings import Data
from competition.support.errors import CompetitionError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")

LONGEST_ID = 200  # bytes; a longer text is no image's id


def suffix_of(path: Path) -> str | None:
    """Return what a file's name lacks to be that of an image in the same folder."""
    try:
        return next((suffix for suffix in SUFFIXES if path.with_name(path.name + suffix).is_file()), None)
    except OSError:  # too long for a name
        return None


def train_image(data: Data, image_id: str) -> Path:
    """Return the file of a training image; raise CompetitionError where its id leads out of the folder."""
    return data.dir / data.train_images / file_name(data.image_file, image_id)


def test_image(data: Data, image_id: str) -> Path:
    """Return the file of a test image; raise CompetitionError where its id leads out of the folder."""
    return data.dir / data.test_images / file_name(data.image_file, image_id)


def file_name(pattern: str, image_id: str, class_id: str = "") -> str:
    """Return a pattern with {image_id} and {class_id} filled in: wherever a name becomes a path, this makes it.

    Raises CompetitionError where the path would lead elsewhere than the pattern does: a name is data of others, and
    files are written by it, too.
    """
    name = pattern.replace("{image_id}", image_id).replace("{class_id}", class_id)
    plain = pattern.replace("{image_id}", "x").replace("{class_id}", "x")
    is_elsewhere = _climbs(name) != _climbs(plain) or PurePath(name).is_absolute() != PurePath(plain).is_absolute()
    if is_elsewhere or any(PurePath(one).is_absolute() for one in (image_id, class_id)) or "\0" in name:
        raise CompetitionError(
            f"image {image_id!r}: leads out of its folder by way of {pattern!r}; expected the name of a file in it, "
            "without '..' and not beginning with '/'"
        )
    return name


def may_be_id(text: str) -> bool:
    """Return whether a text of any csv file may be an image's id, so that a file can be looked for by it."""
    try:
        return 0 < len(os.fsencode(file_name("{image_id}", text))) < LONGEST_ID
    except (CompetitionError, UnicodeEncodeError):
        return False


def _climbs(name: str) -> tuple[int, int]:
    """Return how often a path goes up, all in all and beyond where it begins."""
    return PurePath(name).parts.count(".."), PurePath(os.path.normpath(name)).parts.count("..")


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
    parts = pattern.split("{image_id}")
    names = (path.relative_to(folder).as_posix() for path in folder.glob("*".join(map(escape, parts))))
    before, *others = map(re.escape, parts)
    form = f"{before}(?P<id>.+){'(?P=id)'.join(others)}"
    found = (re.fullmatch(form, name) for name in names)
    return np.array(sorted(name[1] for name in found if name), dtype=object)


# Folders of images that competitions have, the likeliest first; looked at where that of `data:` is not there.
TRAIN_FOLDERS = ("train_images", "train", "train/images", "images")
TEST_FOLDERS = ("test_images", "test", "test/images")


def find_images(data: Data, train: pd.DataFrame, sample: pd.DataFrame) -> dict[str, str]:
    """Return the keys of `data:` by which the images are found, but for those that hold as they are."""
    found: dict[str, str] = {}
    if (folder := _train_folder(data, train)) is not None:
        found["train_images"] = folder
    if (folder := _test_folder(data)) is not None:
        found["test_images"] = folder
    pattern = _image_file(data.model_copy(update=found), train, sample)
    return found if pattern is None else found | {"image_file": pattern}


def _train_folder(data: Data, train: pd.DataFrame) -> str | None:
    """Return the folder that has images, those of the first row if there is one; none where it is known."""
    if (data.dir / data.train_images).is_dir():
        return None
    if train.empty:
        return next((name for name in TRAIN_FOLDERS if _suffixes(data.dir / name)), None)
    for name in TRAIN_FOLDERS:
        there = data.model_copy(update={"train_images": name})
        paths = [train_image(there, cell) for cell in _ids(train)]
        if any(path.is_file() or suffix_of(path) for path in paths):
            return name
    return None


def _test_folder(data: Data) -> str | None:
    if (data.dir / data.test_images).is_dir():
        return None
    return next((name for name in TEST_FOLDERS if _suffixes(data.dir / name)), None)


def _image_file(data: Data, train: pd.DataFrame, sample: pd.DataFrame) -> str | None:
    """Return the pattern of files that are called as a cell of the first row and an ending; none where it is known."""
    if data.image_file != "{image_id}":
        return None
    if train.empty:  # ids are as the sample has them
        counts = _suffixes(data.dir / data.train_images)
        is_whole = any(cell.lower().endswith(SUFFIXES) for cell in _ids(sample))
        suffix = None if is_whole or not counts else counts.most_common(1)[0][0]
    else:
        paths = [train_image(data, cell) for cell in _ids(train)]
        suffix = None if any(path.is_file() for path in paths) else next(filter(None, map(suffix_of, paths)), None)
    return suffix and f"{{image_id}}{suffix}"


def _ids(frame: pd.DataFrame) -> list[str]:
    """Return the cells of the first row that may be an image's id."""
    return [] if frame.empty else [cell for cell in frame.iloc[0] if may_be_id(cell)]


def _suffixes(folder: Path) -> Counter[str]:
    """Count the endings of the images in a folder; none where it is no folder."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return Counter(path.suffix for path in paths if path.suffix.lower() in SUFFIXES)
