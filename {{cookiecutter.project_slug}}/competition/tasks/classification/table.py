"""train.csv of a classification or regression: the answer of each image, read as `format.train` says."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from competition.config.section import names_in
from competition.files.csv_file import group_by_image, line, read_csv, read_image_column, row_faults, second_rows
from competition.files.csv_keys import has_class, split_keys
from competition.files.joined_tables import parts_of
from competition.files.series import group_names
from competition.support.errors import CompetitionError
from competition.tasks.classification.formats.answers import READERS, UNKNOWN, Read, class_columns
from competition.tasks.classification.formats.groups import table_of_groups
from competition.tasks.classification.kinds.several_tables import (
    Chosen,
    SeveralTable,
    read_several,
    several_of_groups,
)
from competition.tasks.classification.kinds.tables import (
    ClassificationTable,
    MultiLabelTable,
    OneTable,
    RegressionTable,
    SoftLabelsTable,
    SoftTable,
)
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.contract import Target


def read_table(config: TaskConfig, path: Path | None = None) -> OneTable | SeveralTable:
    """Read train.csv, of groups that are a sample an entry each; raise CompetitionError with a line per fault."""
    if config.format.targets:
        table = read_several(config, path, _read_one)
        return table if config.model.join is None else several_of_groups(table, config.format.join)
    one = _read_one(config, path)
    if config.format.score_by is not None:
        texts = read_image_column(path or config.train_csv, config.format.score_by, one.image_ids, one.lines)
        one = replace(one, score_by=texts)
    return one if config.model.join is None else table_of_groups(one, config.format.join)


def _read_one(config: TaskConfig, path: Path | None, chosen: Chosen | None = None) -> OneTable:
    """Read one answer an image; with `chosen`, which knows the columns of the answer, of some rows."""
    form, is_train = config.format, path is None
    path = path or config.train_csv
    frame = _read_rows(config, path, chosen, is_train=is_train)
    ids, class_ids = split_keys(frame, form.train.keys, path, config.data.classes or ())
    read = READERS[form.train.layout](config, path, frame, ids, class_ids, is_train)
    if faults := [*_id_faults(config, ids, path), *_class_faults(config, read.classes, path), *read.faults]:
        raise CompetitionError("\n".join(faults))
    first = group_by_image(ids)[1]
    groups = group_names(frame.iloc[first], form.group) if form.group else None
    lines = line(frame.index.to_numpy()[first])
    return _table_of(config, read, ids.to_numpy(dtype=object)[first], lines, groups)


def _read_rows(config: TaskConfig, path: Path, chosen: Chosen | None, *, is_train: bool) -> pd.DataFrame:
    """Read the columns of ids, answers and groups; what stands in train.csv by the names of `format.train.names`."""
    form = config.format
    in_columns = form.train.layout in ("columns", "probabilities")
    columns = class_columns(config, path) if in_columns else [form.train.column]
    grouped = names_in(form.group) if form.group else []
    frame = read_csv(path, list(dict.fromkeys([*form.train.keys, *columns, *grouped])))
    frame = frame if chosen is None else chosen(frame, columns)
    if is_train and form.train.names:
        named = {text: str(name) for text, name in form.train.names.items()}
        frame[columns] = frame[columns].apply(lambda cells: cells.map(lambda cell: named.get(cell, cell)))
    return frame


def _id_faults(config: TaskConfig, ids: pd.Series, path: Path) -> list[str]:
    """Describe rows without an id, and those of an image that has one already."""
    keys = config.format.train.keys
    column = next(column for column, pattern in keys.items() if "{image_id}" in pattern)
    faults = row_faults(path, np.flatnonzero(ids == ""), ids, f"{column} is empty", show_found=False)
    return faults if has_class(keys) else faults + second_rows(path, ids, _by_path(config, path))


def _by_path(config: TaskConfig, path: Path) -> str:
    """Say how images are named whose files have the same name in several folders."""
    if not parts_of(path)[0].is_pattern:
        return ""
    pattern = str(config.data.train_csv).replace("{image_id}", "{file}")
    return (
        f": files of the same name are told apart by their path, with data.train_csv: {pattern!r}, "
        "format.train.keys: {path: '{image_id}'}, data.image_file: '{image_id}'"
    )


def _class_faults(config: TaskConfig, classes: Sequence[str], path: Path) -> list[str]:
    """Describe words that mean no class, or a new one, and are the name of one."""
    form, faults = config.format, []
    if form.new is not None and form.new in classes:
        faults.append(
            f"format.new: {form.new!r} is a class of {path}, and names those that it does not have: images would be "
            "answered by it twice; set format.new to null, as a class it is learnt like any other"
        )
    if form.none is not None and form.none in classes:
        faults.append(
            f"{path}: format.none: {form.none!r} is a class, too, by data.classes or beside another label, and means "
            "that an image is of none; take it out there, or set format.none to null"
        )
    return faults


def _table_of(
    config: TaskConfig, read: Read, ids: np.ndarray, lines: np.ndarray, groups: np.ndarray | None
) -> OneTable:
    """Return what was read as the table of its kind."""
    form, entries = config.format, (ids, read.classes, lines)
    is_soft, weights = form.train.layout == "probabilities", _class_weights(config, read.classes)
    if form.target == "regression":
        return RegressionTable(*entries, read.values, groups, weights)
    if form.target == "single":
        single = (*entries, _only_label(read.values), groups)
        return SoftTable(*single, read.values) if is_soft else ClassificationTable(*single)
    if is_soft:
        return SoftLabelsTable(*entries, read.values > 0.5, groups, weights, None, read.values)
    known = read.values != UNKNOWN if form.unknown else None
    return MultiLabelTable(*entries, read.values == 1, groups, weights, known)


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
