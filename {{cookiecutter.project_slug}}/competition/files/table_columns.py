"""Columns of train.csv and of the test table that a network is told beside an image: `data.columns`. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from competition.config.optional_data import Columns
from competition.config.settings import Config
from competition.files.csv_file import read_csv, row_faults
from competition.files.csv_keys import split_keys
from competition.files.csv_numbers import exact, numbers_in
from competition.files.joined_tables import TableState, state_of_table
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError

NOTHING = ("", "nan", "na", "n/a", "null", "none")  # in small letters: what stands for a number that nobody knows
Keys = tuple[tuple[str, str], ...]
Ids = Sequence[str] | np.ndarray


@dataclass(frozen=True)
class ColumnValues:
    """What columns say of n images."""

    numbers: np.ndarray  # (n, numeric) float32; NaN where nothing is known
    texts: np.ndarray  # (n, categorical) str; "" where nothing is known

    def __getitem__(self, rows: np.ndarray | list[int]) -> "ColumnValues":
        """Return those of some images."""
        return ColumnValues(self.numbers[rows], self.texts[rows])

    def woven(self, others: "ColumnValues", is_other: np.ndarray) -> "ColumnValues":
        """Return these with others between them, where `is_other` (n,) says so."""
        order = np.empty(len(is_other), dtype=np.int64)
        order[np.flatnonzero(~is_other)] = np.arange(len(self.numbers))
        order[np.flatnonzero(is_other)] = len(self.numbers) + np.arange(len(others.numbers))
        both = [np.concatenate(pair) for pair in ((self.numbers, others.numbers), (self.texts, others.texts))]
        return ColumnValues(both[0], both[1])[order]


def train_values(config: Config, image_ids: Ids) -> ColumnValues:
    """Return what train.csv says of images; raise CompetitionError with a line per fault."""
    return _values_of(config.data.columns, config.train_csv, config.train_keys or {}, image_ids)


def test_values(config: Config, image_ids: Ids) -> ColumnValues:
    """Return what the test table says of images: `data.test_csv`, of groups `format.test_csv`, or the sample."""
    data = config.data
    name = data.test_csv or (config.format.test_csv if getattr(config.format, "group", None) else None)
    keys = config.submission_keys if name is None else config.train_keys or {}
    return _values_of(data.columns, data.dir / (name or data.sample_submission), keys, image_ids)


def given_values(columns: Columns, given: Mapping[str, object], image_id: str) -> ColumnValues:
    """Return what a caller says of an image; what is left out is not known."""
    texts = {name: "" if given.get(name) is None else str(given[name]) for name in columns.names}
    frame = pd.DataFrame([texts])
    values, faults = _parsed(frame, columns, Path(f"columns of image {image_id!r}"))
    if faults:
        raise CompetitionError(faults[0].replace(": line 2", ""))
    return values


def describe_columns(config: Config, train_ids: Ids, test_ids: Ids | None) -> list[str]:
    """Say of each column what it has and lacks; raise CompetitionError where a cell or column is at fault."""
    columns = config.data.columns
    if columns is None:
        return []
    parts = {"training": train_values(config, train_ids)}
    if test_ids is not None:
        parts["test"] = test_values(config, test_ids)
    numeric, categorical = list[str](), list[str]()
    for place, name in enumerate(columns.numeric):
        numeric += _described_numbers(name, {part: values.numbers[:, place] for part, values in parts.items()})
    for place, name in enumerate(columns.categorical):
        categorical += _described_texts(name, {part: values.texts[:, place] for part, values in parts.items()})
    return [*numeric, *categorical]


def _described_numbers(name: str, parts: Mapping[str, np.ndarray]) -> list[str]:
    known = parts["training"][~np.isnan(parts["training"])]
    spread = f"{known.min():.4g} to {known.max():.4g}" if len(known) else "no number"
    return [f"column {name}: {spread}; {_missing({part: np.isnan(values) for part, values in parts.items()})}"]


def _described_texts(name: str, parts: Mapping[str, np.ndarray]) -> list[str]:
    known = set(parts["training"]) - {""}
    lines = [f"column {name}: {len(known)} values; {_missing({part: texts == '' for part, texts in parts.items()})}"]
    if strange := [text for text in parts.get("test", ()) if text and text not in known]:
        lines.append(
            f"column {name}: {len(strange)} test images have a value that no training image has, as {strange[0]!r}"
        )
    return lines


def _missing(parts: Mapping[str, np.ndarray]) -> str:
    """Count (n,) bool in words."""
    counted = (f"{int(lacks.sum())} of {len(lacks)} {part} images" for part, lacks in parts.items())
    return f"missing in {' and '.join(counted)}"


def write_values(path: Path, columns: Columns, image_ids: Ids, values: ColumnValues) -> None:
    """Write values in a table of our own, for `read_values`."""
    numbers = [["" if np.isnan(one) else exact(one) for one in row] for row in values.numbers]
    rows = zip(image_ids, numbers, values.texts.tolist(), strict=True)
    write_csv(path, ["image_id", *columns.names], ([image_id, *row, *texts] for image_id, row, texts in rows))


def read_values(path: Path, columns: Columns, image_ids: Ids) -> ColumnValues:
    """Read values that `write_values` wrote."""
    return _values_of(columns, path, {"image_id": "{image_id}"}, image_ids)


def _values_of(columns: Columns | None, path: Path, keys: Mapping[str, str], image_ids: Ids) -> ColumnValues:
    assert columns is not None
    own = tuple((column, pattern) for column, pattern in keys.items() if "{image_id}" in pattern)
    ids, values = _read(path, own, (*columns.numeric,), (*columns.categorical,), state_of_table(path))
    rows = ids.get_indexer(pd.Index(list(image_ids), dtype=object))
    if (rows < 0).any():
        lost = list(image_ids)[int(np.flatnonzero(rows < 0)[0])]
        raise CompetitionError(f"{path}: has no row of image {lost!r}, of which data.columns needs {columns.named}")
    return values[rows]


@lru_cache(maxsize=4)
def _read(
    path: Path, keys: Keys, numeric: tuple[str, ...], categorical: tuple[str, ...], changed: TableState
) -> tuple[pd.Index, ColumnValues]:
    columns = Columns(numeric=list(numeric), categorical=list(categorical))
    frame = read_csv(path, list(dict.fromkeys([*(column for column, _ in keys), *columns.names])))
    ids, _ = split_keys(frame, dict(keys), path)
    values, faults = _parsed(frame, columns, path)
    for name in columns.names:
        first = frame.groupby(ids.to_numpy(), sort=False)[name].transform("first")
        other = np.flatnonzero((first != frame[name]).to_numpy())
        faults += row_faults(
            path, other, frame[name], f"column {name} has another value in an earlier row of the image"
        )
    if faults:
        raise CompetitionError("\n".join(faults))
    first_rows = np.flatnonzero(~ids.duplicated().to_numpy())
    return pd.Index(ids.to_numpy(dtype=object)[first_rows], dtype=object), values[first_rows]


def _parsed(frame: pd.DataFrame, columns: Columns, path: Path) -> tuple[ColumnValues, list[str]]:
    """Return the values of columns of text, and a fault for every cell that is no number where one is expected."""
    numbers, faults = np.empty((len(frame), len(columns.numeric)), dtype=np.float32), []
    for place, name in enumerate(columns.numeric):
        cells = frame[name].str.strip()
        unknown = cells.str.lower().isin(NOTHING).to_numpy()
        found = numbers_in(cells.where(~unknown))
        with np.errstate(over="ignore"):
            numbers[:, place] = found.astype(np.float32)
        wrong = np.flatnonzero(~unknown & ~np.isfinite(numbers[:, place]))
        faults += row_faults(path, wrong, frame[name], f"column {name}: expected a number, or nothing")
    texts = [frame[name].str.strip().to_numpy(dtype=object) for name in columns.categorical]
    empty = np.empty((len(frame), 0), dtype=object)
    return ColumnValues(numbers, np.stack(texts, axis=1) if texts else empty), faults
