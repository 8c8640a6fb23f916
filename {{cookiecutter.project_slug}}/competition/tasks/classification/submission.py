"""submission.csv: `image_id` and a column of probabilities per class."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from competition.csv_file import line, read_csv, read_header, row_faults
from competition.errors import CompetitionError
from competition.files import write_csv
from competition.task import Target
from competition.tasks.classification.settings import TaskConfig


def id_columns(config: TaskConfig) -> list[str]:
    """Return `image_id`."""
    return ["image_id"]


def read_test_ids(config: TaskConfig, classes: Sequence[str]) -> np.ndarray:
    """Return image ids in order; the sample must have a column for every class."""
    sample = config.sample_submission
    ids = read_csv(sample, ["image_id", *classes])["image_id"]
    extra = [column for column in read_header(sample) if column not in ("image_id", *classes)]
    if extra:
        raise CompetitionError(
            f"{sample}: found column {extra[0]!r}; expected image_id and the classes {', '.join(classes)}"
        )
    faults = row_faults(sample, np.flatnonzero(ids.duplicated()), ids, "a second row of this image")
    if faults:
        raise CompetitionError("\n".join(faults))
    return ids.to_numpy(dtype=object)


def write_submission(
    path: Path, config: TaskConfig, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
) -> None:
    """Write a row per image, with the columns in the order of sample_submission.csv."""
    columns = read_header(config.sample_submission)

    def row(image_id: str, answer: Target) -> list[str]:
        values = dict(zip(classes, (f"{p:.6g}" for p in answer["probabilities"]), strict=True))
        return [image_id if column == "image_id" else values[column] for column in columns]

    write_csv(path, columns, (row(image_id, answer) for image_id, answer in answers))


def read_submission(
    path: Path, config: TaskConfig, classes: Sequence[str], sizes: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, Target]]:
    """Yield image id and `probabilities`; raise CompetitionError at a value that is no probability."""
    frame = read_csv(path, ["image_id", *classes])
    values = frame[list(classes)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.argwhere(~((values >= 0) & (values <= 1)))
    if len(wrong):
        row, column = wrong[0]
        found = frame[classes[column]].iloc[row]
        raise CompetitionError(
            f"{path}: line {line(int(frame.index[row]))}: column {classes[column]}: found {found!r}, expected a probability"
        )
    for image_id, probabilities in zip(frame["image_id"], values, strict=True):
        yield image_id, {"probabilities": probabilities}
