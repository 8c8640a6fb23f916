"""The score of stored predictions against the truth, by the same `decode` that makes the submission. No torch."""

from collections.abc import Sequence
from pathlib import Path

from competition.out_of_fold import OutOfFold, folds_of_files
from competition.settings import Config
from competition.task import Table, Task


def score_predictions(config: Config, table: Table, paths: Sequence[Path]) -> dict[str, float]:
    """Score the oof.npz files of one or more trainings together, as one set of images; seeds of a fold are averaged."""
    return OutOfFold(config, table, folds_of_files(paths)).scores(config)


def score_constant(config: Config, table: Table, images: OutOfFold) -> tuple[str, dict[str, float]]:
    """Return what the best blind submission is called and its scores on the same images."""
    name, answer = Task(config.task).score.constant_answers(table)
    return name, images.scores_of(lambda index: answer)


def describe_scores(scores: dict[str, float]) -> str:
    """Write scores as `dice 0.8123, iou 0.7012`."""
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
