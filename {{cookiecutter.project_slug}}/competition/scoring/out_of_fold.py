"""The out-of-fold predictions of a run as one set of images, and what they score under given thresholds. No torch.

They are decoded by the same `decode` that makes the submission: the score shown is the score of what is handed in.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from competition.config.settings import Config
from competition.prediction.averages import average_of
from competition.prediction.stored import Predictions, open_alike
from competition.runs.folder import fold_of
from competition.support.errors import CompetitionError
from competition.support.progress import progress
from competition.tasks import user_metrics
from competition.tasks.contract import Evidence, Prediction, Table, Target, Task
from competition.tasks.host_metric import HOST, score_by_host
from competition.tasks.user_metrics import evidence_of, scores_of


class OutOfFold:
    """Images 0 to n - 1 of several files of predictions; an image in several files (seeds) has their average.

    `fold` (n,) tells the group of files an image is from.
    """

    def __init__(self, config: Config, table: Table, files: Sequence[Sequence[Path]]) -> None:
        """Take the files of each fold, which hold the same images."""
        self.config, self.table, self.task = config, table, Task(config.task)
        self._files = [open_alike(paths) for paths in files]
        _refuse_common_images([first for first, *_ in self._files])
        for first, *_ in self._files:
            if list(first.classes) != list(table.classes):
                raise CompetitionError(
                    f"{first.path}: was predicted for the classes {', '.join(first.classes)}; {config.train_csv} has "
                    f"{', '.join(table.classes)}; correct that, or list them in data.classes"
                )
        sizes = [len(first) for first, *_ in self._files]
        self.fold = np.repeat(np.arange(len(sizes)), sizes)
        self._place = np.concatenate([np.arange(size) for size in sizes])
        self.image_ids = [image_id for first, *_ in self._files for image_id in first.image_ids]
        position = {image_id: index for index, image_id in enumerate(table.image_ids)}
        try:
            self._row = np.array([position[image_id] for image_id in self.image_ids], dtype=np.int64)
        except KeyError as error:
            raise CompetitionError(f"{config.train_csv}: has no image {error}, which was predicted") from None

    def __len__(self) -> int:
        return len(self.image_ids)

    def __iter__(self) -> Iterator[tuple[str, tuple[int, int], Prediction]]:
        """Yield image id, (height, width) and prediction, as stored predictions do."""
        for index, image_id in enumerate(self.image_ids):
            yield image_id, self.size(index), self.prediction(index)

    def prediction(self, index: int) -> Prediction:
        """Read the stored prediction of an image, averaged over seeds."""
        each = [stored[int(self._place[index])] for stored in self._files[self.fold[index]]]
        return each[0] if len(each) == 1 else average_of(each, self.config)

    def size(self, index: int) -> tuple[int, int]:
        """Return the original height and width."""
        return self._files[self.fold[index]][0].sizes[int(self._place[index])]

    def truth(self, index: int) -> Target:
        """Return the answer in pixels of the original image."""
        return self.table.target(int(self._row[index]), *self.size(index))

    def answer(self, index: int, config: Config) -> Target:
        """Decode an image's prediction by the thresholds of a config."""
        return self.task.decode.decode(self.prediction(index), *self.size(index), config)

    def scores(self, config: Config, rows: np.ndarray | None = None) -> dict[str, float]:
        """Return every metric, the host's first, over the images `rows` (default: all)."""
        return self.scores_of(lambda index: self.answer(index, config), rows)

    def score(self, config: Config, rows: np.ndarray) -> float:
        """Return the first metric, signed so that more is better."""
        return self.merit(next(iter(self.scores(config, rows).items())))

    def merit(self, metric: tuple[str, float]) -> float:
        """Return the value of a metric, signed so that more is better."""
        name, value = metric
        return -value if lower_is_better(self.config, name) else value

    def scores_of(self, answer: Callable[[int], Target], rows: np.ndarray | None = None) -> dict[str, float]:
        """Return every metric of any answers, given for an image's number."""
        rows = np.arange(len(self)) if rows is None else rows
        return self._scores(answer, rows, self._evidence(answer, rows))

    def scores_by_fold(self, configs: Sequence[Config]) -> tuple[list[dict[str, float]], dict[str, float]]:
        """Return the metrics of each fold by itself and of all as one set, fold f decoded by the thresholds of
        `configs[f]`."""

        def answer(index: int) -> Target:
            return self.answer(index, configs[self.fold[index]])

        everywhere = np.arange(len(self))
        evidence = self._evidence(answer, everywhere)
        inside = [np.flatnonzero(self.fold == fold) for fold in np.unique(self.fold)]
        each = [self._scores(answer, rows, [evidence[row] for row in rows]) for rows in inside]
        return each, self._scores(answer, everywhere, evidence)

    def _evidence(self, answer: Callable[[int], Target], rows: np.ndarray) -> list[Evidence]:
        numbers = progress(rows.tolist(), "scoring")
        return [evidence_of(self.config, answer(index), self.truth(index)) for index in numbers]

    def _scores(
        self, answer: Callable[[int], Target], rows: np.ndarray, evidence: Sequence[Evidence]
    ) -> dict[str, float]:
        classes = self.table.classes
        found = ((self.image_ids[index], answer(index)) for index in rows.tolist())
        true = ((self.image_ids[index], self.truth(index)) for index in rows.tolist())
        own = scores_of(self.config, evidence, len(classes))
        return {**score_by_host(self.config, classes, found, true), **own}


def lower_is_better(config: Config, metric: str) -> bool:
    """Return whether a smaller value of a metric, which may be the host's, is the better one."""
    host = config.host_metric
    return host.lower_is_better if host and metric == HOST else user_metrics.lower_is_better(config, metric)


def folds_of_files(files: Iterable[Path]) -> list[list[Path]]:
    """Put the oof.npz files of a run's trainings together by fold: fold0/oof.npz with fold0_seed1/oof.npz."""
    by_fold: dict[str, list[Path]] = {}
    for path in files:
        by_fold.setdefault(fold_of(path.parent.name), []).append(path)
    return list(by_fold.values())


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


def _refuse_common_images(folds: Sequence[Predictions]) -> None:
    """Raise CompetitionError where an image is in two folds: one of them was trained by other folds than the rest, and
    its images would count twice, by networks that may have learnt them."""
    where = dict[str, Path]()
    for fold in folds:
        for image_id in fold.image_ids:
            if image_id in where:
                raise CompetitionError(
                    f"{fold.path}: image {image_id!r} stands in {where[image_id]}, too: folds.csv was another when one "
                    "of them was trained; delete the folder of the older and train that fold again"
                )
            where[image_id] = fold.path
