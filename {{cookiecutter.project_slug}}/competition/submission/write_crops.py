"""`competition crops RUN`: where in each image a run of boxes or masks found something, for `data.crop` of another run,
of this project or of one that classifies. No torch.

Of training images it is what networks say that have not seen them, of test images what all say; decoded by the
thresholds of the run.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from competition.config.settings import Config
from competition.files.crops import COLUMNS, CROPS, crop_sources
from competition.prediction.stored import Predictions
from competition.runs.folder import TEST, Run
from competition.scoring.out_of_fold import OutOfFold, folds_of_files
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.support.freshness import MadeFrom
from competition.support.progress import progress
from competition.tasks.contract import Prediction, Target, Task

MOST_BOXES = 100  # of an image


def make_crops(run: Run) -> tuple[Path, str]:
    """Write crops.csv of a run's out-of-fold and test predictions; return it and a word on it.

    Raises CompetitionError where the run finds no places, or has not been predicted.
    """
    config, path = run.config, run.folder / CROPS
    refuse_placeless(config)
    made_from = MadeFrom.now(path, crop_sources(run.folder))
    said = said_of_images(run)
    write_csv(
        path,
        COLUMNS,
        (
            row
            for part, each in said.parts()
            for one in answers(config, progress(each, "decoding"))
            for row in crop_rows(part, *one)
        ),
    )
    made_from.note()
    return path, f"{said.in_words()}; for 'data.crop={{run: {run.folder.resolve()}}}'"


class SaidOfImages(NamedTuple):
    """What a run says of its training images, out of fold, if it says anything of them, and of its test images."""

    train: OutOfFold | None
    test: Predictions

    def parts(self) -> Iterator[tuple[str, OutOfFold | Predictions]]:
        """Yield each with its name."""
        if self.train is not None:
            yield "train", self.train
        yield "test", self.test

    def in_words(self) -> str:
        """Say of how many images."""
        number = 0 if self.train is None else len(self.train)
        return f"{number} training images, out of fold, and {len(self.test)} test images"


def said_of_images(run: Run) -> SaidOfImages:
    """Open a run's predictions; raise CompetitionError where a test image has the id of a training image of which there
    is no fair word: who looks for that one would find the other."""
    files, table = run.out_of_fold_files(), Task(run.config.task).table.read_table(run.config)
    train = OutOfFold(run.config, table, folds_of_files(files)) if files else None
    test = Predictions(run.folder / TEST)
    if mixed := (set(table.image_ids) - set(train.image_ids if train else ())) & set(test.image_ids):
        raise CompetitionError(
            f"{run.folder}: image {min(mixed)!r} is a training image that no fold has left out, and a test image, too; "
            "train all folds, so that both are told apart"
        )
    return SaidOfImages(train, test)


def refuse_placeless(config: Config) -> None:
    """Raise CompetitionError for a task whose answers have no extent."""
    if config.task not in ("detection", "segmentation"):
        raise CompetitionError(f"{config.name}: is a run of {config.task}; crops are of boxes or masks")


def answers(
    config: Config, stored: Iterable[tuple[str, tuple[int, int], Prediction]]
) -> Iterator[tuple[str, Target, tuple[int, int]]]:
    """Yield image id, answer and (height, width) of predictions."""
    decode = Task(config.task).decode.decode
    for image_id, size, prediction in stored:
        yield image_id, decode(prediction, *size, config), size


def crop_rows(part: str, image_id: str, answer: Target, size: tuple[int, int]) -> Iterable[list[str]]:
    """Return the rows of an image: a box each, the surest first, or one without."""
    boxes, scores = _boxes(answer, *size)
    rows = [[part, image_id, *(f"{place:.6f}" for place in box)] for box in boxes]
    return [[*row, f"{score:.4f}"] for row, score in zip(rows, scores, strict=True)] or [[part, image_id, *[""] * 5]]


def _boxes(answer: Target, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (k, 4) shares of the sides and (k,) confidences."""
    if "mask" in answer:  # of all classes, at the size of the answer
        height, width = answer["mask"].shape[:2]
        covered = answer["mask"].any(axis=2)
        rows, columns = (np.flatnonzero(covered.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return np.empty((0, 4)), np.empty(0)
        boxes, scores = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]), np.ones(1)
    else:
        order = np.argsort(-answer["scores"], kind="stable")[:MOST_BOXES]
        boxes, scores = np.asarray(answer["bboxes"], dtype=np.float64).reshape(-1, 4)[order], answer["scores"][order]
    return np.clip(boxes / np.array([width, height] * 2), 0, 1), scores
