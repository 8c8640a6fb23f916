"""Which score cut and overlap score best on out-of-fold boxes. No torch.

One setting after the other, coarse to fine: the cut, the IoU at which boxes are joined, whether classes are in each
other's way, and then, class by class, a cut of its own. A change is kept only if it scores better than what was there.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from competition.progress import progress
from competition.task import Evidence, Prediction, Scored, Target
from competition.tasks.detection.decode import decode
from competition.tasks.detection.matching import THRESHOLDS, match, score_of_counts
from competition.tasks.detection.score import evidence, scores
from competition.tasks.detection.settings import TaskConfig

COARSE_CUTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
FINE_CUTS = (-0.06, -0.04, -0.02, -0.01, 0.01, 0.02, 0.04, 0.06)  # from the best so far
CLASS_CUTS = (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2)
LEAST_CUT = 0.02  # boxes below it are not looked at: stored are those from 0.01
HIGHEST_CUT_OF_MAP = 0.05  # a higher one takes boxes away that can only add to a mean average precision
COARSE_IOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
FINE_IOUS = (-0.05, 0.05)


@dataclass(frozen=True)
class Point:
    """Settings of `decode:` that are looked for."""

    iou: float
    class_agnostic: bool
    cuts: tuple[float, ...]  # one a class

    def with_cut(self, change: Callable[[float], float], class_number: int | None = None) -> "Point":
        """Change the cut of all classes, or of one."""
        changed = tuple(
            round(float(np.clip(change(cut), LEAST_CUT, 1)), 4) if class_number in (None, number) else cut
            for number, cut in enumerate(self.cuts)
        )
        return replace(self, cuts=changed)

    def with_iou(self, iou: float) -> "Point":
        """Change the IoU at which boxes are joined."""
        return replace(self, iou=round(float(np.clip(iou, 0.05, 0.95)), 4))

    def settings(self) -> dict[str, Any]:
        """Return keys of `decode:`."""
        same = len(set(self.cuts)) == 1
        return {
            "min_score": self.cuts[0] if same else list(self.cuts),
            "iou": self.iou,
            "class_agnostic": self.class_agnostic,
        }


Objective = Callable[[Point, np.ndarray], float]


class BoxSearch:
    """A search for the best `decode:` of boxes."""

    def __init__(self, config: TaskConfig, images: Scored, num_classes: int) -> None:
        self._config, self._num_classes = config, num_classes
        self._objective, self._has_cut = _objective(config, images, num_classes)

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        """Return `min_score`, `iou` and `class_agnostic` that score best on the images `rows`."""
        climb = _Climb(self._objective, rows, self._start())
        if self._has_cut:
            climb.look(climb.point.with_cut(lambda _, cut=cut: cut) for cut in COARSE_CUTS)
            self._refine_cut(climb, None, FINE_CUTS)
        climb.look(climb.point.with_iou(iou) for iou in COARSE_IOUS)
        climb.look(climb.point.with_iou(climb.point.iou + step) for step in FINE_IOUS)
        if self._num_classes > 1:
            climb.look([replace(climb.point, class_agnostic=not climb.point.class_agnostic)])
        if self._has_cut:
            self._refine_cut(climb, None, FINE_CUTS)
            for number in range(self._num_classes if self._num_classes > 1 else 0):
                self._refine_cut(climb, number, CLASS_CUTS)
                self._refine_cut(climb, number, FINE_CUTS)
        return climb.point.settings()

    def _start(self) -> Point:
        given = self._config.decode
        cuts = given.min_score if isinstance(given.min_score, list) else [given.min_score] * self._num_classes
        if not self._has_cut:
            cuts = [min(cut, HIGHEST_CUT_OF_MAP) for cut in cuts]
        return Point(given.iou, given.class_agnostic, tuple(cuts))

    def _refine_cut(self, climb: "_Climb", class_number: int | None, steps: Sequence[float]) -> None:
        climb.look(climb.point.with_cut(lambda cut, step=step: cut + step, class_number) for step in steps)


class _Climb:
    """The best point so far on some images."""

    def __init__(self, objective: Objective, rows: np.ndarray, start: Point) -> None:
        self._objective = cache(lambda point: objective(point, rows))
        self.point, self.score = start, self._objective(start)

    def look(self, points: Iterable[Point]) -> None:
        """Move to the best of the points if it is better."""
        for point in list(points):
            if (score := self._objective(point)) > self.score:
                self.point, self.score = point, score


def search(config: TaskConfig, images: Scored, num_classes: int) -> BoxSearch:
    """Prepare a search over the images."""
    return BoxSearch(config, images, num_classes)


def regression_sample(
    predictions: Sequence[Prediction], truth: Target, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return none: boxes of several models are no numbers side by side."""
    return None


def _objective(config: TaskConfig, images: Scored, num_classes: int) -> tuple[Objective, bool]:
    """Return what is to be made large, and whether the cut matters to it."""
    if config.host_metric is not None:
        return (lambda point, rows: images.score(_decoding(config, **point.settings()), rows)), True
    metric = config.metrics[0]
    if metric in THRESHOLDS:
        return CountObjective(config, images, metric), True
    look = cache(lambda point: _evidence(_decoding(config, **point.settings()), images))

    def average_precision(point: Point, rows: np.ndarray) -> float:
        seen = look(point)
        return scores([seen[row] for row in rows], [metric], num_classes)[metric]

    return average_precision, False


def _decoding(config: TaskConfig, **settings: Any) -> TaskConfig:
    """Return the config with other settings of `decode:`."""
    return config.model_copy(update={"decode": config.decode.model_copy(update=settings)})


def _evidence(config: TaskConfig, images: Scored) -> list[Evidence]:
    """Decode every image."""
    rows = progress(range(len(images)), "joining boxes")
    return [evidence(decode(images.prediction(i), *images.size(i), config), images.truth(i)) for i in rows]


class _Boxes(NamedTuple):
    """The joined boxes of all images, image by image, best first; those of image i are starts[i] to starts[i + 1]."""

    scores: np.ndarray  # (boxes,)
    labels: np.ndarray  # (boxes,)
    hits: np.ndarray  # (boxes, thresholds) bool: whether it finds a true box
    starts: np.ndarray  # (n + 1,)
    num_true: np.ndarray  # (n,)


class CountObjective:
    """A metric of matching.py at any cut: what a box finds depends on better boxes only, so it is looked up once."""

    def __init__(self, config: TaskConfig, images: Scored, metric: str) -> None:
        self._config, self._images, self._metric = config, images, metric
        self._look = cache(self._joined)

    def __call__(self, point: Point, rows: np.ndarray) -> float:
        """Return the score of the images `rows`, the same as of `decode` with these settings."""
        boxes = self._look(point.iou, point.class_agnostic)
        keep = boxes.scores >= np.array(point.cuts, dtype=np.float32)[boxes.labels]
        rank = np.cumsum(keep) - np.repeat(_before(keep, boxes.starts[:-1]), np.diff(boxes.starts))
        keep &= rank <= self._config.decode.max_boxes
        found, right = (np.diff(_before(values, boxes.starts), axis=0) for values in (keep, boxes.hits & keep[:, None]))
        return score_of_counts(self._metric, right[rows], found[rows], boxes.num_true[rows])

    def _joined(self, iou: float, class_agnostic: bool) -> _Boxes:
        everything = {"min_score": LEAST_CUT, "max_boxes": 1_000_000}
        config = _decoding(self._config, iou=iou, class_agnostic=class_agnostic, **everything)
        seen = _evidence(config, self._images)
        return _Boxes(
            scores=np.concatenate([one["scores"] for one in seen]),
            labels=np.concatenate([one["labels"] for one in seen]),
            hits=np.concatenate([match(one, THRESHOLDS[self._metric]) for one in seen]),
            starts=np.cumsum([0, *(len(one["labels"]) for one in seen)]),
            num_true=np.array([len(one["true_labels"]) for one in seen]),
        )


def _before(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Count the true values before each place."""
    sums = np.concatenate([np.zeros((1, *values.shape[1:]), dtype=np.int64), np.cumsum(values, axis=0)])
    return sums[places]
