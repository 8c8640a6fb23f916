"""submission.csv: masks in the rows and columns of sample_submission.csv, as `format.submission` has it.

Where a row is an object (`format.rows`), a row of the sample becomes one for each object of its image and class.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from competition.files.csv_file import LongTexts, group_by_image, line, read_csv, read_header, row_faults
from competition.files.csv_keys import has_class, join_keys, split_keys
from competition.files.joined_tables import has_table
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.tasks.contract import Target
from competition.tasks.segmentation.formats.cells import read_cell, write_cells
from competition.tasks.segmentation.formats.rle import decode_pixels
from competition.tasks.segmentation.objects import objects_from
from competition.tasks.segmentation.settings import TaskConfig


def id_columns(config: TaskConfig) -> list[str]:
    """Return the columns of `format.submission.keys`, in the order of sample_submission.csv."""
    keys = [column.strip() for column in config.format.submission_keys]
    sample = config.sample_submission
    header = [name.strip() for name in read_header(sample)] if has_table(sample) else []
    return sorted(keys, key=lambda column: header.index(column) if column in header else len(header))


def number_columns(config: TaskConfig, classes: Sequence[str]) -> list[str]:
    """Return none: answers are strings."""
    return []


def read_test_ids(config: TaskConfig, classes: Sequence[str]) -> np.ndarray:
    """Return image ids in order of first appearance; the sample must not name an image and class twice, unless rows
    are objects."""
    sample = config.sample_submission
    frame, image_id, class_id = _read(sample, config, classes)
    keys = id_columns(config)
    faults = _unknown_classes(sample, class_id, classes)
    again = np.flatnonzero(frame.duplicated(keys) & (not config.has_many_rows_an_id))
    faults += row_faults(sample, again, frame[keys[0]], "a second row of its class")
    if faults:
        raise CompetitionError("\n".join(faults))
    return image_id.to_numpy(dtype=object)[group_by_image(image_id)[1]]


def asked_classes(config: TaskConfig, classes: Sequence[str]) -> set[str] | None:
    """Return the classes of the rows; none where a row is of an image."""
    if not has_class(config.format.submission_keys):
        return None
    return set(_read(config.sample_submission, config, classes)[2])


def write_submission(
    path: Path, config: TaskConfig, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
) -> None:
    """Write a row per row of sample_submission.csv, whose images are in the order of `answers`, or one per object.

    Rows are written as soon as those before them are; masks of an image whose rows stand apart wait as text.
    """
    sample = config.sample_submission
    frame, image_id, class_id = _read(sample, config, classes, whole=True)
    header, sample_rows, class_of = read_header(sample), frame.to_numpy(dtype=object), class_id.to_numpy(dtype=object)
    column = [name.strip() for name in header].index(config.format.submission_mask.strip())

    def rows() -> Iterator[list[str]]:
        waiting: dict[int, list[list[str]]] = {}
        written = 0
        for (name, places), (answer_id, answer) in zip(_by_image(image_id), answers, strict=True):
            assert name == answer_id
            first = {class_of[place]: place for place in reversed(places)}
            for place in places:
                is_told = config.has_many_rows_an_id and place != first[class_of[place]]
                cells = [] if is_told else write_cells(answer, class_of[place], classes, config)
                before, after = sample_rows[place][:column], sample_rows[place][column + 1 :]
                waiting[place] = [[*before, cell, *after] for cell in cells]
            while written in waiting:
                yield from waiting.pop(written)
                written += 1

    write_csv(path, header, rows())


def rows(
    config: TaskConfig, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
) -> tuple[list[str], Iterator[list[str]]]:
    """Return columns and rows of a submission of any images: a row per image and class, per object, or per image of
    instances."""
    keys, mask_column = config.format.submission_keys, config.format.submission_mask.strip()
    of_instances = config.format.submission.style == "instances"
    sides = _side_columns(config) if of_instances else {}
    columns = [*id_columns(config), *sides, mask_column]

    def each() -> Iterator[list[str]]:
        for image_id, answer in answers:
            size = config.answer_size(*answer["mask"].shape[:2])
            for class_id in classes[:1] if of_instances else classes:
                values = dict(zip((key.strip() for key in keys), join_keys(keys, image_id, class_id), strict=True))
                values |= {column: str(size[axis]) for column, axis in sides.items()}
                for cell in write_cells(answer, class_id, classes, config):
                    yield [{**values, mask_column: cell}[column] for column in columns]

    return columns, each()


def _side_columns(config: TaskConfig) -> dict[str, int]:
    """Return the columns of the sample that hold an image's height (0) or width (1)."""
    sample = config.sample_submission
    header = [name.strip() for name in read_header(sample)] if has_table(sample) else ["height", "width"]
    return {name: axis for name in header for axis, side in enumerate(("height", "width")) if side in name.lower()}


def perfect_answer(truth: Target, num_classes: int) -> Target:
    """Return the truth: masks are handed in as they are."""
    return truth


def read_submission(
    path: Path, config: TaskConfig, classes: Sequence[str], sizes: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, Target]]:
    """Yield image id and `mask`, at `format.size` where that is set, and where rows are objects those; rows of an image
    need not stand together.

    Raises CompetitionError at the first row that names no image or class, or whose run lengths do not fit.
    """
    frame, image_id, class_id = _read(path, config, classes)
    column, class_of = config.format.submission_mask.strip(), class_id.to_numpy(dtype=object)
    texts = LongTexts(path, column, frame.index)
    for name, places in _by_image(image_id):
        where = [f"{path}: line {line(int(frame.index[place]))}" for place in places]
        if name not in sizes:
            raise CompetitionError(f"{where[0]}: found image {name!r}, which is not asked for")
        cells = ((row, class_of[place], texts[place]) for place, row in zip(places, where, strict=True))
        read = _read_objects if config.has_many_rows_an_id else _read_mask
        yield name, read(_of_classes(cells, classes), config, classes, config.answer_size(*sizes[name]))


Cells = Iterable[tuple[str, str, str]]  # where each stands, its class and its text


def _of_classes(cells: Cells, classes: Sequence[str]) -> Cells:
    for where, name, text in cells:
        if name not in classes:
            raise CompetitionError(f"{where}: found class {name!r}; expected {', '.join(classes)}")
        yield where, name, text


def _read_mask(cells: Cells, config: TaskConfig, classes: Sequence[str], size: tuple[int, int]) -> Target:
    """Return `mask` of the cells of an image, each of a class."""
    mask = np.zeros((*size, len(classes)), dtype=np.uint8)
    for where, name, text in cells:
        try:
            read_cell(text, mask, name, classes, config)
        except ValueError as error:
            raise CompetitionError(f"{where}: {config.format.submission_mask.strip()}: {error}") from None
    return {"mask": mask}


def _read_objects(cells: Cells, config: TaskConfig, classes: Sequence[str], size: tuple[int, int]) -> Target:
    """Return `mask` and `objects` of the cells of an image, each of an object."""
    found = []
    for where, name, text in cells:
        try:
            found.append((classes.index(name), decode_pixels(text, *size, config.format.rle)))
        except ValueError as error:
            raise CompetitionError(f"{where}: {config.format.submission_mask.strip()}: {error}") from None
    objects = objects_from([one for one in found if len(one[1])], *size)
    return {"mask": objects.mask(len(classes)), "objects": objects}


def _read(
    path: Path, config: TaskConfig, classes: Sequence[str], *, whole: bool = False
) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Return the columns of a submission as text (`whole`: all it has), and image id and class of each row."""
    keys = {column.strip(): pattern for column, pattern in config.format.submission_keys.items()}
    others = [name.strip() for name in read_header(path)] if whole else []
    mask = config.format.submission_mask.strip()
    frame = read_csv(path, others or [*keys, mask], long=None if whole else mask)
    image_id, class_id = split_keys(frame, keys, path)
    if class_id is None:
        if len(classes) > 1 and config.format.submission.style == "rle":
            raise CompetitionError(
                f"{path}: no column tells the classes {', '.join(classes)} apart; expected {{class_id}} in "
                f"format.submission.keys, as in 'ImageId_ClassId': '{{image_id}}_{{class_id}}'"
            )
        class_id = pd.Series(classes[0], index=frame.index)
    return frame, image_id, class_id


def _by_image(image_id: pd.Series) -> Iterator[tuple[str, list[int]]]:
    """Yield each image and the numbers of its rows, in order of first appearance."""
    codes, first = group_by_image(image_id)
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    for number, places in enumerate(parts):
        yield image_id.iloc[first[number]], places.tolist()


def _unknown_classes(path: Path, class_id: pd.Series, classes: Sequence[str]) -> list[str]:
    unknown = np.flatnonzero(~class_id.isin(classes))
    return row_faults(path, unknown, class_id, f"expected a class of train.csv: {', '.join(classes)}")
