"""Which format the files of a competition have, from their first rows."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from competition.config.data_settings import Data
from competition.config.loading import format_presets
from competition.files.csv_keys import Keys, split_keys
from competition.files.image_folder import SUFFIXES
from competition.support.errors import CompetitionError
from competition.tasks.segmentation.formats.mask_search import find_mask_files
from competition.tasks.segmentation.formats.pixel_order import settle
from competition.tasks.segmentation.settings import SegmentationFormat

__all__ = ["readings", "recognise", "settle"]
MASK_NAMES = re.compile(
    r"(rle|rle_mask|mask_rle|encoded_?pixels|encoding|segmentation|predicted|annotation|mask)", re.IGNORECASE
)
CLASS_NAMES = re.compile(r"(class|class_?id|label|category|category_?id|type|organ)", re.IGNORECASE)
NO_MASK = ("", "nan", "NaN", "-1", "-", "1 0")
PAIRS = re.compile(r"\d+ \d+( \d+ \d+)*")
LARGEST_LABEL = 100  # numbers up to it may be labels of classes that stand in a row
MOST_CLASSES = 60
MOST_DAMAGED = 0.1  # of the masks in a column of the submission's name
Found = tuple[Keys, str]


def readings(train: pd.DataFrame, sample: pd.DataFrame, data: Data | None = None) -> list[dict[str, Any]]:
    """Return the only reading there is, if any: see `recognise`."""
    found = recognise(train, sample, data)
    return [] if found is None else [found]


def recognise(train: pd.DataFrame, sample: pd.DataFrame, data: Data | None = None) -> dict[str, Any] | None:
    """Return the part of a config (`format:`, `data:`) that reads these files, of which the first rows are given as
    text; none where they are not of this task.

    A known competition's columns give its name. Of other files columns, ids, base, relative counting and the token of
    an empty mask are told from the rows; that pixels are counted down the columns cannot be, and is as `settle` has it.
    Masks that are files are looked for in the folder of `data`.
    """
    train, sample = _stripped(train), _stripped(sample)
    asked = _submission_layout(sample, train)
    objects = _known_instances(train, sample)
    if objects is not None:
        return {"format": objects}
    if asked is None:
        return None
    given = _train_layout(train, asked[1], _asked_classes(sample, asked[0]))
    texts = [] if given is None else train[given[1]].tolist()
    form = {"order": "columns", **_flavour(texts), "empty": _empty_token(texts, sample[asked[1]].tolist())}
    rows = "objects" if given is not None and _are_objects(train, given) else "masks"
    name = _known(train, sample, form, rows, data) if given is not None or _is_list_of_images(train) else None
    if name is not None:
        return {"format": name} | _other_files(name, data)
    if given is None:
        return None if data is None else _with_files(train, sample, asked, form, data)
    if not any("{class_id}" in pattern for pattern in asked[0].values()):  # what looks like a class is only described
        told = {column: pattern for column, pattern in given[0].items() if pattern != "{class_id}"}
        given = told, given[1]
    layouts = {"train": {"keys": given[0], "mask": given[1]}, "submission": {"keys": asked[0], "mask": asked[1]}}
    return {"format": ({"rows": rows} if rows == "objects" else {}) | layouts | {"rle": form}}


def _are_objects(train: pd.DataFrame, given: Found) -> bool:
    """Return whether a row is an object: several of an image and class have a mask."""
    keys, mask = given
    return bool(train[~train[mask].isin(NO_MASK)].duplicated(list(keys)).any())


def _with_files(
    train: pd.DataFrame, sample: pd.DataFrame, asked: Found, form: dict[str, Any], data: Data
) -> dict[str, Any] | None:
    """Return the settings of masks that are files, if there are any in the folder."""
    keys, column = asked
    try:
        _, class_id = split_keys(sample, keys, data.dir / data.sample_submission)
    except CompetitionError:  # not all rows are as most are
        return None
    found = find_mask_files(train, data, None if class_id is None else set(class_id))
    if found is None:
        return None
    if found.suffix:  # ids are written as files with an ending, of which masks have another
        keys = {name: pattern.replace("{image_id}", f"{{image_id}}{found.suffix}") for name, pattern in keys.items()}
    ignored = {} if found.ignore is None else {"ignore": found.ignore}
    layouts = {
        "train": {"keys": found.keys, "files": found.files} | ignored,
        "submission": {"keys": keys, "mask": column},
    }
    part: dict[str, Any] = {"format": layouts | {"rle": form}}
    return part | ({"data": found.data} if found.data else {})


def _known(train: pd.DataFrame, sample: pd.DataFrame, form: dict[str, Any], rows: str, data: Data | None) -> str | None:
    """Return the known competition whose columns these are, and whose numbers go the same way; of several that whose
    files are called as these."""
    found = []
    for name, layout in _presets().items():
        keys = layout.train.keys
        ours = set() if keys is None else {*keys, *([] if layout.train.files else [layout.train.mask])}
        # An object's row may tell more of it, which nothing is read from.
        is_train = ours == set(train.columns) if layout.rows == "masks" else ours <= set(train.columns)
        asked = {*layout.submission_keys, layout.submission_mask}
        # Rows of one run each do not tell how numbers go on; the token of an empty mask may. Relative ones are of parts
        # of a mask, if of several rows.
        is_like = layout.rle.relative == form["relative"] or "" != layout.rle.empty == form["empty"]
        is_like &= layout.rows == rows or layout.rle.relative
        if is_train and asked == set(sample.columns) and is_like:
            found.append(name)
    return max(found, key=lambda name: _likeness(name, sample, data), default=None)


def _likeness(name: str, sample: pd.DataFrame, data: Data | None) -> int:
    """Count what of a known competition's files is as it is here: their names, and whether ids have an ending."""
    known = format_presets("segmentation")[name].get("data", {})
    ids = sample.iloc[:, 0].str.lower()
    has_ending = bool(ids.str.endswith(SUFFIXES).all())
    names = ("train_csv", "sample_submission", "train_images") if data is not None else ()
    alike = [known.get(key, Data.usual(key)) == getattr(data, key) for key in names]
    return sum(alike) + (has_ending == (known.get("image_file", "{image_id}") == "{image_id}"))


def _other_files(name: str, data: Data | None) -> dict[str, Any]:
    """Return the csv files and folders that are called otherwise here than in a known competition."""
    if data is None:
        return {}
    known, other = format_presets("segmentation")[name].get("data", {}), dict[str, Any]()
    for key in ("train_csv", "sample_submission", "train_images", "test_images"):
        here = getattr(data, key)
        is_csv = key in ("train_csv", "sample_submission")
        if here == known.get(key, here):
            continue
        if is_csv or ((data.dir / here).is_dir() and not (data.dir / known[key]).is_dir()):
            other[key] = here
    return {"data": other} if other else {}


def _known_instances(train: pd.DataFrame, sample: pd.DataFrame) -> str | None:
    """Return the known competition of single objects; unlike those of boxes its sample tells the images' sides."""
    for name, layout in _presets().items():
        asked, keys = {*layout.submission_keys, layout.submission_mask}, layout.train.keys
        sides = {column.lower() for column in sample.columns if column not in asked}
        has_sides = len(sides) == 2 and all(any(side in column for column in sides) for side in ("height", "width"))
        is_train = keys.keys() <= set(train.columns) if keys else not len(train.columns)
        if layout.submission.style == "instances" and asked <= set(sample.columns) and has_sides and is_train:
            return name
    return None


@cache
def _presets() -> dict[str, SegmentationFormat]:
    presets = format_presets("segmentation").items()
    return {name: SegmentationFormat.model_validate(preset["format"]) for name, preset in presets}


def _stripped(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame of text without blanks around names and values."""
    plain = frame.fillna("").astype(str).apply(lambda column: column.str.strip())
    return plain.rename(columns=lambda name: str(name).strip())


def _submission_layout(sample: pd.DataFrame, train: pd.DataFrame) -> Found | None:
    """Return keys and mask column: the one of a known name, or of run lengths here or in train.csv, whose rows are all
    the like."""
    for column in reversed(list(sample.columns)):
        values = sample[column]
        is_mask = (values.isin(NO_MASK) | values.str.fullmatch(PAIRS)).all()
        has_runs = _has_runs(values) or (column in train and _has_runs(train[column]))
        if is_mask and (MASK_NAMES.fullmatch(column) or has_runs):
            keys = _keys(sample, [column])
            return None if keys is None else (keys, column)
    return None


def _train_layout(train: pd.DataFrame, asked: str, classes: frozenset[str]) -> Found | None:
    for column in reversed(list(train.columns)):
        if _has_runs(train[column]):
            keys = _keys(train, [column], classes)
            return None if keys is None else (keys, column)
    if asked in train.columns and MASK_NAMES.fullmatch(asked) and not _share_damaged(train[asked]) > MOST_DAMAGED:
        keys = _keys(train, [asked], classes)
        return None if keys is None else (keys, asked)
    return None


def _asked_classes(sample: pd.DataFrame, keys: Keys) -> frozenset[str]:
    """Return the classes that the rows of the sample have, in a column or joined to their ids; none where there are
    none, or ids go otherwise."""
    try:
        _, class_id = split_keys(sample, keys, Path())
    except CompetitionError:
        return frozenset()
    return frozenset() if class_id is None else frozenset(class_id)


def _share_damaged(values: pd.Series) -> float:
    """Return the share of values that are no mask; where few are not, reading them tells the line of each."""
    return 1 - (values.isin(NO_MASK) | values.str.fullmatch(PAIRS)).mean()


def _is_list_of_images(train: pd.DataFrame) -> bool:
    """Return whether train.csv, if there is one, names images only: then masks are files."""
    return len(train.columns) <= 1


def _has_runs(values: pd.Series) -> bool:
    """Return whether a column holds run lengths and nothing else; short numbers alone may be labels."""
    filled = values[~values.isin(NO_MASK)]
    if filled.empty or not filled.str.fullmatch(PAIRS).all():
        return False
    return any(max(map(int, text.split())) > LARGEST_LABEL for text in filled.tolist())


def _keys(frame: pd.DataFrame, others: Sequence[str], classes: frozenset[str] = frozenset()) -> Keys | None:
    """Return which columns tell image and class, of which some may be known by name: the first is the image's id,
    unless it is called a class."""
    columns = [column for column in frame.columns if column not in others]
    named = [column for column in columns if CLASS_NAMES.fullmatch(column)]
    ids = [column for column in columns if column not in named]
    if not ids:
        return None
    named += [column for column in ids[1:] if _tells_rows_apart(frame, ids[0], column, classes)]
    if named:
        return {ids[0]: "{image_id}", named[0]: "{class_id}"}
    return {ids[0]: "{image_id}_{class_id}" if _is_joined(ids[0], frame[ids[0]]) else "{image_id}"}


def _tells_rows_apart(frame: pd.DataFrame, image_id: str, column: str, classes: frozenset[str]) -> bool:
    """Return whether a column has some of the classes and no other value, or those of an image differ and are those of
    other images, too."""
    values = set(frame[column]) - {""}
    if classes:
        return bool(values) and values <= classes
    is_of_class = frame[image_id].duplicated().any() and not frame.duplicated([image_id, column]).any()
    return bool(is_of_class) and len(values) <= min(MOST_CLASSES, len(frame) / 2)


def _is_joined(column: str, ids: pd.Series) -> bool:
    """Return whether ids are `image_class`: the name says so, or every image has the same few endings."""
    parts = ids.str.rpartition("_")
    if (parts[0] == "").any():
        return False
    name = column.rpartition("_")[2]
    if "_" in column and CLASS_NAMES.fullmatch(name):
        return True
    endings = parts.groupby(0)[2].agg(frozenset)
    commonest = endings.mode().iloc[0]
    is_number = any(len(ending) > 1 and ending.startswith("0") for ending in commonest)
    # The last image of the first rows may be cut off.
    return (
        len(endings) > 2
        and 2 <= len(commonest) <= MOST_CLASSES
        and not is_number
        and (endings == commonest).mean() > 0.6
    )


def _flavour(texts: list[str]) -> dict[str, Any]:
    """Return base and relative: numbers that do not increase count from the last run, a zero is the first pixel."""
    rows = [[int(number) for number in text.split()] for text in texts if text not in NO_MASK and PAIRS.fullmatch(text)]
    is_relative = any(
        start < last + length
        for numbers in rows
        for last, length, start in zip(numbers[:-2:2], numbers[1:-2:2], numbers[2::2], strict=True)
    )
    starts_at_zero = any(numbers[0] == 0 for numbers in rows)
    return {"base": 0 if is_relative or starts_at_zero else 1, "relative": is_relative}


def _empty_token(given: Sequence[str], asked: Sequence[str]) -> str:
    """Return what stands for no mask: the commonest such value of train.csv, or else of the sample."""
    for values in (given, asked):
        tokens = [value for value in values if value in NO_MASK]
        if tokens:
            commonest = max(sorted(set(tokens)), key=tokens.count)
            return "" if commonest in ("nan", "NaN") else commonest
    return ""
