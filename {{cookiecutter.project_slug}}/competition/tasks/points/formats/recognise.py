"""Which `format:` the files of a competition of points have. No torch."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from competition.config.data_settings import Data
from competition.config.loading import format_presets
from competition.files.csv_file import NUMBER
from competition.tasks.contract import Table
from competition.tasks.points.formats.point_columns import read_point_columns
from competition.tasks.points.settings import PointsFormat, TaskConfig
from competition.tasks.unread_columns import MOST_VALUES, unread_columns

# Names of columns, in small letters without `_` and blanks.
ACROSS = ("x", "cx", "xcenter", "centerx", "xcoord", "xcoordinate", "coordx", "pointx", "px", "col", "column")
DOWN = ("y", "cy", "ycenter", "centery", "ycoord", "ycoordinate", "coordy", "pointy", "py", "row", "row")
OF_BOXES = ("w", "h", "width", "height", "xmax", "ymax", "x2", "y2", "radius", "r")
CLASSES = ("classid", "class", "classname", "label", "category", "categoryid", "type", "name", "particletype")
IMAGES = ("imageid", "image", "id", "imgid", "imagename", "filename", "file", "img", "sceneid", "tileid", "patientid")
CONFIDENCES = ("confidence", "conf", "score", "probability", "prob")


def readings(train: pd.DataFrame, sample: pd.DataFrame, data: Data | None = None) -> list[dict[str, Any]]:
    """Return the only reading there is, if any: the name of a known format, or its single keys."""
    if known := _known(train, sample):
        return [{"format": known}]
    found = _rows(train, sample)
    return [] if found is None else [{"format": found}]


def settle(config: TaskConfig, table: Table) -> tuple[dict[str, Any], list[str]]:
    """Return no keys, as columns and rows tell them all, and a line on columns that may be classes, where none is."""
    form = config.format
    if form.like is not None or form.class_id is not None or "class" in (form.point_string or "").split():
        return {}, []
    way_on = "format.class_id names the one that tells classes, if any does"
    return {}, unread_columns(config.train_csv, [form.image_id, *form.point_columns], way_on)


def _known(train: pd.DataFrame, sample: pd.DataFrame) -> str | None:
    """Return the known format whose columns these are, of train.csv and the submission."""
    for name, preset in format_presets("points").items():
        form = PointsFormat.model_validate(preset["format"])
        columns = [form.image_id, *form.point_columns, *([form.class_id] if form.class_id else [])]
        asked = form.submission
        told = [asked.class_id, asked.confidence] if asked.is_rows else []
        submission = {asked.image_id, *asked.point_columns, *(column for column in told if column)}
        fits = set(columns) <= set(train.columns) and submission <= set(sample.columns)
        fits &= form.point_string is not None or not any(_named(train, OF_BOXES))
        if fits and _has_points(train, form):
            return name
    return None


def _has_points(train: pd.DataFrame, form: PointsFormat) -> bool:
    found = read_point_columns(train, form, Path())
    return not found.faults and len(found.row) > 0


def _rows(train: pd.DataFrame, sample: pd.DataFrame) -> dict[str, Any] | None:
    """Return how rows of a point each are written, in both files or in strings of the submission."""
    columns = _pair(train)
    if columns is None or any(_named(train, OF_BOXES)):
        return None
    asked = _pair(sample)
    image_id = next((str(name) for name in sample.columns if name in train), None) or next(_named(sample, IMAGES), None)
    given = image_id if image_id in train else next(_named(train, IMAGES), None)
    if image_id is None or given is None:
        return None
    class_id = _class_column(train, sample, not_of=[given, image_id, *columns])
    form: dict[str, Any] = {"image_id": given, "class_id": class_id, "points": columns}
    if asked is not None:
        told = next(_named(sample, [*CLASSES, _plain(class_id)], not_of=[image_id, *asked]), None)
        row = {"class_id": told, "points": asked, "confidence": next(_named(sample, CONFIDENCES), None)}
    elif len(sample.columns) == 2:
        (string,) = (str(name) for name in sample.columns if name != image_id)
        row = {"points": string, "string": _string(sample[string], class_id is not None)}
    else:
        return None
    for units in ("pixels", "shares"):
        found = {**form, **({} if units == "pixels" else {"units": units})}
        if _has_points(train, PointsFormat.model_validate(found)):
            return found | {"submission": {"image_id": image_id, **row}}
    return None


def _class_column(train: pd.DataFrame, sample: pd.DataFrame, not_of: Sequence[str]) -> str | None:
    """Return the column of classes: one of their usual names, or of any other that the sample has, too, or whose words
    stand in its strings."""
    words = {word for column in sample for text in sample[column] for word in text.split() if _is_name(word)}
    others = [str(name) for name in train.columns if name not in not_of]
    few = [name for name in others if train[name].nunique() <= min(MOST_VALUES, len(train) / 2)]
    found = [name for name in few if name in sample or train[name].isin(words).any()]
    return next(iter([*_named(train, CLASSES, not_of), *found]), None)


def _string(texts: "pd.Series", has_class: bool) -> str:
    """Tell the words of a point from the sample's strings: classes are no numbers, confidences the odd number out."""
    words = [text.split() for text in texts if text.strip()]
    for shape in ("class conf x y", "class x y", "conf x y", "x y"):
        names = shape.split()
        fits = words and all(len(each) % len(names) == 0 for each in words)
        if not fits or any(_is_name(each[0]) != shape.startswith("class") for each in words):
            continue
        if "conf" not in names or _are_shares(words, names.index("conf"), len(names)):
            return shape
    return "class x y" if has_class else "x y"


def _are_shares(words: list[list[str]], at: int, length: int) -> bool:
    """Return whether every so-manieth word is a number from 0 to 1 and those behind it are not all such."""
    try:
        confidences = [float(word) for each in words for word in each[at::length]]
        places = [float(word) for each in words for word in each[at + 1 :: length]]
    except ValueError:
        return False
    return all(0 <= one <= 1 for one in confidences) and max(places) > 1


def _is_name(word: str) -> bool:
    return NUMBER.fullmatch(word) is None


def _pair(frame: pd.DataFrame) -> list[str] | None:
    """Return the columns of x and y."""
    for across, down in zip(ACROSS, DOWN, strict=True):
        pair = [next(_named(frame, [name]), None) for name in (across, down)]
        if None not in pair:
            return [str(name) for name in pair]
    return None


def _named(frame: pd.DataFrame, names: Sequence[str], not_of: Sequence[str] = ()) -> Iterator[str]:
    """Yield the columns that bear one of the names, in the order of the names."""
    plain = {_plain(column): str(column) for column in frame.columns}
    yield from (plain[name] for name in names if name in plain and plain[name] not in not_of)


def _plain(column: object) -> str:
    return re.sub(r"[_\s]", "", str(column).lower())
