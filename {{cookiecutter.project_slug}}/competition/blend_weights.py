"""The weights by which runs are averaged: given, or found on out-of-fold images. No torch.

Weights found on the images they are scored on flatter themselves, as thresholds do. So the out-of-fold images of a fold
are averaged by weights that were found on the other folds; what is handed in, by those found on all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from competition.averages import side_by_side
from competition.errors import CompetitionError
from competition.predictions import Predictions
from competition.progress import progress
from competition.settings import Config
from competition.task import Task

Sample = tuple[np.ndarray, np.ndarray]  # numbers of the runs (k, runs) and of the truth (k,)


@dataclass(frozen=True)
class Weights:
    """A weight for each run, with sum 1: for test images and, where they were found, for each fold's own images."""

    shares: list[float]
    by_fold: dict[str, list[float]] = field(default_factory=dict)

    def of_fold(self, fold: str) -> list[float]:
        """Return those for a fold's out-of-fold images."""
        return self.by_fold.get(fold, self.shares)


def given_weights(weights: Sequence[float] | None, number: int) -> Weights:
    """Return weights that are given, or equal ones; raise CompetitionError where they do not fit so many runs."""
    if weights is None:
        return Weights([1 / number] * number)
    if len(weights) != number or not all(np.isfinite(weights)) or min(weights) < 0 or sum(weights) <= 0:
        given = ",".join(f"{weight:g}" for weight in weights)
        raise CompetitionError(f"--weights {given}: expected {number} numbers of 0 or more, one a run, or fit")
    return Weights((np.array(weights) / sum(weights)).tolist())


def fit_weights(config: Config, folds: Mapping[str, Sequence[Predictions]]) -> Weights:
    """Find weights by non-negative least squares of the out-of-fold truth on the runs' predictions, given by fold.

    Lawson, Hanson, "Solving Least Squares Problems", 1974. With a single fold there are no others to find its weights
    on. Raises CompetitionError where predictions are no numbers that can be added up (boxes), or there are none.
    """
    samples = _samples(config, folds)
    if not samples:
        raise CompetitionError("--weights fit: the runs have no fold with out-of-fold predictions in common")
    everything = list(samples.values())
    others = {fold: [sample for other, sample in samples.items() if other != fold] for fold in samples}
    return Weights(_solve(everything), {fold: _solve(some or everything) for fold, some in others.items()})


def _samples(config: Config, folds: Mapping[str, Sequence[Predictions]]) -> dict[str, Sample]:
    """Return by fold what the runs say of its images, and the truth."""
    task = Task(config.task)
    table = task.table.read_table(config)
    position = {image_id: row for row, image_id in enumerate(table.image_ids)}
    found: dict[str, Sample] = {}
    for fold, sources in folds.items():
        inputs, outputs = [], []
        for image_id, (height, width), each in progress(side_by_side(sources), "weights", len(sources[0])):
            truth = table.target(position[image_id], height, width)
            sample = task.tuning.regression_sample(each, truth, position[image_id])
            if sample is None:
                raise CompetitionError("--weights fit: these predictions cannot be fitted; give a number for each run")
            inputs.append(sample[0])
            outputs.append(sample[1])
        if inputs:
            found[fold] = np.concatenate(inputs).astype(np.float64), np.concatenate(outputs).astype(np.float64)
    return found


def _solve(samples: Sequence[Sample]) -> list[float]:
    from scipy.optimize import nnls

    found, _ = nnls(*(np.concatenate(parts) for parts in zip(*samples, strict=True)))
    if found.sum() == 0:
        raise CompetitionError("--weights fit: no run says anything of the truth; give a number for each run")
    return (found / found.sum()).round(4).tolist()
