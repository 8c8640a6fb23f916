"""train.csv of a classification or regression: the answer of each image, read as `format.train` says."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from competition.config.section import names_in
from competition.files.csv_file import group_by_image, line, read_csv, read_image_column, row_faults
from competition.files.csv_keys import has_class, split_keys
from competition.files.series import group_names
from competition.support.errors import CompetitionError
from competition.tasks.classification.formats.answers import READERS, UNKNOWN, class_columns, joined_labels
from competition.tasks.classification.formats.groups import table_of_groups
from competition.tasks.classification.kinds.heads import head_config, side_by_side
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.settings.metrics import metric_of
from competition.tasks.classification.settings.targets import TargetFormat
from competition.tasks.contract import Target

NUM_BINS = 10  # of a regression's numbers, to spread them over the folds


@dataclass(frozen=True)
class Entries:
    """What every kind of table has."""

    image_ids: np.ndarray
    classes: tuple[str, ...]
    lines: np.ndarray
    of_images: "AnyTable | None" = field(default=None, kw_only=True)  # where the entries are groups of images
    score_by: np.ndarray | None = field(default=None, kw_only=True)  # (n,) str, of `format.score_by`

    def _with_group(self, target: Target, groups: np.ndarray | None, index: int) -> Target:
        more = {} if groups is None else {"group": groups[index]}
        return target | more | ({} if self.score_by is None else {"score_by": self.score_by[index]})


@dataclass(frozen=True)
class ClassificationTable(Entries):
    """One label an image."""

    labels: np.ndarray  # (n,) int64; -1 for a class that train.csv does not have
    groups: np.ndarray | None = None  # (n,) str

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `label`, the number of the class; of classes that are numbers also `grades` (classes,), and with
        `format.group` also `group`."""
        grades = {} if self.grades is None else {"grades": self.grades}
        return self._with_group({"label": int(self.labels[index]), **grades}, self.groups, index)

    @cached_property
    def grades(self) -> np.ndarray | None:
        """Classes as numbers (classes,); None where they are names."""
        try:
            grades = np.array([float(name) for name in self.classes])
        except ValueError:
            return None
        return grades if np.isfinite(grades).all() else None

    def present(self) -> np.ndarray:
        """Return (n, classes) bool: the label of each image."""
        return self.labels[:, None] == np.arange(len(self.classes))

    def strata(self) -> np.ndarray:
        """Code images by their label."""
        return self.labels

    def amounts(self) -> np.ndarray:
        """Return the labels as numbers."""
        return self.labels.astype(np.float64)

    def summary(self) -> list[str]:
        """Count images by class."""
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes))
        return [_counted(self.classes, counts), *_joined(self.classes)]


@dataclass(frozen=True)
class MultiLabelTable(Entries):
    """Any number of labels an image."""

    labels: np.ndarray  # (n, classes) bool
    groups: np.ndarray | None = None  # (n,) str
    class_weights: np.ndarray | None = None  # (classes,) of log_loss
    known: np.ndarray | None = None  # (n, classes) bool, with `format.unknown`; elsewhere labels are false

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `labels` (classes,) bool; with the settings for it also `group`, `class_weights` and which are
        `known`."""
        more = {} if self.class_weights is None else {"class_weights": self.class_weights}
        more |= {} if self.known is None else {"known": self.known[index]}
        return self._with_group({"labels": self.labels[index], **more}, self.groups, index)

    def present(self) -> np.ndarray:
        """Return (n, classes) bool: the labels of each image."""
        return self.labels

    def strata(self) -> np.ndarray:
        """Code images by their set of labels."""
        return np.unique(self.labels, axis=0, return_inverse=True)[1].reshape(-1)

    def amounts(self) -> np.ndarray:
        """Return how many labels each image has."""
        return self.labels.sum(axis=1).astype(np.float64)

    def summary(self) -> list[str]:
        """Count images by class, and those without any."""
        without = int((~self.labels.any(axis=1)).sum())
        lines = [_counted(self.classes, self.labels.sum(axis=0)), f"images without a class: {without}"]
        if self.known is not None:
            unknown = (~self.known).sum(axis=0)
            lines.append(f"unknown, and left out of loss and score: {_counted(self.classes, unknown)}")
        return lines


@dataclass(frozen=True)
class RegressionTable(Entries):
    """A number an image, or several."""

    values: np.ndarray  # (n, columns) float64
    groups: np.ndarray | None = None  # (n,) str
    class_weights: np.ndarray | None = None  # (columns,) of weighted_r2

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `value` (columns,) float64; with the settings for it also `group` and `class_weights`."""
        more = {} if self.class_weights is None else {"class_weights": self.class_weights}
        return self._with_group({"value": self.values[index], **more}, self.groups, index)

    def present(self) -> np.ndarray:
        """Return (n, columns) bool: every image has every number."""
        return np.ones(self.values.shape, dtype=bool)

    def strata(self) -> np.ndarray:
        """Code images by which of NUM_BINS equally full bins their first number is in."""
        edges = np.quantile(self.values[:, 0], np.linspace(0, 1, NUM_BINS + 1)[1:-1])
        return np.searchsorted(edges, self.values[:, 0], side="right").astype(np.int64)

    def amounts(self) -> np.ndarray:
        """Return the first number of each image."""
        return self.values[:, 0]

    def summary(self) -> list[str]:
        """Describe each column's numbers."""
        return [
            f"{name}: {column.min():.4g} to {column.max():.4g}, mean {column.mean():.4g}"
            for name, column in zip(self.classes, self.values.T, strict=True)
        ]


@dataclass(frozen=True)
class SoftTable(ClassificationTable):
    """Probabilities of the classes of an image that has one: `labels` are the likeliest."""

    probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (n, classes)

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `label`, the likeliest class, and `soft` (classes,), which sum to 1."""
        return {**super().target(index, height, width), "soft": self.probabilities[index]}


@dataclass(frozen=True)
class SoftLabelsTable(MultiLabelTable):
    """The probability of each class of an image that may have several: `labels` are those over one half."""

    probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (n, classes)

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `labels` (classes,) bool and `soft` (classes,), from 0 to 1."""
        return {**super().target(index, height, width), "soft": self.probabilities[index]}


OneTable = ClassificationTable | MultiLabelTable | RegressionTable


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


AnyTable = OneTable | SeveralTable


def read_table(config: TaskConfig, path: Path | None = None) -> AnyTable:
    """Read train.csv, of groups that are a sample an entry each; raise CompetitionError with a line per fault."""
    if config.format.targets:
        table = _read_several(config, path)
        return table if config.model.join is None else _of_groups(table, config.format.join)
    one = _read_one(config, path)
    if config.format.score_by is not None:
        texts = read_image_column(path or config.train_csv, config.format.score_by, one.image_ids, one.lines)
        one = replace(one, score_by=texts)
    return one if config.model.join is None else table_of_groups(one, config.format.join)


def _read_several(config: TaskConfig, path: Path | None) -> SeveralTable:
    """Read each target as if it were the only one; of another file than train.csv those that are handed in."""
    form = config.format
    tables, faults = {}, []
    for name, target in form.targets.items():
        try:
            if path is None or target.submit:
                tables[name] = _read_one(head_config(config, name), path, target)
        except CompetitionError as error:
            where = f"format.targets.{name}"
            lines = str(error).replace("data.classes", f"{where}.classes").splitlines()
            faults += [f"{where}: {line}" for line in lines]
    if faults:
        raise CompetitionError("\n".join(faults))
    path = path or config.train_csv
    frame = read_csv(path, list(dict.fromkeys([*form.train.keys, *(names_in(form.group) if form.group else [])])))
    ids, _ = split_keys(frame, form.train.keys, path)
    if faults := row_faults(path, np.flatnonzero(ids.duplicated()), ids, "a second row of this image; expected one"):
        raise CompetitionError("\n".join(faults))
    groups = group_names(frame, form.group) if form.group else None
    rows = {name: pd.Index(table.image_ids).get_indexer(pd.Index(ids)) for name, table in tables.items()}
    more = {name: _scored(config, name) for name in tables}
    classes = tuple(f"{name}/{one}" for name, table in tables.items() for one in table.classes)
    return SeveralTable(ids.to_numpy(dtype=object), classes, line(frame.index.to_numpy()), tables, rows, more, groups)


def _of_groups(table: SeveralTable, join: str) -> SeveralTable:
    """Return the table whose entries are the groups of another one, in order of first appearance."""
    assert table.groups is not None
    codes, names = pd.factorize(table.groups)
    first = np.unique(codes, return_index=True)[1]
    tables = {name: table_of_groups(one, join) for name, one in table.tables.items()}
    rows = {name: pd.Index(one.image_ids).get_indexer(pd.Index(names)) for name, one in tables.items()}
    return replace(
        table, image_ids=names, lines=table.lines[first], tables=tables, rows=rows, groups=None, of_images=table
    )


def _scored(config: TaskConfig, name: str) -> dict[str, float | str]:
    target = config.format.targets[name]
    return {"metric": metric_of(config.format, name), "score_weight": target.score_weight} if target.counts else {}


def _known_rows(frame: pd.DataFrame, target: TargetFormat | None, columns: list[str]) -> pd.DataFrame:
    """Return the rows of which one of several targets is known."""
    if target is None or not target.unknown or target.knows_some_labels:
        return frame
    texts = [one for one in target.unknown if isinstance(one, str)]
    numbers = [one for one in target.unknown if not isinstance(one, str)]
    cells = frame[columns]
    is_number = cells.apply(pd.to_numeric, errors="coerce").isin(numbers)
    return frame[~(cells.apply(lambda column: column.str.strip()).isin(texts) | is_number).any(axis=1)]


def _read_one(config: TaskConfig, path: Path | None, target: TargetFormat | None = None) -> OneTable:
    """Read the only answer of each image, or one of several targets, of the images of which it is known."""
    form, is_train = config.format, path is None
    path = path or config.train_csv
    in_columns = form.train.layout in ("columns", "probabilities")
    columns = class_columns(config, path) if in_columns else [form.train.column]
    grouped = names_in(form.group) if form.group else []
    frame = read_csv(path, list(dict.fromkeys([*form.train.keys, *columns, *grouped])))
    frame = _known_rows(frame, target, columns)
    if is_train and form.train.names:
        named = {text: str(name) for text, name in form.train.names.items()}
        frame[columns] = frame[columns].apply(lambda cells: cells.map(lambda cell: named.get(cell, cell)))
    ids, class_ids = split_keys(frame, form.train.keys, path, config.data.classes or ())
    faults = row_faults(path, np.flatnonzero(ids == ""), ids, f"{_id_column(config)} is empty", show_found=False)
    _, first = group_by_image(ids)
    if not has_class(form.train.keys):
        second = np.flatnonzero(ids.duplicated())
        faults += row_faults(path, second, ids, "a second row of this image; expected one")
    read = READERS[form.train.layout](config, path, frame, ids, class_ids, is_train)
    if form.new is not None and form.new in read.classes:
        faults.append(
            f"format.new: {form.new!r} is a class of {path}, and names those that it does not have: images would be "
            "answered by it twice; set format.new to null, as a class it is learnt like any other"
        )
    if form.none is not None and form.none in read.classes:
        faults.append(
            f"{path}: format.none: {form.none!r} is a class, too, by data.classes or beside another label, and means "
            "that an image is of none; take it out there, or set format.none to null"
        )
    if faults + read.faults:
        raise CompetitionError("\n".join(faults + read.faults))
    groups = group_names(frame.iloc[first], form.group) if form.group else None
    entries = (ids.to_numpy(dtype=object)[first], read.classes, line(frame.index.to_numpy()[first]))
    if form.target == "regression":
        return RegressionTable(*entries, read.values, groups, _class_weights(config, read.classes))
    is_soft, weights = form.train.layout == "probabilities", _class_weights(config, read.classes)
    if is_soft and form.target == "multi":
        return SoftLabelsTable(*entries, read.values > 0.5, groups, weights, None, read.values)
    if is_soft:
        return SoftTable(*entries, _only_label(read.values), groups, read.values)
    if form.target == "multi":
        known = read.values != UNKNOWN if form.unknown else None
        return MultiLabelTable(*entries, read.values == 1, groups, weights, known)
    return ClassificationTable(*entries, _only_label(read.values), groups)


def renumbered(target: Target, numbers: np.ndarray, num_classes: int) -> Target:
    """Return an answer whose class or number k is `numbers[k]`, negative ones left out; of several labels those that
    none of these is are not `known`. Raises CompetitionError where not one is a column of a regression."""
    found = {key: value for key, value in target.items() if key not in ("grades", "class_weights")}
    kept = numbers >= 0
    if "label" in target:
        found["label"] = int(numbers[target["label"]])
    if "value" in target:
        named = numbers[kept].tolist()
        if wrong := [number for number in range(num_classes) if named.count(number) != 1]:
            raise CompetitionError(
                f"data.extra: classes: {named.count(wrong[0])} are column {wrong[0] + 1} of {num_classes}; expected one"
            )
        found["value"] = np.asarray(target["value"])[kept][np.argsort(numbers[kept])]
    for key in ("labels", "soft"):
        if key in target:
            values = np.asarray(target[key])
            found[key] = np.zeros(num_classes, dtype=values.dtype)
            join = np.add if key == "soft" and "label" in target else np.maximum
            join.at(found[key], numbers[kept], values[kept])
    if "labels" in target:
        found["known"] = np.zeros(num_classes, dtype=bool)
        found["known"][numbers[kept & np.asarray(target.get("known", kept))]] = True
    if "soft" in found and "label" in target:
        found["soft"] /= max(found["soft"].sum(), 1e-12)
    return found


def _joined(classes: tuple[str, ...]) -> list[str]:
    """Warn of classes that are several labels joined by a bar."""
    joined = joined_labels(classes, "|")
    return [
        f"warning: {len(joined)} classes, as {one!r}, look like several labels joined by '|'; to learn each: "
        "format.target: multi, format.train.layout: label_string, format.train.separator: '|'"
        for one in joined[:1]
    ]


def _only_label(values: np.ndarray) -> np.ndarray:
    """Return (n,) the label of rows (n, classes) of 0 and a single 1, or of labels as they are."""
    return (values if values.ndim == 1 else values.argmax(axis=1)).astype(np.int64)


def _class_weights(config: TaskConfig, classes: tuple[str, ...]) -> np.ndarray | None:
    weights = config.format.class_weights
    unknown = [name for name in weights if name not in classes]
    if unknown:
        raise CompetitionError(
            f"format.class_weights: {unknown[0]!r} is no class; expected some of {', '.join(classes[:12])}"
        )
    return np.array([weights.get(name, 1.0) for name in classes]) if weights else None


def _id_column(config: TaskConfig) -> str:
    return next(column for column, pattern in config.format.train.keys.items() if "{image_id}" in pattern)


def _counted(classes: tuple[str, ...], counts: np.ndarray) -> str:
    named = [f"{name} {count}" for name, count in zip(classes[:30], counts[:30], strict=True)]
    if len(classes) > len(named):
        named.append(
            f"and {len(classes) - len(named)} more classes of {counts[30:].min()} to {counts[30:].max()} images"
        )
    return "images: " + ", ".join(named)
