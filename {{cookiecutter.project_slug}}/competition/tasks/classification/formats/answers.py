"""The answers of train.csv in each layout of `format.train`: text to arrays, with what is wrong. No torch."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from competition.config.section import names_in
from competition.files.csv_file import group_by_image, read_header, resolve_classes, row_faults
from competition.files.csv_numbers import numbers_in
from competition.files.joined_tables import has_table
from competition.support.errors import CompetitionError
from competition.tasks.classification.settings import TaskConfig

UNKNOWN = -1.0  # the value of a label that `format.unknown` says nobody knows
SUM_TOLERANCE = 0.01  # of probabilities that were rounded
WORDS = {"True": "1", "true": "1", "TRUE": "1", "False": "0", "false": "0", "FALSE": "0"}
OTHER_SEPARATORS = "|,;"  # of labels that a config says are parted by blanks


@dataclass(frozen=True)
class Read:
    """Classes in order, values of the images in order of first appearance, and a line a fault."""

    classes: tuple[str, ...]
    values: np.ndarray  # (n,) int labels, or (n, classes) float
    faults: list[str] = field(default_factory=list)


def class_columns(config: TaskConfig, path: Path) -> list[str]:
    """Return the columns that hold a class each: `data.classes`, or those of the sample, or all but ids and groups."""
    if config.data.classes is not None:
        return config.data.classes
    form = config.format
    header = [name.strip() for name in read_header(path)] if has_table(path) else []
    if form.submission.layout == "columns" and has_table(config.sample_submission):
        sample = [name.strip() for name in read_header(config.sample_submission)]
        asked = [name for name in sample if name not in form.submission_keys]
        if set(asked) <= set(header):
            return asked
    known = {*form.train.keys, *(names_in(form.group) if form.group else []), config.data.group}
    left = [name for name in header if name not in known]
    if not left:
        raise CompetitionError(
            f"{path}: found columns {','.join(header)}; expected some beside the ids, or data.classes"
        )
    return left


def read_label(
    config: TaskConfig, path: Path, frame: pd.DataFrame, ids: pd.Series, class_ids: pd.Series | None, is_train: bool
) -> Read:
    """Read one label an image; outside train.csv `format.new` is the number -1."""
    labels = frame[config.format.train.column]
    faults = row_faults(path, np.flatnonzero(labels == ""), ids, "this image has no label")
    if not is_train and config.format.new is not None:
        labels = labels.where(labels != config.format.new, "")
    classes, unknown = resolve_classes(labels, config.data.classes, path)
    return Read(classes, pd.Index(classes).get_indexer(pd.Index(labels)).astype(np.int64), faults + unknown)


def read_label_string(
    config: TaskConfig, path: Path, frame: pd.DataFrame, ids: pd.Series, class_ids: pd.Series | None, is_train: bool
) -> Read:
    """Read labels with blanks, or `format.train.separator`, between them."""
    texts, none = frame[config.format.train.column], config.format.none
    separator = config.format.train.separator
    faults: list[str] = []
    if none is not None:
        texts = texts.where(texts != none, "")
    else:
        wanted = "this image has no label; where that says that it has no class: format.none: ''"
        faults += row_faults(path, np.flatnonzero(texts.str.strip() == ""), ids, wanted)
    rows = pd.Series(np.arange(len(texts)), index=texts.index)
    each = pd.DataFrame({"label": texts.map(lambda text: parted(str(text), separator)), "row": rows}).explode("label")
    each = each[each["label"].notna()]
    faults += _other_separator(path, each, texts, separator)
    classes, unknown = resolve_classes(each["label"], config.data.classes, path)
    twice = each["row"][each.duplicated()].unique()
    faults += row_faults(path, twice, texts, "a label stands twice; expected each once") + unknown
    values = np.zeros((len(texts), len(classes)))
    numbers = pd.Index(classes).get_indexer(pd.Index(each["label"]))
    values[each["row"][numbers >= 0], numbers[numbers >= 0]] = 1
    return Read(classes, values, faults)


def parted(text: str, separator: str) -> list[str]:
    """Return the labels of a text, without the blanks around them; none of an empty one."""
    parts = text.split(None if separator == " " else separator)
    return [part for part in map(str.strip, parts) if part]


def joined_labels(labels: Collection[str], separator: str) -> list[str]:
    """Return the labels that are several joined by a separator: all their parts stand alone, too; of bars, which no
    name has, it is enough that a part stands in another label."""
    known = set(labels)
    parts = {label: parted(label, separator) for label in known if separator in label}
    if separator == "|":
        number = Counter(part for label in known for part in parts.get(label, [label]))
        return sorted(label for label, each in parts.items() if len(each) > 1 and any(number[one] > 1 for one in each))
    return sorted(label for label, each in parts.items() if len(each) > 1 and set(each) <= known)


def _other_separator(path: Path, each: pd.DataFrame, texts: pd.Series, separator: str) -> list[str]:
    """Describe labels that are several joined by another separator."""
    for other in OTHER_SEPARATORS:
        joined = each["label"].isin(joined_labels(set(each["label"]), other)) if other != separator else pd.Series()
        if joined.any():
            expected = (
                f"expected labels with {separator!r} between them; where {other!r} parts them: "
                f"format.train.separator: {other!r}"
            )
            return row_faults(path, each["row"][joined].unique(), texts, expected)
    return []


def read_columns(
    config: TaskConfig, path: Path, frame: pd.DataFrame, ids: pd.Series, class_ids: pd.Series | None, is_train: bool
) -> Read:
    """Read a column a class with 0 or 1, or a column a number."""
    names = class_columns(config, path)
    faults: list[str] = []
    values = np.empty((len(frame), len(names)))
    for number, name in enumerate(names):
        values[:, number], wrong = _numbers(config, path, frame[name], f" in column {name}")
        faults += wrong
    if config.format.target == "single" and not faults:
        faults += _not_one(path, values, ids, names)
    return Read(tuple(names), values, faults)


def read_rows(
    config: TaskConfig, path: Path, frame: pd.DataFrame, ids: pd.Series, class_ids: pd.Series | None, is_train: bool
) -> Read:
    """Read a row an image and class; a row that stands twice must say the same."""
    assert class_ids is not None
    column = frame[config.format.train.column]
    found, faults = _numbers(config, path, column, "")
    classes, unknown = resolve_classes(class_ids, config.data.classes, path)
    faults += unknown + row_faults(path, np.flatnonzero(class_ids == ""), ids, "the class is empty")
    if faults:
        return Read(classes, found, faults)
    codes, first = group_by_image(ids)
    numbers = pd.Index(classes).get_indexer(pd.Index(class_ids))
    values = np.full((len(first), len(classes)), np.nan)
    values[codes, numbers] = found
    faults += row_faults(
        path, np.flatnonzero(values[codes, numbers] != found), column, "another row of this image and class differs"
    )
    for image, number in np.argwhere(np.isnan(values))[:1]:
        missing = int(np.isnan(values).sum())
        expected = f"class {classes[number]} of this image has no row ({missing} such rows are missing)"
        faults += row_faults(path, [first[image]], ids, expected)
    if config.format.target == "single" and not faults:
        faults += _not_one(path, values, ids.iloc[first], classes)
    return Read(classes, values, faults)


def read_probabilities(
    config: TaskConfig, path: Path, frame: pd.DataFrame, ids: pd.Series, class_ids: pd.Series | None, is_train: bool
) -> Read:
    """Read a column a class with its probability; of an image that has one class they sum to 1."""
    names = class_columns(config, path)
    values, faults = np.empty((len(frame), len(names))), list[str]()
    for number, name in enumerate(names):
        values[:, number] = numbers_in(frame[name])
        wrong = np.flatnonzero(~((values[:, number] >= 0) & (values[:, number] <= 1)))
        faults += row_faults(path, wrong, frame[name], f"expected a probability in column {name}")
    if config.format.target == "single" and not faults:
        sums = values.sum(axis=1)
        wrong = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
        faults += row_faults(path, wrong, ids, f"expected probabilities of {', '.join(names[:12])} that sum to 1")
        values /= np.maximum(sums, SUM_TOLERANCE)[:, None]
    return Read(tuple(names), values, faults)


Reader = Callable[[TaskConfig, Path, pd.DataFrame, pd.Series, pd.Series | None, bool], Read]
READERS: dict[str, Reader] = {
    "label": read_label,
    "label_string": read_label_string,
    "columns": read_columns,
    "rows": read_rows,
    "probabilities": read_probabilities,
}


def _numbers(config: TaskConfig, path: Path, column: pd.Series, where: str) -> tuple[np.ndarray, list[str]]:
    """Return (n,) numbers, and the faults of those that are not 0 or 1, or no number within the bounds."""
    values = numbers_in(column.replace(WORDS))
    if config.format.unknown:
        texts = [one for one in config.format.unknown if isinstance(one, str)]
        numbers = [one for one in config.format.unknown if not isinstance(one, str)]
        is_unknown = column.str.strip().isin(texts).to_numpy() | np.isin(values, numbers)
        fits, expected = np.isin(values, (0, 1)) | is_unknown, "expected 0 or 1, or what format.unknown names"
        values = np.where(is_unknown, UNKNOWN, values)
    elif config.format.target != "regression":
        fits, expected = np.isin(values, (0, 1)), "expected 0 or 1"
    elif config.format.bounds is None:
        fits, expected = np.isfinite(values), "expected a number"
    else:
        low, high = config.format.bounds
        fits, expected = (
            (values >= low) & (values <= high),
            f"expected a number from {low:g} to {high:g} (format.bounds)",
        )
    return values, row_faults(path, np.flatnonzero(~fits), column, expected + where)


def _not_one(path: Path, values: np.ndarray, ids: pd.Series, names: list[str] | tuple[str, ...]) -> list[str]:
    rows = np.flatnonzero(values.sum(axis=1) != 1)
    return row_faults(path, rows, ids, f"expected 1 in exactly one of the classes {', '.join(names[:12])}")
