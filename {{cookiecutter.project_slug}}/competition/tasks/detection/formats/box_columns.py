"""The boxes in train.csv, however they are written: four columns, `[x, y, w, h]`, or a list of dicts. No torch."""

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from competition.files.csv_file import row_faults
from competition.files.csv_numbers import numbers_in
from competition.tasks.detection.settings import DetectionFormat

NOTHING = ("", "nan", "[]")
LARGEST_SHARE = 1.5  # boxes may reach out of their image


class BoxColumns(NamedTuple):
    """The boxes of a table's rows: one a row, or several where a row holds a list."""

    row: np.ndarray  # (boxes,) number of the row a box stands in
    corners: np.ndarray  # (boxes, 4) float64 x1, y1, x2, y2
    is_empty: np.ndarray  # (rows,) whether a row says that it has no box
    text: "pd.Series"  # (rows,) what stands in the row, for messages
    expected: str  # what should stand there, for messages
    faults: list[str]
    names: np.ndarray | None = None  # (boxes,) str, the class of each where the string tells it


def read_box_columns(frame: pd.DataFrame, form: DetectionFormat, path: Path) -> BoxColumns:
    """Return the boxes of the rows, and a line for each row that cannot be read."""
    texts = frame[form.box_columns].apply(lambda column: column.str.strip())
    text = texts.iloc[:, 0].str.cat([texts.iloc[:, i] for i in range(1, texts.shape[1])], sep=",")
    is_empty = texts.apply(lambda column: column.str.lower().isin(NOTHING)).all(axis=1).to_numpy()
    row = np.flatnonzero(~is_empty)
    if isinstance(form.boxes, list):
        numbers = numbers_in(texts[~is_empty])
        expected = f"expected {','.join(form.boxes)} as four numbers"
    elif form.box_string is not None:
        return _read_strings(text, is_empty, form, path)
    elif form.box_keys is None:
        numbers = _numbers_of_lists(text[~is_empty])
        expected = f"expected {form.layout} as four numbers in brackets, as [1, 2, 30, 40],"
    else:
        entry, numbers = _numbers_of_dicts(text[~is_empty], form.box_keys)
        row = row[entry]
        expected = f"expected a list of dicts with numbers {', '.join(form.box_keys)}"
    return _corners(row, numbers, is_empty, text, expected, form, path)


def _read_strings(text: "pd.Series", is_empty: np.ndarray, form: DetectionFormat, path: Path) -> BoxColumns:
    """Read `class x y w h class x y w h ...`, or as `format.box_string` says."""
    assert form.box_string is not None
    words = form.box_string.split()
    length = len(words) + 3
    is_empty = is_empty.copy()
    rows, names, numbers, torn = [], [], [], []
    for row in np.flatnonzero(~is_empty).tolist():
        parts = text.iloc[row].split()
        if parts[0] == form.no_finding:
            is_empty[row] = True
            continue
        if len(parts) % length:
            torn.append(row)
            continue
        rows += [row] * (len(parts) // length)
        names += parts[::length] if words[0] == "class" else []
        numbers += [parts[at + length - 4 : at + length] for at in range(0, len(parts), length)]
    expected = f"expected `{form.box_string}` again and again, each box {form.layout} as four numbers"
    values = numbers_in(pd.DataFrame(numbers, columns=range(4), dtype=str))
    found = np.array(rows, dtype=np.int64)
    corners = _corners(found, values, is_empty, text, expected, form, path)
    faults = row_faults(path, torn, text, expected) + corners.faults
    return corners._replace(faults=faults, names=np.array(names, dtype=object) if words[0] == "class" else None)


def _corners(
    row: np.ndarray,
    numbers: np.ndarray,
    is_empty: np.ndarray,
    text: "pd.Series",
    expected: str,
    form: DetectionFormat,
    path: Path,
) -> BoxColumns:
    """Turn four numbers a box into corners, with a line for each that is none."""
    good = np.isfinite(numbers).all(axis=1)
    faults = row_faults(path, np.unique(row[~good]), text, expected)
    row, numbers = row[good], numbers[good]
    size = numbers[:, 2:] - numbers[:, :2] if form.layout == "xyxy" else numbers[:, 2:]
    sides = "corners with x2 >= x1 and y2 >= y1" if form.layout == "xyxy" else "a width and height of 0 or more"
    faults += row_faults(path, np.unique(row[(size < 0).any(axis=1)]), text, f"expected {sides}")
    first = numbers[:, :2] - (size / 2 if form.layout == "cxcywh" else 0)
    corners = np.concatenate([first, first + size], axis=1)
    return BoxColumns(row, corners, is_empty, text, expected, faults + _unit_faults(row, corners, form, text, path))


def _unit_faults(
    row: np.ndarray, corners: np.ndarray, form: DetectionFormat, text: "pd.Series", path: Path
) -> list[str]:
    """Describe boxes that cannot be in the units of `format.units`: read in others they would train without a word."""
    if form.units == "shares":
        far = np.unique(row[(np.abs(corners) > LARGEST_SHARE).any(axis=1)])
        return row_faults(path, far, text, "expected shares of the image's sides, from 0 to 1 (format.units)")
    if (corners == corners.round()).all() or (np.abs(corners) > LARGEST_SHARE).any():
        return []
    return [
        f"{path}: no box reaches further than {corners.max():.4g} pixels, as shares of the image's sides do; expected "
        "boxes in pixels, or format.units: shares"
    ]


def _numbers_of_lists(text: "pd.Series") -> np.ndarray:
    """Read `[1, 2.5, 3, 4]`; return (rows, 4), NaN where it is something else."""
    numbers = np.full((len(text), 4), np.nan)
    fits = (text.str.startswith("[") & text.str.endswith("]") & (text.str.count(",") == 3)).to_numpy()
    if fits.any():
        parts = text[fits].str.slice(1, -1).str.split(",", expand=True)
        numbers[fits] = numbers_in(parts)
    return numbers


def _numbers_of_dicts(text: "pd.Series", keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read lists of dicts; return (boxes,) row and (boxes, 4), a row of NaN where a text is no such list."""
    rows: list[int] = []
    numbers: list[list[float]] = []
    for row, one in enumerate(text.tolist()):
        boxes = _dicts(one, keys)
        rows += [row] * len(boxes)
        numbers += boxes
    return np.array(rows, dtype=np.int64), np.array(numbers, dtype=np.float64).reshape(-1, 4)


def _dicts(text: str, keys: Sequence[str]) -> list[list[float]]:
    try:
        try:
            found = json.loads(text.replace("'", '"'))  # ten times as fast as Python's literals
        except ValueError:
            found = ast.literal_eval(text)
        return [[float(box[key]) for key in keys] for box in found]
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError):
        return [[np.nan] * 4]
