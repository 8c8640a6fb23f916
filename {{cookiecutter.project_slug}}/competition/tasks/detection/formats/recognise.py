"""Which `format:` the files of a detection competition have. No torch."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config.data_settings import Data
from competition.config.loading import format_presets
from competition.config.section import Section
from competition.files.csv_file import NUMBER
from competition.files.csv_numbers import numbers_in
from competition.tasks.detection.formats.assumptions import settle
from competition.tasks.detection.formats.box_columns import read_box_columns
from competition.tasks.detection.settings import DetectionFormat

__all__ = ["readings", "recognise", "settle"]

# Names of the four columns of boxes, in small letters without `_` and blanks, and what they hold.
LEFT, TOP = ("x", "xmin", "x1", "left", "bboxx", "bboxxmin"), ("y", "ymin", "y1", "top", "bboxy", "bboxymin")
# width and height last: often they are those of the image.
WIDTH, HEIGHT = ("w", "boxw", "bboxw", "boxwidth", "width"), ("h", "boxh", "bboxh", "boxheight", "height")
RIGHT, BOTTOM = ("xmax", "x2", "right", "bboxxmax"), ("ymax", "y2", "bottom", "bboxymax")
LAYOUTS = {"xyxy": (LEFT, TOP, RIGHT, BOTTOM), "xywh": (LEFT, TOP, WIDTH, HEIGHT)}
CLASSES = (
    "classid",
    "class",
    "classname",
    "label",
    "labels",
    "category",
    "categoryid",
    "categoryname",
    "labelname",
    "name",
)
IMAGES = ("imageid", "image", "id", "patientid", "imgid", "imagename", "filename", "file", "img", "uuid")
TOLD, TOLD_OF_SUBMISSION = ("image_id", "class_id", "boxes", "layout"), ("image_id", "boxes", "with_class", "layout")
CORNER = ["0", "0", "1", "1"]
UNITS = ("pixels", "shares")
STRINGS = (("class box", "xywh"), ("class conf box", "xyxy"), ("class conf box", "xywh"))
KEYS = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"))


def readings(train: pd.DataFrame, sample: pd.DataFrame, data: Data | None = None) -> list[dict[str, Any]]:
    """Return the only reading there is, if any: see `recognise`."""
    found = recognise(train, sample, data)
    return [] if found is None else [found]


def recognise(train: pd.DataFrame, sample: pd.DataFrame, data: Data | None = None) -> dict[str, Any] | None:
    """Return the part of a config that reads these files: the name of a known format, or its single keys.

    None where there are no boxes in them.
    """
    known = _known(train, sample)
    if known is not None:
        return {"format": known}
    boxes = _boxes(train)
    if boxes is None or len(sample.columns) != 2:
        return None
    image_id, string = _submission_columns(train, sample)
    train_id = image_id if image_id in train else next(_named(train, [_plain(image_id), *IMAGES]), None)
    if train_id is None:
        return None
    class_id = _class_column(train, sample[string], not_of=[*boxes.box_columns, train_id])
    class_id = None if boxes.box_string else class_id
    how = boxes.model_dump(include={"boxes", "box_keys", "box_string", "layout", "units"})
    given = {"image_id": train_id, "class_id": class_id, **how}
    form = DetectionFormat.model_validate(given | {"submission": {"image_id": image_id, "boxes": string}})
    form = form.model_copy(update={"no_finding": _no_finding(train, form)})
    form = form.model_copy(update={"submission": form.submission.model_copy(update=_row(sample[string], form))})
    part: dict[str, Any] = {"format": _told(form, TOLD) | {"submission": _told(form.submission, TOLD_OF_SUBMISSION)}}
    named = _only_class(sample[string], form)
    return part | ({"data": {"classes": [named]}} if named is not None else {})


def _only_class(strings: "pd.Series", form: DetectionFormat) -> str | None:
    """Return what the sample calls the one class, where no column does."""
    asked = form.submission
    if form.class_id is not None or form.box_string not in (None, "box") or not asked.with_class:
        return None
    words = {text.split()[0] for text in strings.str.strip() if text and text != asked.none}
    return words.pop() if len(words) == 1 else None


def _told(section: Section, always: Sequence[str]) -> dict[str, Any]:
    """Return the keys that are worth a line: some always, others where they are not the default."""
    return section.model_dump(include=set(always)) | section.model_dump(exclude_defaults=True, exclude={"submission"})


def _known(train: pd.DataFrame, sample: pd.DataFrame) -> str | None:
    """Return the known format whose columns these are."""
    for name, preset in format_presets("detection").items():
        form = DetectionFormat.model_validate(preset["format"])
        columns = [*form.image_id_columns, *form.box_columns, *([form.class_id] if form.class_id else [])]
        submission = {form.submission.image_id, form.submission.boxes}
        if not set(columns) <= set(train.columns) or set(sample.columns) != submission:
            continue
        other_class = form.class_id is None and any(_named(train, CLASSES, not_of=columns))
        if other_class or not _are_boxes(train, form):
            continue
        never, row = _no_finding(train, form), _row(sample[form.submission.boxes], form)
        if never in (None, form.no_finding) and row["with_class"] == form.submission.with_class:
            return name
    return None


def _are_boxes(train: pd.DataFrame, form: DetectionFormat) -> bool:
    """Return whether the columns of a format hold boxes, at least one."""
    found = read_box_columns(train, form, Path())
    return not found.faults and len(found.row) > 0


def _boxes(train: pd.DataFrame) -> DetectionFormat | None:
    """Return in which columns boxes are, and how."""
    for layout, names in LAYOUTS.items():
        columns = [next(_named(train, each), None) for each in names]
        for units in UNITS if None not in columns else ():
            form = DetectionFormat.model_validate({"boxes": columns, "layout": layout, "units": units})
            if _are_boxes(train, form):
                return form
    for column in train.columns:
        for string, layout in STRINGS if _may_be_strings(train[column]) else ():
            given = {"boxes": column, "box_string": string, "class_id": None, "layout": layout}
            form = DetectionFormat.model_validate(given)
            if _are_boxes(train, form):
                return form
        for keys in (None, *KEYS):
            layout = "xyxy" if keys and keys[2] in RIGHT else "xywh"
            form = DetectionFormat.model_validate({"boxes": column, "box_keys": keys, "layout": layout})
            if train[column].str.startswith("[").any() and _are_boxes(train, form):
                return form
    return None


def _named(frame: pd.DataFrame, names: Sequence[str], not_of: Sequence[str] = ()) -> Iterator[str]:
    """Yield the columns that bear one of the names, in the order of the names."""
    plain = {_plain(column): str(column) for column in frame.columns}
    yield from (plain[name] for name in names if name in plain and plain[name] not in not_of)


def _may_be_strings(texts: "pd.Series") -> bool:
    words = [text.split() for text in texts if text.strip()]
    is_named = not any(NUMBER.fullmatch(each[0]) for each in words)  # else run lengths may look so
    return is_named and any(all(len(each) % length == 0 for each in words) for length in (5, 6))


def _plain(column: object) -> str:
    return re.sub(r"[_\s]", "", str(column).lower())


def _class_column(train: pd.DataFrame, strings: "pd.Series", not_of: Sequence[str]) -> str | None:
    """Return the column of classes: one of their usual names, of several, or of any name, that whose words the sample's
    strings begin with. Numbers may be those of any column."""
    columns = list(_named(train, CLASSES, not_of))
    first = {text.split()[0] for text in strings if text.strip() and len(text.split()) % 6 == 0}
    words = {word for word in first if not NUMBER.fullmatch(word)}
    others = [str(name) for name in train.columns if name not in not_of and name not in columns]
    found = [name for name in columns if train[name].isin(first).any()]
    found += [name for name in others if train[name].isin(words).any()]
    return next(iter([*found, *columns]), None)


def _submission_columns(train: pd.DataFrame, sample: pd.DataFrame) -> tuple[str, str]:
    """Return the columns of image id and boxes: the id is the one that train.csv has, too, or the first."""
    first, second = map(str, sample.columns)
    return (second, first) if second in train and first not in train else (first, second)


def _no_finding(train: pd.DataFrame, form: DetectionFormat) -> str | None:
    """Return the class that never has a box, where there is just one."""
    if form.class_id is None:
        return None
    is_empty = read_box_columns(train, form, Path()).is_empty
    never = set(train.loc[is_empty, form.class_id]) - set(train.loc[~is_empty, form.class_id]) - {""}
    return never.pop() if len(never) == 1 else None


def _row(strings: "pd.Series", form: DetectionFormat) -> dict[str, Any]:
    """Tell how a row of the submission is written, from the sample's strings: boxes of five or six words."""
    told = [text for text in strings.str.strip() if text]
    lengths = [length for length in (5, 6) if told and all(len(text.split()) % length == 0 for text in told)]
    tells_class = form.class_id is not None or (form.box_string or "").startswith("class")
    with_class = lengths == [6] if len(lengths) == 1 else tells_class
    words = told[0].split() if told else [""]
    # Of a box of a pixel in the corner nobody says more than that there is none.
    says_none = words[0] == form.no_finding or (form.class_id is None and words[-4:] == CORNER)
    is_token = with_class and bool(told) and says_none
    row: dict[str, Any] = {"with_class": with_class, "none": told[0] if is_token else ""}
    row["layout"] = form.layout if form.layout in ("xywh", "xyxy") else "xywh"
    if form.box_string and told and all(map(_are_points, told)):
        return {"with_class": True, "with_conf": False, "layout": "cxcy", "none": ""}
    units = _units(told, 6 if with_class else 5)
    return row | ({"units": units} if units not in (None, form.units) else {})


def _are_points(text: str) -> bool:
    """Return whether a text is `class x y` again and again."""
    words = text.split()
    is_number = [NUMBER.fullmatch(word) is not None for word in words]
    return len(words) % 3 == 0 and is_number == [False, True, True] * (len(words) // 3)


def _units(strings: Sequence[str], length: int) -> str | None:
    """Return the units of boxes in the sample's strings; none where they do not tell."""
    words = [text.split() for text in strings if len(text.split()) % length == 0]
    of_boxes = [word for each in words for at, word in enumerate(each) if at % length >= length - 4]
    numbers = numbers_in(pd.Series(of_boxes, dtype=str))
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers) or (numbers.max() <= 1 and (numbers % 1 == 0).all()):
        return None
    return "shares" if numbers.max() <= 1 else "pixels"
