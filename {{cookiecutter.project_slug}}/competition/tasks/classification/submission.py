"""submission.csv in the format of `format.submission`: which rows it has, written and read back."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from competition.files.csv_file import UNNAMED, group_by_image, line, read_csv, read_header, row_faults
from competition.files.csv_keys import has_class, join_keys, split_keys
from competition.files.joined_tables import has_table
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.tasks.classification.decode import decided, decides_together, join_groups, settle
from competition.tasks.classification.formats.answer_columns import is_kept, value_columns
from competition.tasks.classification.formats.cells import (
    WrongCellError,
    is_text,
    read_cells,
    write_cells,
)
from competition.tasks.classification.formats.groups import groups_of, images_by_group, images_of_groups
from competition.tasks.classification.kinds.find import kind_in
from competition.tasks.classification.kinds.heads import handed_in, head_by_head
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.contract import Target


def id_columns(config: TaskConfig) -> list[str]:
    """Return the columns of the ids, in the order of sample_submission.csv."""
    keys, sample = config.format.submission_keys, config.sample_submission
    header = [name.strip() for name in read_header(sample)] if has_table(sample) else list(keys)
    return [name for name in header if name in keys]


def number_columns(config: TaskConfig, classes: Sequence[str]) -> list[str]:
    """Return those of probabilities, decisions or values; labels are names, even 03."""
    has_numbers = not any(map(is_text, handed_in(config).values()))
    return value_columns(config, _named(config, classes)) if has_numbers else []


def read_test_ids(config: TaskConfig, classes: Sequence[str]) -> np.ndarray:
    """Return image ids in order; of groups the ids of their images, which stand in `format.test_csv`, or their names
    where the network joins their images."""
    sample, form, classes = config.sample_submission, config.format, _named(config, classes)
    frame = read_csv(sample, [*form.submission_keys, *value_columns(config, classes)])
    names = row_names(config, classes)
    ids, class_ids = split_keys(frame, form.submission_keys, sample, names)
    if class_ids is None:
        faults = row_faults(sample, np.flatnonzero(ids.duplicated()), ids, "a second row of this image")
    else:
        faults = _class_row_faults(sample, ids, class_ids, names)
    faults += row_faults(sample, np.flatnonzero(ids == ""), ids, "the id is empty", show_found=False)
    if faults:
        raise CompetitionError("\n".join(faults))
    ids = ids.iloc[group_by_image(ids)[1]]
    images = images_of_groups(config, ids) if form.group else ids.to_numpy(dtype=object)
    return images if config.model.join is None else ids.to_numpy(dtype=object)


def asked_classes(config: TaskConfig, classes: Sequence[str]) -> set[str] | None:
    """Return none: its columns are read by the names of the classes, which finds those that are missing."""
    return None


def write_submission(
    path: Path, config: TaskConfig, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
) -> None:
    """Write the columns and rows of sample_submission.csv, in its order."""
    columns, written = rows(config, answers, classes)
    if not has_class(config.format.submission_keys):
        write_csv(path, columns, written)
        return
    # The sample may hold the classes of an image in any order, and apart.
    places = [[name.strip() for name in columns].index(name) for name in id_columns(config)]
    by_key = {tuple(row[place] for place in places): row for row in written}
    asked = read_csv(config.sample_submission, id_columns(config)).itertuples(index=False, name=None)
    write_csv(path, columns, (by_key[key] for key in asked))


def rows(
    config: TaskConfig, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
) -> tuple[list[str], Iterator[list[str]]]:
    """Return the columns of sample_submission.csv, and a row an image (or group), or a row an image and class, or
    target."""
    columns, classes = read_header(config.sample_submission), _named(config, classes)
    values = value_columns(config, classes)
    written = _rows([name.strip() for name in columns], values, config, answers, classes)
    return ["" if UNNAMED.fullmatch(name) else name for name in columns], written


def _rows(
    columns: list[str],
    values: list[str],
    config: TaskConfig,
    answers: Iterable[tuple[str, Target]],
    classes: Sequence[str],
) -> Iterator[list[str]]:
    keys, names = config.format.submission_keys, row_names(config, classes)
    kept = _kept(config, [name for name in columns if is_kept(config, name)])
    for image_id, answer in _settled(config, answers):
        cells = write_cells(answer, config, classes)
        for name, texts in zip(names, np.array(cells, dtype=object).reshape(len(names), -1).tolist(), strict=True):
            ids = join_keys(keys, image_id, name)
            texts_of = dict(zip([*keys, *values], [*ids, *texts], strict=True)) | kept.get(tuple(ids), {})
            yield [texts_of.get(column, "") for column in columns]


def row_names(config: TaskConfig, classes: Sequence[str]) -> list[str]:
    """Return what tells the rows of an image apart: classes, or targets; an empty name where it has one row."""
    if not has_class(config.format.submission_keys):
        return [""]
    return list(handed_in(config)) if config.format.targets else list(classes)


def _named(config: TaskConfig, classes: Sequence[str]) -> list[str]:
    """Return what the classes are called in the submission, of several targets each its own."""
    names, parts = config.format.submission.names, {name: (name, "") for name in classes}
    if config.format.targets:
        parts = {name: (name.partition("/")[2], name.partition("/")[0] + "/") for name in classes}
    known = [own for own, _ in parts.values()]
    if unknown := [name for name in names if name not in known]:
        raise CompetitionError(
            f"format.submission.names: {unknown[0]!r} is no class; expected some of {', '.join(known[:12])}"
        )
    return [before + names.get(own, own) for own, before in parts.values()]


def _kept(config: TaskConfig, names: list[str]) -> dict[tuple[str, ...], dict[str, str]]:
    """Return by the ids of a row what the sample has in columns that are no answers, as the numbers of rows are."""
    if not names:
        return {}
    keys = list(config.format.submission_keys)
    frame = read_csv(config.sample_submission, [*keys, *names])
    ids = frame[keys].itertuples(index=False, name=None)
    kept = frame[names].itertuples(index=False, name=None)
    return {one: dict(zip(names, texts, strict=True)) for one, texts in zip(ids, kept, strict=True)}


def _settled(config: TaskConfig, answers: Iterable[tuple[str, Target]]) -> Iterator[tuple[str, Target]]:
    """Yield the decided answers by image, or by group, which answers to training images have with them; all are held in
    memory where they are decided together."""
    if not decides_together(config):
        for image_id, answer in answers:
            yield image_id, settle([_complete(answer, config)])[0]
        return
    pairs = list(answers)
    if not pairs:
        return
    names = [image_id for image_id, _ in pairs]
    complete = [_complete(answer, config) for _, answer in pairs]
    if config.averaged_groups is not None:
        known = [str(answer["group"]) for _, answer in pairs if "group" in answer]
        names, complete = join_groups(complete, known or groups_of(config, names))
    yield from zip(names, settle(complete), strict=True)


@head_by_head
def _complete(answer: Target, config: TaskConfig) -> Target:
    """Add what the probabilities decide to an answer that holds nothing else."""
    is_whole = any(key in answer for key in ("value", "choice", "labels", "top", "thresholds", "quantile"))
    return answer if is_whole else decided(answer["probabilities"], config)


@head_by_head
def perfect_answer(truth: Target, num_classes: int) -> Target:
    """Return `value`, or `probabilities` of 0 and 1 with `choice` and `top`, or `labels`."""
    kind = kind_in(truth)
    return kind.perfect_answer(truth[kind.truth], int(truth.get("num_classes", num_classes)))


def read_submission(
    path: Path, config: TaskConfig, classes: Sequence[str], sizes: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, Target]]:
    """Yield image id and answer; raise CompetitionError at the first value that is not valid."""
    form, classes = config.format, _named(config, classes)
    columns = value_columns(config, classes)
    frame = read_csv(path, [*form.submission_keys, *columns])
    names = row_names(config, classes)
    ids, class_ids = split_keys(frame, form.submission_keys, path, names)
    if class_ids is not None and (faults := _class_row_faults(path, ids, class_ids, names)):
        raise CompetitionError("\n".join(faults))
    numbers = {name: number for number, name in enumerate(classes)}
    images = images_by_group(config) if config.averaged_groups else {}
    for image_id, at, cells in _cells_by_image(frame[columns], ids, class_ids, names):
        try:
            answer = read_cells(cells, config, numbers)
        except WrongCellError as error:
            row, column = at[error.cell // len(columns)], columns[error.cell % len(columns)]
            place = f"{path}: line {line(int(frame.index[row]))}: column {column}"
            raise CompetitionError(f"{place}: found {cells[error.cell][:60]!r}, {error.expected}") from None
        if config.averaged_groups and image_id not in images:
            raise CompetitionError(
                f"{path}: line {line(int(frame.index[at[0]]))}: {image_id!r} is no group of test.csv"
            )
        for one in images.get(image_id, [image_id]):
            yield one, answer


def _cells_by_image(
    values: pd.DataFrame, ids: pd.Series, class_ids: pd.Series | None, names: Sequence[str]
) -> Iterator[tuple[str, Sequence[int], Sequence[str]]]:
    """Yield image id, its rows in the order of their names, and its texts."""
    if class_ids is None:
        for row, (image_id, cells) in enumerate(zip(ids, values.itertuples(index=False, name=None), strict=True)):
            yield image_id, [row], cells
        return
    codes, first = group_by_image(ids)
    order = np.lexsort((pd.Index(list(names)).get_indexer(pd.Index(class_ids)), codes)).reshape(len(first), -1)
    texts = values.to_numpy(dtype=object)
    for image, at in enumerate(order):
        yield ids.iloc[first[image]], at.tolist(), texts[at].reshape(-1).tolist()


def _class_row_faults(path: Path, ids: pd.Series, class_ids: pd.Series, classes: Sequence[str]) -> list[str]:
    """Return the faults of rows that are not one an image and class."""
    known = ", ".join(list(classes)[:12])
    faults = row_faults(path, np.flatnonzero(~class_ids.isin(list(classes))), class_ids, f"expected a class of {known}")
    twice = pd.DataFrame({"image": ids, "class": class_ids}).duplicated().to_numpy()
    faults += row_faults(path, np.flatnonzero(twice), ids, "a second row of this image and class")
    if faults:
        return faults
    codes, first = group_by_image(ids)
    short = np.flatnonzero(np.bincount(codes) != len(classes))
    return row_faults(path, first[short], ids, f"this image lacks rows; expected one for each of {known}")
