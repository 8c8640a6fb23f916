"""Images that are trained on and never validated on: sets from elsewhere (`data.extra`), test images that another run
has answered (`data.pseudo`); and what an image counts in the loss. No torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from competition.config.data_settings import Data
from competition.config.loading import with_preset
from competition.config.optional_data import ExtraSet
from competition.config.section import Section
from competition.config.settings import Config
from competition.data.folds import folds_path, is_validated
from competition.files.csv_file import read_csv, read_header, read_image_column, row_faults
from competition.files.image_folder import row_in_words
from competition.files.item_source import ImageSource, test_source, train_source
from competition.files.joined_tables import table_files
from competition.files.maps import refuse_absent_stages, stage_files
from competition.files.table_columns import ColumnValues, test_values, train_values
from competition.support.errors import CompetitionError
from competition.support.freshness import is_up_to_date
from competition.tasks.contract import Table, Target, Task

DUPLICATES = "extra_duplicates.csv"
DUPLICATE_COLUMNS = ("set", "image_id", "twin")  # an image of a set; its twin in train.csv, or nothing: a test image
WEIGHT_COLUMNS = ("image_id", "weight")


@dataclass(frozen=True)
class Extra:
    """A set of images with their answers, read as its own train.csv is."""

    name: str  # its csv file, for messages
    config: Config  # by which its files are read
    table: Table
    weights: np.ndarray  # (n,)
    prefix: str = ""  # of its ids here: another set may have the same; test images keep theirs
    numbers: np.ndarray | None = None  # (its classes,) what each is here, -1 for one that is left out; none: the same
    num_classes: int = 0  # here

    @property
    def of_test(self) -> bool:
        """Return whether these are test images."""
        return not self.prefix

    def source(self, row: int) -> ImageSource:
        """Return what an image is made of."""
        return (test_source if self.of_test else train_source)(self.config, self.table.image_ids[row])

    def target(self, row: int, height: int, width: int) -> Target:
        """Return the answer for an image by the classes of train.csv."""
        target = self.table.target(row, height, width)
        if self.numbers is None:
            return target
        return Task(self.config.task).table.renumbered(target, self.numbers, self.num_classes)

    def present(self) -> np.ndarray:
        """Return (n, classes of train.csv) bool."""
        theirs = self.table.present()
        if self.numbers is None:
            return theirs
        ours = np.zeros((len(theirs), self.num_classes), dtype=bool)
        for column, number in enumerate(self.numbers):
            if number >= 0:
                ours[:, number] |= theirs[:, column]
        return ours

    def rows(self, known: Iterable[str]) -> np.ndarray:
        """Return (k,) rows that are trained on: those that count, have a class left if they had some and, of test
        images, no answer in train.csv, whose images are `known`."""
        keeps_class = self.present().any(axis=1) | ~self.table.present().any(axis=1)
        new = ~np.isin(self.table.image_ids.astype(str), list(known)) if self.of_test else True
        return np.flatnonzero((self.weights > 0) & keeps_class & new)


def read_extras(config: Config, table: Table) -> list[Extra]:
    """Read the sets of `data.extra` and `data.pseudo`; raise CompetitionError with a line per fault."""
    prefixes = further_prefixes(config)
    sets = [_read_set(config, table, *one) for one in zip(config.data.extra, prefixes, strict=True)]
    return sets if config.data.pseudo is None else [*sets, _read_pseudo(config, table, config.data.pseudo)]


def further_prefixes(config: Config) -> tuple[str, ...]:
    """Return what ids of the images of `data.extra` begin with in a training, set by set."""
    return tuple(f"extra{number}/" for number in range(len(config.data.extra)))


def _read_set(config: Config, table: Table, one: ExtraSet, prefix: str) -> Extra:
    theirs = [*one.classes, *(name for name in table.classes if name not in {*one.classes, *one.classes.values()})]
    if unknown := [ours for ours in one.classes.values() if ours is not None and ours not in table.classes]:
        raise CompetitionError(
            f"data.extra: {one.csv}: classes: {unknown[0]!r} is no class of {config.data.train_csv}; expected some of "
            f"{', '.join(table.classes[:12])}, or null for a class that is left out"
        )
    own = set_config(config, one, theirs)
    refuse_absent_stages(own.data)
    try:
        read = Task(config.task).table.read_table(own)
    except CompetitionError as error:
        listed = "our classes, or those of `classes` of data.extra"
        raise CompetitionError(str(error).replace("data.classes", listed)) from None
    numbers = None
    if one.classes:
        renamed = [one.classes.get(name, name) for name in read.classes]
        numbers = np.array([-1 if name is None else table.classes.index(name) for name in renamed])
    if isinstance(one.weight, str):
        weights = column_weights(own.train_csv, one.weight, read)
    else:
        weights = np.full(len(read.image_ids), one.weight)
    return Extra(str(own.train_csv), own, read, weights, prefix, numbers, len(table.classes))


def set_config(config: Config, one: ExtraSet, classes: Sequence[str]) -> Config:
    """Return the config by which a set is read as if its csv file was train.csv."""
    data = config.data.model_copy(
        update={
            "dir": _folder(config, one),
            "train_csv": one.csv,
            "train_images": one.images,
            "classes": list(classes),
            "group": None,
            **one.looks(config.data.maps),
        }
    )
    if one.image_file is not None:
        data = data.model_copy(update={"image_file": one.image_file, "files": None, "stack": None, "id_parts": None})
    try:
        form = type(config.format).model_validate(_format_of(config, one))
    except ValueError as error:  # pydantic's are many lines
        reason = " ".join(str(error).splitlines()[1:3]).partition("[type=")[0].strip()
        raise CompetitionError(f"data.extra: {one.csv}: format: {reason}; expected keys of `format:`") from None
    return config.model_copy(update={"data": data, "format": form, "decode": type(config.decode)()})


def _format_of(config: Config, one: ExtraSet) -> dict[str, Any]:
    """Return the format of a set: that of train.csv, or of a known competition by `like`, with its own keys over it."""
    if "like" in one.format:
        return with_preset({"task": config.task, "format": one.format}, {}, f"data.extra: {one.csv}")["format"]
    return _over(config.format, one.format)


def _over(section: Section, given: dict[str, Any]) -> dict[str, Any]:
    """Return what a section holds with what is given over it, section by section; all else is replaced."""
    values = section.model_dump()
    for key, value in given.items():
        inside = getattr(section, key, None)
        values[key] = _over(inside, value) if isinstance(inside, Section) and isinstance(value, dict) else value
    return values


def own_config(config: Config, classes: Sequence[str], columns: Sequence[str] = ()) -> Config:
    """Return the config with the project's own format, in which a pseudo.csv of such columns is written."""
    data = config.data.model_copy(update={"classes": list(classes), "absent_images": "ignore", "group": None})
    form = Task(config.task).pseudo_labels.own_format(config, columns)
    return config.model_copy(update={"data": data, "format": form})


def _read_pseudo(config: Config, table: Table, asked: Path) -> Extra:
    path = pseudo_of_fold(asked, config.fold)
    header = [name.strip() for name in read_header(path)] if path.is_file() else []
    own = own_config(config, table.classes, header)
    read = Task(config.task).table.read_table(own, path)
    weighed = WEIGHT_COLUMNS[1] in header and WEIGHT_COLUMNS[1] not in table.classes
    weights = column_weights(path, WEIGHT_COLUMNS[1], read) if weighed else np.ones(len(read.image_ids))
    # Test images are where the config says, whatever format their answers have.
    return Extra(str(path), config, read, weights, num_classes=len(table.classes))


def pseudo_of_fold(path: Path, fold: int | str) -> Path:
    """Return the pseudo-labels that a training of a fold may learn from: of pseudo.csv, pseudo_fold0.csv beside it.

    All other networks of the run that wrote them have trained on the fold's validation images, and would tell it what
    these are; its own has not. Raises CompetitionError where there are those of other folds alone.
    """
    mine = of_fold(path, fold)
    if mine.is_file():
        return mine
    beside = pseudo_files(path)[1:]
    if beside and fold != "all":
        raise CompetitionError(
            f"{mine}: no such file; there are {', '.join(one.name for one in beside)}, by networks that have trained "
            f"on what fold {fold} validates, which would flatter its score; train that fold of the run that wrote "
            "them, then `competition pseudo RUN` again"
        )
    return path


def of_fold(path: Path, fold: int | str) -> Path:
    """Return the file of a fold's own pseudo-labels, beside that of all networks together."""
    return path.with_name(f"{path.stem}_fold{fold}{path.suffix}")


def pseudo_files(path: Path) -> list[Path]:
    """Return a file of pseudo-labels and those of single folds beside it."""
    return [path, *sorted(path.parent.glob(of_fold(path, "*").name))]


def column_weights(path: Path, column: str, table: Table) -> np.ndarray:
    """Return (n,) float, what each image of a table counts by a column of its csv file; 1 for one without a row."""
    texts = pd.Series(read_image_column(path, column, table.image_ids, table.lines), index=table.lines - 2)
    has_row = table.lines > 0
    return _numbers(path, texts.where(has_row, "1"), f" in column {column}")


def _numbers(path: Path, texts: "pd.Series", where: str) -> np.ndarray:
    weights = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        expected = f"expected a weight of 0 or more{where}"
        raise CompetitionError("\n".join(row_faults(path, np.flatnonzero(wrong), texts, expected)))
    return weights


def own_weights(config: Config, table: Table) -> np.ndarray:
    """Return (n,) float: what each image of train.csv counts in the loss, by `data.weight` and `data.weights_csv`."""
    weights = np.ones(len(table.image_ids))
    if config.data.weight is not None:
        weights = column_weights(config.train_csv, config.data.weight, table)
    path = config.data.weights_csv
    if path is None:
        return weights
    frame = read_csv(path, WEIGHT_COLUMNS)
    place = pd.Index(table.image_ids).get_indexer(pd.Index(frame["image_id"]))
    twice = frame["image_id"].duplicated()
    faults = row_faults(path, np.flatnonzero(place < 0), frame["image_id"], f"no image of {config.data.train_csv}")
    faults += row_faults(path, np.flatnonzero(twice), frame["image_id"], "a second row of this image; expected one")
    if faults:
        raise CompetitionError("\n".join(faults))
    weights[place] *= _numbers(path, frame["weight"], "")
    return weights


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
    path = Path(extra.name)
    if name not in [column.strip() for column in read_header(path)]:
        return np.full(len(table.image_ids), "", dtype=object)
    return read_image_column(path, name, table.image_ids, table.lines)


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


def duplicates_path(config: Config) -> Path:
    """Return where `check` writes which images of `data.extra` are validation or test images: beside folds.csv."""
    return folds_path(config).with_name(DUPLICATES)


def duplicate_sources(config: Config) -> list[Path]:
    """Return the files by which it is known whether that is up to date."""
    return [*table_files(config.train_csv), *_tables(config)]


def _left_out(config: Config, table: JoinedTable, validated: set[str]) -> tuple[np.ndarray, list[str]]:
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


def extra_files(config: Config) -> list[Path]:
    """Return the tables that the training part is made of beside train.csv, those that are there."""
    data = config.data
    looked = [path for each in ways_of_looking(data) for path in stage_files(each)]
    named = [*([] if data.pseudo is None else pseudo_files(data.pseudo)), data.weights_csv, *looked]
    return [path for path in [*named, *_tables(config)] if path is not None and path.is_file()]


def ways_of_looking(data: Data) -> list[Data]:
    """Return the settings by which other runs look at the images of train.csv, and at those of each further set."""
    return [data, *(data.model_copy(update=one.looks(data.maps)) for one in data.extra)]


def extra_folders(config: Config) -> list[Path]:
    """Return the folders of images of `data.extra`."""
    return [_folder(config, one) / one.images for one in config.data.extra]


def _tables(config: Config) -> list[Path]:
    return [file for one in config.data.extra for file in table_files(_folder(config, one) / one.csv)]


def _folder(config: Config, one: ExtraSet) -> Path:
    """Return where the files of a set are named from."""
    return one.dir or config.data.dir
