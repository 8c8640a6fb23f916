"""The weights by which runs are averaged: given, or found on out-of-fold images. No torch.

Weights found on the images they are scored on flatter themselves, as thresholds do. So the out-of-fold images of a fold
are averaged by weights that were found on the other folds; what is handed in, by those found on all. Least squares know
nothing of the metric: such weights are kept only where they score better, fold by fold, than equal ones, and than the
run that they make most of does alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from competition.config.settings import Config
from competition.prediction.averages import average_of, side_by_side, those_that_count
from competition.prediction.stored import Predictions
from competition.runs.blend_recipe import unless_equal
from competition.scoring.out_of_fold import OutOfFold
from competition.support.errors import CompetitionError
from competition.support.progress import progress
from competition.tasks.contract import Target, Task

Sample = tuple[np.ndarray, np.ndarray]  # numbers of the runs (k, runs) and of the truth (k,)


@dataclass(frozen=True)
class Fit:
    """Weights that were found, and what they score, each fold by weights found on the others; what equal ones do, and
    the run alone that counts most by those found."""

    weights: list[float]
    metric: str
    score: float
    score_of_equal: float
    score_alone: float
    is_kept: bool


@dataclass(frozen=True)
class Weights:
    """A weight for each run, with sum 1: for test images and, where they were found, for each fold's own images.

    `fit` tells whether weights that were found paid; None where none were found, or that cannot be told.
    """

    shares: list[float]
    by_fold: dict[str, list[float]] = field(default_factory=dict)
    fit: Fit | None = None

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


def weights_that_pay(config: Config, folds: Mapping[str, Sequence[Predictions]]) -> Weights:
    """Return the weights of `fit_weights` where they score better by the first metric of the config, each fold by those
    found on the others, than equal ones and than the run alone that counts most by them; else the better of these.

    With a single fold that cannot be told: those found.
    """
    found = fit_weights(config, folds)
    if len(found.by_fold) < 2:
        return found
    number, first = len(found.shares), int(np.argmax(found.shares))
    others = given_weights(None, number), Weights([float(index == first) for index in range(number)])
    images = OutOfFold(config, Task(config.task).table.read_table(config), [[each[0].path] for each in folds.values()])
    scored = [(weights, *_first_score(images, folds, weights)) for weights in (*others, found)]
    best = max(scored, key=lambda one: images.merit(one[1:]))[0]  # of two that score the same the first, a simpler one
    equal, alone, score = (round(one[2], 6) for one in scored)
    return replace(best, fit=Fit(found.shares, scored[0][1], score, equal, alone, is_kept=best is found))


def _first_score(images: OutOfFold, folds: Mapping[str, Sequence[Predictions]], weights: Weights) -> tuple[str, float]:
    """Return the first metric of all out-of-fold images, averaged by weights as they are asked for."""
    decode, config = images.task.decode, images.config
    blends = [those_that_count(each, unless_equal(weights.of_fold(fold))) for fold, each in folds.items()]

    def answer(index: int) -> Target:
        (sources, shares), image_id = blends[images.fold[index]], images.image_ids[index]
        each = [source[source.places[image_id]] for source in sources]
        return decode.decode(average_of(each, config, shares), *images.size(index), config)

    return next(iter(images.scores_of(answer).items()))


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
