"""`competition pseudo RUN`: confident test predictions as training rows, which join the training part of every fold.

They stand in pseudo.csv in the project's own format, whatever the competition's is, as no one else reads the file; of
classes with their probabilities, else each image with its confidence as its weight in the loss. Beside it
pseudo_fold0.csv ... are what a fold's own networks say: of those of the run, they alone have not trained on the images
that the fold validates, so that what learns from them has an honest out-of-fold score. Thresholds, a few numbers, are
those of the run. No torch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from competition.config.settings import Config
from competition.data.extra_sets import PSEUDO, of_fold, own_config, pseudo_files
from competition.data.image_weights import WEIGHT_COLUMNS
from competition.files.crops import crop_sources
from competition.files.series import is_series
from competition.prediction.stored import Predictions
from competition.runs.folder import TEST, Run
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.support.freshness import MadeFrom
from competition.support.progress import progress
from competition.tasks.contract import Target, Task

LOWER = (0.9, 0.8, 0.7, 0.6, 0.5, 0.3)  # confidences to suggest


class Choice(NamedTuple):
    """Which test images are taken."""

    confidence: float  # at least
    quota: int | None = None  # of a class, and of images without any, at most so many, the surest


class Answer(NamedTuple):
    """What is said of a test image, by the run's own thresholds."""

    image_id: str
    target: Target
    size: tuple[int, int]
    confidence: float


def begin_pseudo(run: Run) -> MadeFrom:
    """Return what pseudo-labels of a run are made from as it is now, before its networks are asked.

    Raises CompetitionError where it has no predictions of single test images, or none that say how sure they are.
    """
    if is_series(run.config):
        raise CompetitionError(
            f"{run.folder}: model.join: it answers groups, and pseudo-labels are of single images; take another run"
        )
    own_config(run.config, Predictions(run.folder / TEST).classes)
    return MadeFrom.now(run.folder / PSEUDO, crop_sources(run.folder))


def make_pseudo(run: Run, choice: Choice, by_fold: Mapping[int, Path], made_from: MadeFrom) -> tuple[Path, str]:
    """Write the test images of which a run is confident, and beside it those of each fold, given the predictions of
    its own networks, and what all that is made from; return the file and a word on it.

    Raises CompetitionError where there is none.
    """
    path = run.folder / PSEUDO
    for stale in pseudo_files(path)[1:]:
        stale.unlink()
    stored = Predictions(run.folder / TEST)
    number = _write(run.config, stored, path, choice)
    made_from.note()
    for fold, file in by_fold.items():
        _write(run.config, Predictions(file), of_fold(path, fold), choice)
        replace(made_from, path=of_fold(path, fold)).note()
    name = Task(run.config.task).pseudo_labels.confidence_name(own_config(run.config, stored.classes))
    quota = "" if choice.quota is None else f", at most {choice.quota} of a class"
    words = (
        f"{number} of {len(stored)} test images, those of confidence {choice.confidence:g} or more{quota} (an image's "
        f"confidence is {name})"
    )
    honest = (
        "each fold learns from what its own networks say (pseudo_fold*.csv), which have not seen what it validates"
        if by_fold
        else "warning: networks that have seen a fold's validation images had their say, which flatters its score"
    )
    both = _also_of_training(run.config, stored)
    return path, f"{words}; train with data.pseudo={path} and another name=...; {honest}{both}"


def _also_of_training(config: Config, stored: Predictions) -> str:
    """Say of how many test images a training image has the id: for all that is known it is the same one."""
    both = set(stored.image_ids) & set(map(str, Task(config.task).table.read_table(config).image_ids))
    if not both:
        return ""
    return f"; warning: {len(both)} have the id of a training image, as {min(both)!r}: nothing is learnt from those"


def _write(config: Config, stored: Predictions, path: Path, choice: Choice) -> int:
    """Write the images of a file of predictions that are taken; return how many."""
    labels, own = Task(config.task).pseudo_labels, own_config(config, stored.classes)
    chosen = _chosen(config, stored, choice)
    columns = labels.label_columns(stored.classes, own)
    weighed = WEIGHT_COLUMNS[1] not in columns and not labels.is_soft(own)
    rows = (
        [*row, f"{answer.confidence:.4f}"] if weighed else row
        for number, answer in enumerate(_answers(config, stored))
        if chosen[number]
        for row in labels.label_rows(answer.image_id, answer.target, *answer.size, stored.classes, own)
    )
    write_csv(path, [*columns, *([WEIGHT_COLUMNS[1]] if weighed else [])], rows)
    return int(chosen.sum())


def _chosen(config: Config, stored: Predictions, choice: Choice) -> np.ndarray:
    """Return (n,) bool: the images that are taken; raise CompetitionError where there is none."""
    outcome, num_classes = Task(config.task).outcome, len(stored.classes)
    sure, present = np.empty(len(stored)), np.zeros((len(stored), num_classes + 1), dtype=bool)
    for number, answer in enumerate(_answers(config, stored)):
        sure[number] = answer.confidence
        has = outcome.present(answer.target, num_classes)
        present[number] = np.append(has, not has.any())
    chosen = sure >= choice.confidence
    if not chosen.any():
        lower = (one for one in LOWER if one < choice.confidence)
        others = ", ".join(f"{(sure >= one).sum()} at {one:g}" for one in lower)
        name = Task(config.task).pseudo_labels.confidence_name(own_config(config, stored.classes))
        raise CompetitionError(
            f"--confidence {choice.confidence:g}: no test image is as sure; the surest is {sure.max(initial=0):.3f}; "
            f"of {len(sure)} images there are {others or 'none'}; an image's confidence is {name}"
        )
    return chosen if choice.quota is None else chosen & within_quota(sure, present & chosen[:, None], choice.quota)


def within_quota(sure: np.ndarray, present: np.ndarray, quota: int) -> np.ndarray:
    """Return (n,) bool: images that are among the `quota` surest (n,) of a class that is present (n, classes)."""
    order = np.argsort(-sure, kind="stable")
    place = np.cumsum(present[order], axis=0)
    taken = np.zeros(len(sure), dtype=bool)
    taken[order] = (present[order] & (place <= quota)).any(axis=1)
    return taken


def _answers(config: Config, stored: Predictions) -> Iterator[Answer]:
    task = Task(config.task)
    own = own_config(config, stored.classes)
    for image_id, size, prediction in progress(stored, "decoding", len(stored)):
        target = task.decode.decode(prediction, *size, config)
        yield Answer(image_id, target, size, task.pseudo_labels.confidence(prediction, target, own))
