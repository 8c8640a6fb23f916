"""The images of a fold that are trained on: those of train.csv, and behind them further sets. No torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from competition.config.settings import Config
from competition.data.extra_sets import Extra, duplicate_sources, duplicates_path, read_extras
from competition.data.folds import is_validated
from competition.data.image_weights import own_weights
from competition.files.csv_file import read_header, read_image_column
from competition.files.image_folder import row_in_words
from competition.files.item_source import ImageSource, train_source
from competition.files.table_columns import ColumnValues, test_values, train_values
from competition.support.errors import CompetitionError
from competition.support.freshness import is_up_to_date
from competition.tasks.contract import Table, Target


class TrainingPart(NamedTuple):
    """The images of a fold that are trained on."""

    table: Table
    rows: np.ndarray  # (n,) of the table
    weights: np.ndarray | None  # (n,) what they count; none where all count alike
    notes: list[str]  # what is to be said of them


def training_part(config: Config, table: Table, folds: np.ndarray) -> TrainingPart:
    """Return the images of a fold's training part, with those of further sets, less those of weight 0."""
    validated = is_validated(config, folds)
    extras = read_extras(config, table)
    rows, weights, notes = np.flatnonzero(~validated), own_weights(config, table), list[str]()
    if extras:
        joined = JoinedTable(table, extras)
        weights = joined.weights(weights)
        known, found = _left_out(config, joined, set(table.image_ids[validated].tolist()))
        more = np.setdiff1d(np.arange(len(table.image_ids), len(joined.image_ids)), known)
        table, rows, notes = joined, np.concatenate([rows, more]), found
    if none := int((weights[rows] == 0).sum()):
        notes.append(f"weights: {none} images of weight 0 are left out of training")
    rows = rows[weights[rows] > 0]
    if none and not len(rows):
        raise CompetitionError("data.weight, data.weights_csv: no image with a weight over 0 is left to train on")
    return TrainingPart(table, rows, None if (weights[rows] == 1).all() else weights[rows], notes)


def _left_out(config: Config, table: "JoinedTable", validated: set[str]) -> tuple[np.ndarray, list[str]]:
    """Return rows of images that the fold's validation images, or test images, are near-duplicates of, and say it."""
    if not config.data.extra or not config.data.near_duplicates:
        return np.empty(0, dtype=np.int64), []
    path = duplicates_path(config)
    if not path.is_file() or not is_up_to_date(path, duplicate_sources(config)):
        return np.empty(0, dtype=np.int64), [
            "warning: data.extra: nobody has looked whether its images are validation or test images, which flatters; "
            "`competition check CONFIG` does"
        ]
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    twins = frame[(frame["twin"] == "") | frame["twin"].isin(validated)]
    ids = [extra.prefix + twins.loc[twins["set"] == extra.name, "image_id"] for extra in table.extras]
    rows = np.flatnonzero(np.isin(table.image_ids.astype(str), pd.concat(ids).unique().astype(str)))
    said = f"data.extra: {len(rows)} images are left out: near-duplicates of validation or test images ({path})"
    return rows, [said] if len(rows) else []


class JoinedTable:
    """train.csv and, behind it, further sets: a Table whose images are known by ids of their own."""

    def __init__(self, own: Table, extras: Sequence[Extra]) -> None:
        self.own, self.extras = own, extras
        kept = [extra.rows(own.image_ids.tolist()) for extra in extras]
        self.classes, number = own.classes, len(own.image_ids)
        ids = [extra.prefix + extra.table.image_ids[rows] for extra, rows in zip(extras, kept, strict=True)]
        self.image_ids = np.concatenate([own.image_ids, *ids])
        self._set = np.repeat(np.arange(-1, len(extras)), [number, *map(len, kept)])  # (n,) -1: train.csv
        self._row = np.concatenate([np.arange(number), *kept])
        self.lines = np.where(self._set < 0, np.resize(own.lines, len(self._set)), 0)
        alone = np.full(len(self._set) - number, "", dtype=object)
        self.groups = None if own.groups is None else np.concatenate([own.groups, alone])

    def extra(self, index: int) -> tuple[Extra, int] | None:
        """Return the set that an image is of and its row there; none for one of train.csv."""
        return None if self._set[index] < 0 else (self.extras[self._set[index]], int(self._row[index]))

    def target(self, index: int, height: int, width: int) -> Target:
        """Return the answer for one image in pixels of the original image."""
        found = self.extra(index)
        return self.own.target(index, height, width) if found is None else found[0].target(found[1], height, width)

    def present(self) -> np.ndarray:
        """Return (n, classes), true where an image has a mask or box of a class, or bears its label."""
        return self._joined(self.own.present(), [extra.present() for extra in self.extras])

    def strata(self) -> np.ndarray:
        """Return (n,) int codes."""
        return self._joined(self.own.strata(), [extra.table.strata() for extra in self.extras])

    def amounts(self) -> np.ndarray:
        """Return (n,) float: how much is on an image."""
        return self._joined(self.own.amounts(), [extra.table.amounts() for extra in self.extras])

    def weights(self, own: np.ndarray) -> np.ndarray:
        """Return (n,) what each image counts, given (k,) what those of train.csv do."""
        return self._joined(own, [extra.weights for extra in self.extras])

    def column(self, own: np.ndarray, name: str) -> np.ndarray:
        """Return (n,) text: a column, given (k,) that of train.csv; empty where a set's csv file does not have it."""
        return self._joined(own, [_column_of(extra, name) for extra in self.extras])

    def _joined(self, own: np.ndarray, each: Sequence[np.ndarray]) -> np.ndarray:
        parts = [values[self._row[self._set == number]] for number, values in enumerate(each)]
        return np.concatenate([own, *parts])

    def summary(self) -> list[str]:
        """Describe the answers in a few lines."""
        counts = np.bincount(self._set + 1, minlength=len(self.extras) + 1)[1:]
        return [*self.own.summary(), *(f"{e.name}: {n} images more" for e, n in zip(self.extras, counts, strict=True))]


def _column_of(extra: Extra, name: str) -> np.ndarray:
    table = extra.table
    if not _has_column(extra, name):
        return np.full(len(table.image_ids), "", dtype=object)
    return read_image_column(Path(extra.name), name, table.image_ids, table.lines)


def _has_column(extra: Extra, name: str) -> bool:
    return name in [column.strip() for column in read_header(Path(extra.name))]


def refuse_absent_column(table: Table, name: str, key: str) -> None:
    """Raise CompetitionError where a further set's csv file does not say what its images are told apart by."""
    for extra in table.extras if isinstance(table, JoinedTable) else ():
        if not _has_column(extra, name):
            raise CompetitionError(
                f"{extra.name}: has no column {name!r}, by which {key} tells images apart; add it there"
            )


def image_column(config: Config, table: Table, name: str) -> np.ndarray:
    """Return (n,) text: the value of each training image in a column of its csv file."""
    own = table.own if isinstance(table, JoinedTable) else table
    values = read_image_column(config.train_csv, name, own.image_ids, own.lines)
    return table.column(values, name) if isinstance(table, JoinedTable) else values


def training_source(config: Config, table: Table, index: int) -> ImageSource:
    """Return what an image of a training part is made of."""
    found = table.extra(index) if isinstance(table, JoinedTable) else None
    return train_source(config, table.image_ids[index]) if found is None else found[0].source(found[1])


def training_columns(config: Config, table: Table, rows: np.ndarray) -> ColumnValues:
    """Return what `data.columns` say of images of a training part, each by the table of its set."""
    found = [table.extra(row) if isinstance(table, JoinedTable) else None for row in rows.tolist()]
    values = train_values(config, [table.image_ids[row] for row, one in zip(rows, found, strict=True) if one is None])
    known = np.array([one is None for one in found], dtype=bool)
    for extra in table.extras if isinstance(table, JoinedTable) else []:
        is_its = np.array([one is not None and one[0] is extra for one in found], dtype=bool)
        ids = [extra.table.image_ids[one[1]] for one in found if one is not None and one[0] is extra]
        more = test_values(config, ids) if extra.of_test else train_values(extra.config, ids)
        values = values.woven(more, is_its[known | is_its])
        known |= is_its
    return values


def training_row(config: Config, table: Table, index: int) -> str:
    """Say where an image of a training part stands, for messages."""
    found = table.extra(index) if isinstance(table, JoinedTable) else None
    if found is None:
        return row_in_words(config.data, table.lines[index])
    return f"{found[0].name} line {found[0].table.lines[found[1]]}"
