"""submission.csv: a row a point, or a row an image with its points in one string, as `format.submission` has it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from competition.files.csv_file import group_by_image, line, read_csv, read_header, row_faults
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.tasks.contract import Target
from competition.tasks.points.formats.point_columns import NOTHING, read_words
from competition.tasks.points.settings import PointsSubmission, TaskConfig

SHARE_DIGITS = 8  # of shares of an image's sides: enough for hundredths of a pixel


def id_columns(config: TaskConfig) -> list[str]:
    """Return the column of image ids."""
    return [config.format.submission.image_id]


def number_columns(config: TaskConfig, classes: Sequence[str]) -> list[str]:
    """Return none: an image without points has none."""
    return []


def read_test_ids(config: TaskConfig, classes: Sequence[str]) -> np.ndarray:
    """Return image ids in order; in strings an image may stand there once, in rows several that differ, and no class of
    strings may have a space."""
    sample, form = config.sample_submission, config.format.submission
    if not form.is_rows and form.has_class and (spaced := [name for name in classes if len(name.split()) != 1]):
        raise CompetitionError(
            f"{sample}: class {spaced[0]!r} has a space, which a {form.points} cannot hold; rename it in train.csv"
        )
    if len(classes) > 1 and not form.has_class:
        raise CompetitionError(
            f"{sample}: nothing tells the {len(classes)} classes of points apart; expected class_id or a string with "
            "class in format.submission, or one class"
        )
    frame = read_csv(sample, _columns(form))
    ids, again = frame[form.image_id], frame.duplicated(None if form.is_rows else [form.image_id])
    if faults := row_faults(sample, np.flatnonzero(again), ids, "a second row of it"):
        raise CompetitionError("\n".join(faults))
    return ids.to_numpy(dtype=object)[group_by_image(ids)[1]]


def asked_classes(config: TaskConfig, classes: Sequence[str]) -> set[str] | None:
    """Return none: whether a class is on an image is part of the answer."""
    return None


def write_submission(
    path: Path, config: TaskConfig, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
) -> None:
    """Write the rows of each image under the header of sample_submission.csv, of whose first row of the image other
    columns stay."""
    header, form = read_header(config.sample_submission), config.format.submission
    names = [name.strip() for name in header]
    frame = read_csv(config.sample_submission, names)
    first = dict(zip(frame[form.image_id][::-1], frame.index[::-1], strict=True))
    own = _columns(form)

    def each() -> Iterator[list[str]]:
        for image_id, answer in answers:
            others = frame.loc[first[image_id]].to_dict()
            for row in _rows_of(image_id, answer, config, classes):
                values = others | dict(zip(own, row, strict=True))
                yield [values[name] for name in names]

    write_csv(path, header, each())


def rows(
    config: TaskConfig, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
) -> tuple[list[str], Iterator[list[str]]]:
    """Return columns and rows of a submission of any images."""
    written = (row for image_id, answer in answers for row in _rows_of(image_id, answer, config, classes))
    return _columns(config.format.submission), written


def perfect_answer(truth: Target, num_classes: int) -> Target:
    """Return the true points, each with score 1."""
    return {**truth, "scores": np.ones(len(truth["labels"]), dtype=np.float32)}


def read_submission(
    path: Path, config: TaskConfig, classes: Sequence[str], sizes: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, Target]]:
    """Yield image id and points; raise CompetitionError at the first row that holds no points in its image."""
    form = config.format.submission
    frame = read_csv(path, _columns(form))
    codes, first = group_by_image(frame[form.image_id])
    order = np.argsort(codes, kind="stable")
    for places in np.split(order, np.cumsum(np.bincount(codes))[:-1]) if len(first) else []:
        part = frame.iloc[places]
        image_id = part[form.image_id].iloc[0]
        where = f"{path}: line {line(int(part.index[0]))}"
        if image_id not in sizes:
            raise CompetitionError(f"{where}: found image {image_id!r}, which is not asked for")
        try:
            yield image_id, _parse(part, config, classes, *sizes[image_id])
        except ValueError as error:
            raise CompetitionError(f"{where}: {','.join(form.point_columns)}: {error}") from None


def _columns(form: PointsSubmission) -> list[str]:
    """Return the columns that are read and written; in strings classes and confidences stand among the points."""
    told = [form.class_id, form.confidence] if form.is_rows else []
    return [form.image_id, *(name for name in told if name is not None), *form.point_columns]


def _rows_of(image_id: str, answer: Target, config: TaskConfig, classes: Sequence[str]) -> Iterator[list[str]]:
    """Yield what stands in `_columns`, for each point or for the image."""
    form = config.format.submission
    points = answer["keypoints"].astype(np.float64)
    if config.format.submits_shares:
        points = points / answer["size"][::-1]
    digits = SHARE_DIGITS if config.format.submits_shares else form.decimals
    words = {
        "x": [f"{x:.{digits}f}" for x in points[:, 0].tolist()],
        "y": [f"{y:.{digits}f}" for y in points[:, 1].tolist()],
        "class": [classes[label] for label in answer["labels"].tolist()],
        "conf": [str(np.float32(score)) for score in answer["scores"]],  # the shortest text that is this number again
    }
    if not form.is_rows:
        told = zip(*(words.get(name, ["0"] * len(points)) for name in form.string.split()), strict=True)
        yield [image_id, " ".join(map(" ".join, told)) or form.none]
        return
    shape = [*(["class"] if form.class_id else []), *(["conf"] if form.confidence else []), "x", "y"]
    if not len(points):
        yield [image_id, *[""] * (len(shape) - 2), form.none, form.none]
    yield from ([image_id, *point] for point in zip(*(words[name] for name in shape), strict=True))


def _parse(part: pd.DataFrame, config: TaskConfig, classes: Sequence[str], height: int, width: int) -> Target:
    """Return the points of an image's rows."""
    form = config.format.submission
    if form.is_rows:
        shape = {form.class_id: "class", form.confidence: "conf"} | dict(zip(form.point_columns, "xy", strict=True))
        columns = [name for name in _columns(form) if name != form.image_id]
        filled = part[~part[form.point_columns].isin([*NOTHING, form.none]).all(axis=1)]
        words = [word for row in filled[columns].to_numpy(dtype=object).tolist() for word in row]
        found = read_words(words, [shape[name] for name in columns])
    else:
        text = part[form.point_columns[0]].iloc[0].strip()
        found = read_words([] if text in (*NOTHING, form.none) else text.split(), form.string.split())
    number_of = {name: number for number, name in enumerate(classes)}
    names = found.get("class", np.full(len(found["x"]), classes[0], dtype=object)).tolist()
    if unknown := [name for name in names if name not in number_of]:
        raise ValueError(f"found class {unknown[0]!r}; expected one of {', '.join(number_of)}")
    points = np.stack([found["x"], found["y"]], axis=1)
    if config.format.submits_shares:
        points = (points * [width, height]).round(form.decimals)
    inside = ((points >= 0) & (points <= np.array([width, height]) + 1e-6)).all(axis=1)
    if not inside.all():
        raise ValueError(f"point {points[~inside][0].tolist()} is not inside the image of {width} x {height}")
    return {
        "keypoints": points.astype(np.float32),
        "scores": found.get("conf", np.ones(len(points))).astype(np.float32),
        "labels": np.array([number_of[name] for name in names], dtype=np.int64),
        **({"size": np.array([height, width])} if config.format.submits_shares else {}),
    }
