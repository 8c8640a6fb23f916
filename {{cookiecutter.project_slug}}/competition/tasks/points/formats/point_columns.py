"""The points in train.csv or a submission, a row a point, or a row an image with strings. No torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from competition.files.csv_file import row_faults
from competition.files.csv_numbers import numbers_in
from competition.tasks.points.settings import PointsFormat

NOTHING = ("", "nan")
LARGEST_SHARE = 1.5  # points may lie outside of their image


class PointColumns(NamedTuple):
    """The points of a table's rows."""

    row: np.ndarray  # (points,) number of the row a point stands in
    points: np.ndarray  # (points, 2) float64 x, y as written; of boxes their centre
    is_empty: np.ndarray  # (rows,) whether a row says that it has no point
    text: "pd.Series"  # (rows,) what stands in the row, for messages
    faults: list[str]
    names: np.ndarray | None = None  # (points,) str, the class of each where the string tells it
    half_sides: np.ndarray | None = None  # (points, 2) float64 of their boxes, x and y, where the string tells them


def read_point_columns(frame: pd.DataFrame, form: PointsFormat, path: Path) -> PointColumns:
    """Return the points of the rows, and a line for each row that cannot be read."""
    texts = frame[form.point_columns].apply(lambda column: column.str.strip())
    text = texts.iloc[:, 0].str.cat([texts.iloc[:, i] for i in range(1, texts.shape[1])], sep=",")
    is_empty = texts.apply(lambda column: column.str.lower().isin([*NOTHING, form.empty])).all(axis=1).to_numpy()
    if form.point_string is not None:
        return _read_strings(text, is_empty, form, path)
    numbers = numbers_in(texts[~is_empty])
    good = np.isfinite(numbers).all(axis=1)
    row, points = np.flatnonzero(~is_empty), numbers[good]
    faults = row_faults(path, row[~good], text, f"expected {','.join(form.point_columns)} as two numbers")
    return PointColumns(row[good], points, is_empty, text, faults + _unit_faults(row[good], points, form, text, path))


def _read_strings(text: "pd.Series", is_empty: np.ndarray, form: PointsFormat, path: Path) -> PointColumns:
    """Read what `format.point_string` says, again and again."""
    assert form.point_string is not None
    shape = form.point_string.split()
    rows, numbers, names, torn = list[int](), list[np.ndarray](), list[str](), list[int]()
    sides = list[np.ndarray]()
    for row in np.flatnonzero(~is_empty).tolist():
        try:
            found = read_words(text.iloc[row].split(), shape)
        except ValueError:
            torn.append(row)
            continue
        rows += [row] * len(found["x"])
        numbers.append(np.stack([found["x"], found["y"]], axis=1))
        names += found.get("class", np.zeros(0, dtype=object)).tolist()
        if {"w", "h"} <= set(shape):
            sides.append(np.stack([found["w"], found["h"]], axis=1) / 2)
    faults = row_faults(path, torn, text, f"expected `{form.point_string}` again and again, with numbers")
    where, points = np.array(rows, dtype=np.int64), np.concatenate([np.zeros((0, 2)), *numbers])
    faults += _unit_faults(where, points, form, text, path)
    classes = np.array(names, dtype=object) if "class" in shape else None
    boxes = np.concatenate([np.zeros((0, 2)), *sides]) if {"w", "h"} <= set(shape) else None
    return PointColumns(where, points, is_empty, text, faults, classes, boxes)


def read_words(words: Sequence[str], shape: Sequence[str]) -> dict[str, np.ndarray]:
    """Return by word of `shape` what the words of points say: text of `class`, else (k,) numbers; x and y are those of
    the centre where there are w and h. Raises ValueError where they are not so many, or no finite numbers."""
    if len(words) % len(shape):
        raise ValueError(f"expected `{' '.join(shape)}` for each point, found {len(words)} words")
    found = {name: np.array(words[at :: len(shape)], dtype=object) for at, name in enumerate(shape)}
    for name in ("x", "y", "w", "h", "conf"):
        if name in found:
            found[name] = found[name].astype(np.float64)
            if not np.isfinite(found[name]).all():
                raise ValueError(f"found {found[name][~np.isfinite(found[name])][0]}; expected finite numbers")
    for place, side in (("x", "w"), ("y", "h")):
        if side in found:
            found[place] = found[place] + found[side] / 2
    return found


def _unit_faults(row: np.ndarray, points: np.ndarray, form: PointsFormat, text: "pd.Series", path: Path) -> list[str]:
    """Describe points that cannot be in the units of `format.units`: read in others they would train without a word."""
    if form.units == "shares":
        far = np.unique(row[(np.abs(points) > LARGEST_SHARE).any(axis=1)])
        return row_faults(path, far, text, "expected shares of the image's sides, from 0 to 1 (format.units)")
    if (points == points.round()).all() or (np.abs(points) > LARGEST_SHARE).any():
        return []
    return [
        f"{path}: no point lies further than {points.max():.4g} pixels, as shares of the image's sides do; expected "
        "points in pixels, or format.units: shares"
    ]
