"""`competition crops RUN`: where in each image a run of boxes or masks found something, for `data.crop` of another run,
of this project or of one that classifies. No torch.

Of training images it is what networks say that have not seen them, of test images what all say; decoded by the
thresholds of the run.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from competition.config.settings import Config
from competition.files.crops import COLUMNS, CROPS, crop_sources
from competition.prediction.stored import Predictions
from competition.runs.folder import TEST, Run
from competition.scoring.out_of_fold import OutOfFold, folds_of_files
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.support.freshness import remember_sources
from competition.support.progress import progress
from competition.tasks.contract import Prediction, Target, Task

MOST_BOXES = 100  # of an image


def make_crops(run: Run) -> tuple[Path, str]:
    """Write crops.csv of a run's out-of-fold and test predictions; return it and a word on it.

    Raises CompetitionError where the run finds no places, or has not been predicted.
    """
    config, files = run.config, run.out_of_fold_files()
    refuse_placeless(config)
    stored = Predictions(run.folder / TEST)
    table = Task(config.task).table.read_table(config)
    images = None if not files else OutOfFold(config, table, folds_of_files(files))
    refuse_mixed(run, table.image_ids, () if images is None else images.image_ids, stored.image_ids)
    path, number = run.folder / CROPS, 0 if images is None else len(images)
    sources = crop_sources(run.folder)

    def of_training() -> Iterator[tuple[str, Target, tuple[int, int]]]:
        assert images is not None
        for index in range(number):
            yield images.image_ids[index], images.answer(index, config), images.size(index)

    of_test = answers(config, stored)
    write_csv(
        path,
        COLUMNS,
        (
            row
            for part, found, length in (("train", of_training(), number), ("test", of_test, len(stored)))
            if length
            for one in progress(found, "decoding", length)
            for row in crop_rows(part, *one)
        ),
    )
    remember_sources(path, sources)
    return (
        path,
        f"{number} training images, out of fold, and {len(stored)} test images; for data.crop={{run: {run.folder}}}",
    )


def refuse_mixed(run: Run, trained: Iterable[str], out_of_fold: Iterable[str], test: Iterable[str]) -> None:
    """Raise CompetitionError where a test image has the id of one that the run trains on and has no fair word on: who
    looks for that one would find the other."""
    if mixed := (set(trained) - set(out_of_fold)) & set(test):
        raise CompetitionError(
            f"{run.folder}: image {min(mixed)!r} is a training image that no fold has left out, and a test image, too; "
            "train all folds, so that both are told apart"
        )


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
