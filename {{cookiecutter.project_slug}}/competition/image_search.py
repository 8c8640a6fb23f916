"""Where images lie and how their files are called, told from the files where `data:` does not say so. No torch."""

from collections import Counter
from pathlib import Path

import pandas as pd

from competition.data_settings import Data
from competition.image_folder import SUFFIXES, may_be_id, suffix_of, train_image

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
