"""submission.csv: `image_id,class_id,rle`, a row per image and class, in the order of sample_submission.csv."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from competition.csv_file import read_csv, row_faults
from competition.errors import CompetitionError
from competition.files import write_csv
from competition.task import Target
from competition.tasks.segmentation.rle import decode_rle, encode_rle
from competition.tasks.segmentation.settings import TaskConfig

COLUMNS = ("image_id", "class_id", "rle")


def id_columns(config: TaskConfig) -> list[str]:
    """Return `image_id` and `class_id`."""
    return ["image_id", "class_id"]


def read_test_ids(config: TaskConfig, classes: Sequence[str]) -> np.ndarray:
    """Return image ids in order; the sample must name every class of every image once, an image's rows together."""
    sample = config.sample_submission
    frame = read_csv(sample, COLUMNS)
    unknown = np.flatnonzero(~frame["class_id"].isin(classes))
    faults = row_faults(sample, unknown, frame["class_id"], f"expected a class of train.csv: {', '.join(classes)}")
    faults += row_faults(
        sample,
        np.flatnonzero(frame.duplicated(["image_id", "class_id"])),
        frame["image_id"],
        "a second row of its class",
    )
    ids = frame["image_id"]
    starts = np.flatnonzero(ids != ids.shift())
    apart = starts[ids.iloc[starts].duplicated().to_numpy()]
    faults += row_faults(sample, apart, ids, "expected the rows of an image to stand together")
    if faults:
        raise CompetitionError("\n".join(faults))
    return ids.to_numpy(dtype=object)[starts]


def write_submission(
    path: Path, config: TaskConfig, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
) -> None:
    """Write a row per row of sample_submission.csv, whose images are in the order of `answers`."""
    frame = read_csv(config.sample_submission, COLUMNS)
    asked = groupby(zip(frame["image_id"], frame["class_id"], strict=True), key=lambda row: row[0])

    def rows() -> Iterator[list[str]]:
        for (image_id, group), (answer_id, answer) in zip(asked, answers, strict=True):
            assert image_id == answer_id
            for _, name in group:
                yield [image_id, name, encode_rle(answer["mask"][:, :, classes.index(name)])]

    write_csv(path, COLUMNS, rows())


def read_submission(
    path: Path, config: TaskConfig, classes: Sequence[str], sizes: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, Target]]:
    """Yield image id and `mask`; raise CompetitionError at the first run lengths that do not fit their image."""
    frame = read_csv(path, COLUMNS)
    rows = enumerate(zip(*(frame[column] for column in COLUMNS), strict=True), start=2)
    for image_id, group in groupby(rows, key=lambda row: row[1][0]):
        mask: np.ndarray | None = None
        for number, (_, name, rle) in group:
            if image_id not in sizes:
                raise CompetitionError(f"{path}: line {number}: found image {image_id!r}, which is not asked for")
            if name not in classes:
                raise CompetitionError(f"{path}: line {number}: found class {name!r}; expected {', '.join(classes)}")
            height, width = sizes[image_id]
            mask = np.zeros((height, width, len(classes)), dtype=np.uint8) if mask is None else mask
            try:
                mask[:, :, classes.index(name)] = decode_rle(rle, height, width)
            except ValueError as error:
                raise CompetitionError(f"{path}: line {number}: rle: {error}") from None
        yield image_id, {"mask": mask}
