"""Where the mask files of a competition lie and how they are named, told from the files that are there. No torch."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config.data_settings import Data
from competition.files.csv_keys import Keys
from competition.files.file_patterns import is_hidden
from competition.files.image_folder import SUFFIXES, ids_in, may_be_id
from competition.files.image_search import is_there
from competition.support.errors import CompetitionError
from competition.tasks.segmentation.formats.mask_files import class_patterns, is_mask_name, name_pattern, read_labels

MASK_SUFFIXES = (*SUFFIXES, ".gif", ".bmp")
DEEPEST = 4  # parts of a mask's path below data.dir
MOST_IDS, MOST_READ = 200, 20  # images whose masks are looked for, and masks that are read
LEAST_SHARE = 0.1  # of the images must have a mask: others may be empty
MOST_CLASSES = 60  # larger pixel values are shades
IGNORED = 255  # beside the values of classes it is none of them


Files = dict[str, dict[str, str]]  # by image and class (empty where a pattern has none), the path of a mask


@dataclass(frozen=True)
class FoundMasks:
    """The settings that read the mask files."""

    keys: Keys | None  # of train.csv
    files: str
    suffix: str  # of the ids of csv files, which is no part of an image's id here; mostly empty
    ignore: int | None = None  # pixel value that stands beside those of classes
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Ids:
    """The images' ids, by one way to read them."""

    ids: list[str]
    keys: Keys | None = None
    suffix: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def find_mask_files(train: pd.DataFrame, data: Data, asked: set[str] | None) -> FoundMasks | None:
    """Return how masks that are files are read; none where no files are named so, or have other classes.

    `asked` are the classes of the sample submission, none where its rows do not tell classes apart.
    """
    paths = sorted(_mask_paths(data))
    for images in _image_ids(train, data):
        found = _named_after(images.ids, paths)
        # The most masks, or else a class each, or else the shortest name.
        for pattern in sorted(found, key=lambda one: (-len(found[one]), "{class_id}" not in one, len(one), one)):
            values = _pixel_values(found[pattern], data)
            is_one = "{class_id}" in pattern or asked is None or len(asked) == 1
            ignore = IGNORED if not is_one and values is not None and values > {IGNORED} else None
            classes = _classes(found[pattern], pattern, values and values - {ignore}, asked)
            if classes is not None:
                listed = {"classes": classes} if asked is not None and data.classes is None else {}
                return FoundMasks(images.keys, pattern, images.suffix, ignore, images.data | listed)
    return None


def _mask_paths(data: Data) -> Iterator[str]:
    """Yield the files that may be masks by their names, as paths below data.dir."""
    for folder, below, names in os.walk(data.dir):
        place = Path(folder).relative_to(data.dir)
        is_deepest = len(place.parts) + 1 == DEEPEST
        inside = [name for name in below if not is_hidden(name) and place / name != Path(data.test_images)]
        below[:] = [] if is_deepest else inside
        masks = (name for name in names if not is_hidden(name) and name.lower().endswith(MASK_SUFFIXES))
        yield from filter(is_mask_name, ((place / name).as_posix() for name in masks))


def _image_ids(train: pd.DataFrame, data: Data) -> Iterator[_Ids]:
    """Yield the ways to read ids: a column of train.csv that names images, with or without their ending, or else the
    images of the folder."""
    if train.empty:
        ids = _some(ids_in(data, data.train_images, data.image_file).tolist())
        if any(_has_image(data, one) for one in ids):
            yield _Ids(ids)
    for column in train.columns:
        cells = _some([cell for cell in train[column].unique().tolist() if may_be_id(cell)])
        if any(_has_image(data, cell) for cell in cells):
            yield _Ids(cells, {column: "{image_id}"})
        suffix = Path(cells[0]).suffix if cells else ""
        if suffix.lower() in SUFFIXES and all(cell.endswith(suffix) for cell in cells):
            named = {} if data.image_file != "{image_id}" else {"image_file": f"{{image_id}}{suffix}"}
            ids = [cell.removesuffix(suffix) for cell in cells]
            if any(_has_image(data.model_copy(update=named), one) for one in ids):
                yield _Ids(ids, {column: f"{{image_id}}{suffix}"}, suffix, named)


def _has_image(data: Data, image_id: str) -> bool:
    return is_there(data, data.train_images, data.image_file, image_id)


def _some(ids: list[str]) -> list[str]:
    """Return at most MOST_IDS of them, from the first to the last."""
    return ids[:: -(-len(ids) // MOST_IDS) or 1]


def _named_after(ids: list[str], paths: list[str]) -> dict[str, Files]:
    """Return by pattern the files of each image; patterns of one class are left out where there are such of others."""
    found: dict[str, Files] = {}
    members: dict[str, dict[str, str]] = {}  # by pattern with {class_id}, the class of each pattern without
    for image_id in ids:
        for path in (path for path in paths if image_id in path):
            pattern = name_pattern(path, image_id)
            if pattern is None:
                continue
            found.setdefault(pattern, {}).setdefault(image_id, {})[""] = path
            for general, name in class_patterns(pattern):
                found.setdefault(general, {}).setdefault(image_id, {})[name] = path
                members.setdefault(general, {})[pattern] = name
    single = {general for general, names in members.items() if len(set(names.values())) < 2}
    of_class = {pattern for general in members.keys() - single for pattern in members[general]}
    least = LEAST_SHARE * len(ids)
    return {one: files for one, files in found.items() if one not in single | of_class and len(files) >= least}


def _classes(files: Files, pattern: str, values: set[int] | None, asked: set[str] | None) -> list[str] | None:
    """Return the classes of mask files, an empty list for one without a name; none where they are not as asked."""
    names = {name for of_image in files.values() for name in of_image}
    if values is None or (len(values) > 1 and max(values) > MOST_CLASSES):
        return None
    if "{class_id}" in pattern:
        is_asked = asked is not None and (asked <= names or names <= asked)
        return sorted(names | asked) if asked is not None and is_asked and len(values) < 2 else None
    if asked is None or len(asked) == 1:
        return sorted(asked or ())
    # Which of several names a pixel value stands for, no file tells: unless they are the numbers themselves.
    numbers = [str(number + 1) for number in range(len(asked))]
    return numbers if asked == set(numbers) and max(values, default=0) <= len(asked) else None


def _pixel_values(files: Files, data: Data) -> set[int] | None:
    """Return the values over zero of masks; none where most are no masks: a few may be damaged, as `check` tells."""
    paths = [data.dir / path for of_image in files.values() for path in of_image.values()]
    values, num_faults, some = set[int](), 0, paths[:: -(-len(paths) // MOST_READ)]
    for path in some:
        try:
            values |= set(np.unique(read_labels(path, data.max_pixels)).astype(int).tolist())
        except CompetitionError:
            num_faults += 1
    return values - {0} if 2 * num_faults < len(some) else None
