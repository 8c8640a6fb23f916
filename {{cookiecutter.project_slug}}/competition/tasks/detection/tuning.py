"""Which score cut and overlap score best on out-of-fold boxes. No torch.

One setting after the other, coarse to fine: the cut, the IoU at which boxes are joined, whether classes are in each
other's way, what goes by a head of the image, and then, class by class, a cut of its own. A change is kept only if it
scores better than what was there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from competition.config.settings import with_decode
from competition.support.progress import progress
from competition.tasks.average_precision import mean_average_precision
from competition.tasks.climb import LEAST_CUT, Climb, CutPoint, look_at_cuts
from competition.tasks.contract import Evidence, Prediction, Scored, Target
from competition.tasks.detection.decode import decode
from competition.tasks.detection.metrics import (
    OVER_IOU,
    THRESHOLDS,
    match,
    match_voc,
    score_of_counts,
    score_voc,
)
from competition.tasks.detection.score import coco_thresholds, count_true, evidence, is_coco
from competition.tasks.detection.settings import TaskConfig
from competition.tasks.presence import PRESENCE

COARSE_CUTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
FINE_CUTS = (-0.06, -0.04, -0.02, -0.01, 0.01, 0.02, 0.04, 0.06)  # from the best so far
CLASS_CUTS = (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2)
HIGHEST_CUT_OF_MAP = 0.05
COCO_MOST_BOXES = 100  # of an image and class
COARSE_IOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
FINE_IOUS = (-0.05, 0.05)
COARSE_PRESENCES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)  # thresholds of it
FINE_PRESENCES = (-0.1, -0.05, 0.05, 0.1)


@dataclass(frozen=True)
class Point(CutPoint):
    """Settings of `decode:` that are looked for."""

    iou: float
    class_agnostic: bool
    presence: tuple[float, ...] | None = None  # its thresholds, one a class; None where no head tells it
    is_scaled: bool = False  # whether scores are, by presence

    def with_presence(self, change: Callable[[float], float], class_number: int | None = None) -> "Point":
        """Change the threshold of presence of all classes, or of one."""
        changed = tuple(
            round(float(np.clip(change(least), 0, 1)), 4) if class_number in (None, number) else least
            for number, least in enumerate(self.presence or ())
        )
        return replace(self, presence=changed)

    def with_iou(self, iou: float) -> "Point":
        """Change the IoU at which boxes are joined."""
        return replace(self, iou=round(float(np.clip(iou, 0.05, 0.95)), 4))

    def settings(self) -> dict[str, Any]:
        """Return keys of `decode:`."""
        found = {**super().settings(), "iou": self.iou, "class_agnostic": self.class_agnostic}
        if self.presence is None:
            return found
        least = self.presence[0] if len(set(self.presence)) == 1 else list(self.presence)
        return {**found, "presence_threshold": least, "scale_by_presence": self.is_scaled}


Objective = Callable[[Point, np.ndarray], float]


class BoxSearch:
    """A search for the best `decode:` of boxes."""

    def __init__(self, config: TaskConfig, images: Scored, num_classes: int) -> None:
        self._config, self._num_classes = config, num_classes
        # A higher cut takes boxes away that can only add to COCO's mean average precision.
        self._has_cut = config.host_metric is not None or not is_coco(config.metrics[0])
        tells_presence = len(images) > 0 and PRESENCE in images.prediction(0)
        self._start = self._start_point(tells_presence=tells_presence)
        self._objective = _objective(config, images, num_classes, min(LEAST_CUT, *self._start.cuts))

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        """Return `min_score`, `iou`, `class_agnostic` and what goes by presence, best on the images `rows`."""
        climb = Climb(lambda point: self._objective(point, rows), self._start)
        if self._has_cut:
            climb.look(climb.point.with_cut(lambda _, cut=cut: cut) for cut in COARSE_CUTS)
            look_at_cuts(climb, None, FINE_CUTS)
        climb.look(climb.point.with_iou(iou) for iou in COARSE_IOUS)
        climb.look(climb.point.with_iou(climb.point.iou + step) for step in FINE_IOUS)
        if self._num_classes > 1:
            climb.look([replace(climb.point, class_agnostic=not climb.point.class_agnostic)])
        if self._start.presence is not None:
            self._look_at_presence(climb)
        if self._has_cut:
            look_at_cuts(climb, None, FINE_CUTS)
            for number in range(self._num_classes if self._num_classes > 1 else 0):
                look_at_cuts(climb, number, CLASS_CUTS)
                look_at_cuts(climb, number, FINE_CUTS)
        return climb.point.settings()

    def _look_at_presence(self, climb: Climb[Point]) -> None:
        """Move to how to go by presence that is best: for all classes, then class by class."""
        other = replace(climb.point, is_scaled=not climb.point.is_scaled)
        climb.look([other, other.with_cut(lambda _: LEAST_CUT)])  # what is scaled is lower
        # Where classes are in each other's way every threshold joins all boxes anew: one for all is enough.
        has_own = self._num_classes > 1 and not climb.point.class_agnostic
        for number in (None, *range(self._num_classes if has_own else 0)):
            climb.look(climb.point.with_presence(lambda _, least=least: least, number) for least in COARSE_PRESENCES)
            climb.look(
                climb.point.with_presence(lambda least, step=step: least + step, number) for step in FINE_PRESENCES
            )

    def _start_point(self, *, tells_presence: bool) -> Point:
        given = self._config.decode
        cuts = given.min_score if isinstance(given.min_score, list) else [given.min_score] * self._num_classes
        if not self._has_cut:
            cuts = [min(cut, HIGHEST_CUT_OF_MAP) for cut in cuts]
        point = Point(tuple(cuts), given.iou, given.class_agnostic)
        if not tells_presence:
            return point
        least = given.presence_threshold
        each = least if isinstance(least, list) else [least] * self._num_classes
        return replace(point, presence=tuple(each), is_scaled=given.scale_by_presence)


def search(config: TaskConfig, images: Scored, num_classes: int) -> BoxSearch:
    """Prepare a search over the images."""
    return BoxSearch(config, images, num_classes)


def regression_sample(
    predictions: Sequence[Prediction], truth: Target, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return none: boxes of several models are no numbers side by side."""
    return None


def _objective(config: TaskConfig, images: Scored, num_classes: int, least_cut: float) -> Objective:
    """Return what is to be made large."""
    if config.host_metric is not None:
        return lambda point, rows: images.score(with_decode(config, point.settings()), rows)
    return LookedUp(config, images, num_classes, least_cut)


class _Boxes(NamedTuple):
    """The joined boxes of all images, image by image, best first; those of image i are starts[i] to starts[i + 1]."""

    scores: np.ndarray  # (boxes,)
    labels: np.ndarray  # (boxes,)
    hits: np.ndarray  # (boxes, thresholds) bool: whether it finds a true box
    counted: np.ndarray  # (boxes,) bool: whether it is among those of an image and class that the metric looks at
    presence: np.ndarray  # (boxes,) of its class in its image, 1 where nothing tells it
    starts: np.ndarray  # (n + 1,)
    num_true: np.ndarray  # (n, classes)


class LookedUp:
    """The first metric at any cut: what a box finds depends on better boxes only, so it is looked up once."""

    def __init__(self, config: TaskConfig, images: Scored, num_classes: int, least_cut: float) -> None:
        """Take the images, of which boxes under `least_cut` will not be asked for."""
        self._config, self._images, self._metric = config, images, config.metrics[0]
        self._num_classes, self._least_cut = num_classes, least_cut
        self._look = cache(self._joined)

    def __call__(self, point: Point, rows: np.ndarray) -> float:
        """Return the score of the images `rows`, the same as of `decode` with these settings."""
        # What is denied must be gone before boxes are joined where those of other classes are in each other's way.
        denying = point.presence if point.class_agnostic else None
        boxes = self._look(point.iou, point.class_agnostic, point.is_scaled, denying)
        keep = boxes.scores >= np.array(point.cuts, dtype=np.float32)[boxes.labels]
        if point.presence is not None:
            keep &= boxes.presence >= np.array(point.presence, dtype=np.float32)[boxes.labels]
        rank = np.cumsum(keep) - np.repeat(_before(keep, boxes.starts[:-1]), np.diff(boxes.starts))
        keep &= (rank <= self._config.decode.max_boxes) & boxes.counted
        found = np.diff(_before(keep, boxes.starts))[rows]
        num_true = boxes.num_true[rows]
        if self._metric in THRESHOLDS:
            right = np.diff(_before(boxes.hits & keep[:, None], boxes.starts), axis=0)[rows]
            return score_of_counts(self._metric, right, found, num_true.sum(axis=1))
        keep &= np.repeat(np.isin(np.arange(len(boxes.starts) - 1), rows), np.diff(boxes.starts))
        kept = boxes.hits[keep], boxes.scores[keep], boxes.labels[keep]
        if self._metric in OVER_IOU:
            return score_voc(*kept, found, num_true)
        return mean_average_precision(*kept, num_true.sum(axis=0), "coco")

    def _joined(self, iou: float, class_agnostic: bool, is_scaled: bool, denying: tuple[float, ...] | None) -> _Boxes:
        everything = {
            "min_score": self._least_cut,
            "max_boxes": 1_000_000,
            "presence_threshold": list(denying or ()) or 0.0,
        }
        point = {"iou": iou, "class_agnostic": class_agnostic, "scale_by_presence": is_scaled}
        config = with_decode(self._config, {**point, **everything})
        seen = [
            evidence(decode(self._images.prediction(i), *self._images.size(i), config), self._images.truth(i), ())
            for i in progress(range(len(self._images)), "joining boxes")
        ]
        return _Boxes(
            scores=np.concatenate([one["scores"] for one in seen]),
            labels=np.concatenate([one["labels"] for one in seen]),
            hits=np.concatenate([self._hits(one) for one in seen]),
            counted=np.concatenate([self._counted(one) for one in seen]),
            presence=np.concatenate([self._presence(i, one["labels"]) for i, one in enumerate(seen)]),
            starts=np.cumsum([0, *(len(one["labels"]) for one in seen)]),
            num_true=count_true(seen, self._num_classes),
        )

    def _hits(self, one: Evidence) -> np.ndarray:
        if self._metric in OVER_IOU:
            return match_voc(one, OVER_IOU[self._metric])
        is_coco_metric = is_coco(self._metric)
        return match(one, np.array(coco_thresholds(self._metric)) if is_coco_metric else THRESHOLDS[self._metric])

    def _presence(self, index: int, labels: np.ndarray) -> np.ndarray:
        said = self._images.prediction(index).get(PRESENCE)
        return np.ones(len(labels), dtype=np.float32) if said is None else said[labels]

    def _counted(self, one: Evidence) -> np.ndarray:
        most = COCO_MOST_BOXES if is_coco(self._metric) else len(one["labels"])
        counted = np.zeros(len(one["labels"]), dtype=bool)
        for label in np.unique(one["labels"]):
            counted[np.flatnonzero(one["labels"] == label)[:most]] = True
        return counted


def _before(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Count the true values before each place."""
    sums = np.concatenate([np.zeros((1, *values.shape[1:]), dtype=np.int64), np.cumsum(values, axis=0)])
    return sums[places]
