"""Several answers an image (`format.targets`): a table of each, side by side."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from competition.config.section import names_in
from competition.files.csv_file import line, read_csv, second_rows
from competition.files.csv_keys import split_keys
from competition.files.csv_numbers import numbers_in
from competition.files.series import group_names
from competition.support.errors import CompetitionError
from competition.tasks.classification.formats.groups import table_of_groups
from competition.tasks.classification.kinds.heads import head_config, side_by_side
from competition.tasks.classification.kinds.tables import Entries, OneTable
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.settings.format import ClassificationFormat
from competition.tasks.classification.settings.metrics import metric_of
from competition.tasks.classification.settings.targets import TargetFormat
from competition.tasks.contract import Target

Chosen = Callable[[pd.DataFrame, list[str]], pd.DataFrame]  # rows of a csv file by what stands in columns
ReadOne = Callable[[TaskConfig, Path | None, Chosen], OneTable]


@dataclass(frozen=True)
class SeveralTable(Entries):
    """Several answers an image, `format.targets`, each with a table of the images of which it is known."""

    tables: dict[str, OneTable]
    rows: dict[str, np.ndarray]  # (n,) where an image stands in the table of each; -1 where it does not
    more: dict[str, dict[str, float | str]]  # of each: `metric` and `score_weight`, where it counts
    groups: np.ndarray | None = None  # (n,) str

    def target(self, index: int, height: int, width: int) -> Target:
        """Return the target of each table under `name/key`, with the number of its classes; where some are unknown,
        with `is_known`, and then any other's in place of one that is not."""
        each: dict[str, Target] = {}
        for name, table in self.tables.items():
            row = int(self.rows[name][index])
            known = {"is_known": row >= 0} if self._lacks(name) else {}
            size = {"num_classes": len(table.classes), **self.more[name]}
            each[name] = {**table.target(max(row, 0), height, width), **known, **size}
        return self._with_group(side_by_side(each), self.groups, index)

    def _lacks(self, name: str) -> bool:
        return len(self.tables[name].image_ids) < len(self.image_ids)

    def _spread(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return what a table has of its images for all of them, 0 for the others."""
        return np.where((self.rows[name] >= 0).reshape(-1, *[1] * (values.ndim - 1)), values[self.rows[name]], 0)

    def present(self) -> np.ndarray:
        """Return (n, classes) bool of all targets' classes."""
        each = [self._spread(name, table.present()) for name, table in self.tables.items()]
        return np.concatenate(each, axis=1).astype(bool)

    def strata(self) -> np.ndarray:
        """Code images by the first target; 0 where it is not known."""
        name, table = next(iter(self.tables.items()))
        return self._spread(name, table.strata() + 1)

    def amounts(self) -> np.ndarray:
        """Return those of the first target; 0 where it is not known."""
        name, table = next(iter(self.tables.items()))
        return self._spread(name, table.amounts())

    def summary(self) -> list[str]:
        """Describe each target, and of how many images it is unknown."""
        lines = []
        for name, table in self.tables.items():
            lines += [f"{name}: {line}" for line in table.summary()]
            unknown = int((self.rows[name] < 0).sum())
            lines += [f"{name}: unknown of {unknown} images, left out of loss and score"] if unknown else []
        return lines


def read_several(config: TaskConfig, path: Path | None, read_one: ReadOne) -> SeveralTable:
    """Read each target as if it were the only one; of another file than train.csv those that are handed in.

    Raises CompetitionError with a line per fault.
    """
    form = config.format
    tables, faults = {}, []
    for name, target in form.targets.items():
        try:
            if path is None or target.submit:
                tables[name] = read_one(head_config(config, name), path, partial(_known_rows, target))
        except CompetitionError as error:
            where = f"format.targets.{name}"
            lines = str(error).replace("data.classes", f"{where}.classes").splitlines()
            faults += [f"{where}: {line}" for line in lines]
    if faults:
        raise CompetitionError("\n".join(faults))
    ids, lines, groups = _entries(form, path or config.train_csv)
    rows = {name: pd.Index(table.image_ids).get_indexer(pd.Index(ids)) for name, table in tables.items()}
    more = {name: _scored(config, name) for name in tables}
    classes = tuple(f"{name}/{one}" for name, table in tables.items() for one in table.classes)
    return SeveralTable(ids, classes, lines, tables, rows, more, groups)


def _entries(form: ClassificationFormat, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return ids, lines and, if they have some, groups of the images of a csv file."""
    frame = read_csv(path, list(dict.fromkeys([*form.train.keys, *(names_in(form.group) if form.group else [])])))
    ids, _ = split_keys(frame, form.train.keys, path)
    if faults := second_rows(path, ids):
        raise CompetitionError("\n".join(faults))
    groups = group_names(frame, form.group) if form.group else None
    return ids.to_numpy(dtype=object), line(frame.index.to_numpy()), groups


def _known_rows(target: TargetFormat, frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return the rows of which one of several targets is known."""
    if not target.unknown or target.knows_some_labels:
        return frame
    texts = [one for one in target.unknown if isinstance(one, str)]
    numbers = [one for one in target.unknown if not isinstance(one, str)]
    cells = frame[columns]
    is_number = np.isin(numbers_in(cells), numbers)
    return frame[~(cells.apply(lambda column: column.str.strip()).isin(texts) | is_number).any(axis=1)]


def _scored(config: TaskConfig, name: str) -> dict[str, float | str]:
    target = config.format.targets[name]
    return {"metric": metric_of(config.format, name), "score_weight": target.score_weight} if target.counts else {}


def several_of_groups(table: SeveralTable, join: str) -> SeveralTable:
    """Return the table whose entries are the groups of another one, in order of first appearance."""
    assert table.groups is not None
    codes, names = pd.factorize(table.groups)
    first = np.unique(codes, return_index=True)[1]
    tables = {name: table_of_groups(one, join) for name, one in table.tables.items()}
    rows = {name: pd.Index(one.image_ids).get_indexer(pd.Index(names)) for name, one in tables.items()}
    return replace(
        table, image_ids=names, lines=table.lines[first], tables=tables, rows=rows, groups=None, of_images=table
    )
