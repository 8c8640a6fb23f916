"""Which score cut and distance between points score best on out-of-fold heatmaps. No torch.

First the cut of all classes and the distance below which a point is left out beside a better one, coarse to fine; then,
class by class, a cut of its own. A change is kept only if it scores better than what was there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from competition.config.settings import with_decode
from competition.support.progress import progress
from competition.tasks.climb import LEAST_CUT, Climb, CutPoint, look_at_cuts
from competition.tasks.contract import Prediction, Scored, Target
from competition.tasks.maps import resize_probabilities
from competition.tasks.points.decode import decode
from competition.tasks.points.metrics import joined, match, score_of_points
from competition.tasks.points.score import evidence
from competition.tasks.points.settings import TaskConfig

COARSE_CUTS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8)
FINE_CUTS = (-0.04, -0.02, -0.01, 0.01, 0.02, 0.04)  # from the best so far
CLASS_CUTS = (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2)
HIGHEST_CUT_OF_AP = 0.05
DISTANCES = (0.0, 0.5, 1.0, 1.5)  # times the distance at which a point counts as found
CELLS_A_POINT = 20  # others that weights of models are found on, beside that of a true point
EVERYTHING = 1_000_000


@dataclass(frozen=True)
class Point(CutPoint):
    """Settings of `decode:` that are looked for."""

    distance: float

    def settings(self) -> dict[str, Any]:
        """Return keys of `decode:`."""
        return {**super().settings(), "min_distance": self.distance}


class PointSearch:
    """A search for the best `decode:` of points."""

    def __init__(self, config: TaskConfig, images: Scored, num_classes: int) -> None:
        given = config.decode
        # Where classes are in each other's way every cut of one looks for all points anew: one for all is enough.
        self._own_cuts = range(num_classes if num_classes > 1 and not given.class_agnostic else 0)
        # A higher cut takes points away that can only add to average precision.
        self._has_cut = config.host_metric is not None or config.metrics[0] not in ("ap", "recall")
        cuts = given.min_score if isinstance(given.min_score, list) else [given.min_score] * num_classes
        self._start = Point(
            tuple(cuts if self._has_cut else [min(cut, HIGHEST_CUT_OF_AP) for cut in cuts]), given.min_distance
        )
        reach = float(np.mean(config.matching.distance))
        self._distances = [round(share * reach, 2) for share in DISTANCES]
        if config.host_metric is not None:
            self._objective: Callable[[Point, np.ndarray], float] = lambda point, rows: images.score(
                with_decode(config, point.settings()), rows
            )
        else:
            self._objective = LookedUp(config, images, num_classes, min(LEAST_CUT, *self._start.cuts))

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        """Return `min_score` and `min_distance` that score best on the images `rows`."""
        climb = Climb(lambda point: self._objective(point, rows), self._start)
        if self._has_cut:
            climb.look(climb.point.with_cut(lambda _, cut=cut: cut) for cut in COARSE_CUTS)
            look_at_cuts(climb, None, FINE_CUTS)
        climb.look(replace(climb.point, distance=distance) for distance in self._distances)
        if self._has_cut:
            look_at_cuts(climb, None, FINE_CUTS)
            for number in self._own_cuts:
                look_at_cuts(climb, number, CLASS_CUTS)
                look_at_cuts(climb, number, FINE_CUTS)
        return climb.point.settings()


def search(config: TaskConfig, images: Scored, num_classes: int) -> PointSearch:
    """Prepare a search over the images."""
    return PointSearch(config, images, num_classes)


class _Points(NamedTuple):
    """The points of all images, image by image, best first."""

    scores: np.ndarray  # (points,)
    labels: np.ndarray  # (points,)
    hits: np.ndarray  # (points,) bool: whether it finds a true point
    image: np.ndarray  # (points,) number of its image
    rank: np.ndarray  # (points,) place among the points of its image, from 0
    num_true: np.ndarray  # (n, classes)


class LookedUp:
    """The first metric at any cut: what a point finds depends on better points only, so it is looked up once."""

    def __init__(self, config: TaskConfig, images: Scored, num_classes: int, least_cut: float) -> None:
        """Take the images, of which points under `least_cut` will not be asked for."""
        self._config, self._images, self._num_classes, self._least_cut = config, images, num_classes, least_cut
        self._look = cache(self._points)

    def __call__(self, point: Point, rows: np.ndarray) -> float:
        """Return the score of the images `rows`, the same as of `decode` with these settings."""
        # What is under the cut of its class is gone before points of other classes are in its way.
        is_in_the_way = self._config.decode.class_agnostic and len(set(point.cuts)) > 1
        found = self._look(point.distance, point.cuts if is_in_the_way else None)
        keep = found.scores >= np.array(point.cuts, dtype=np.float32)[found.labels]
        before = np.concatenate([[0], np.cumsum(keep)])
        first = np.flatnonzero(found.rank == 0)
        place = before[:-1] - np.repeat(before[first], np.diff([*first, len(keep)]))  # among those that are kept
        keep &= (place < self._config.decode.max_points) & np.isin(found.image, rows)
        kept = found.hits[keep], found.scores[keep], found.labels[keep]
        return score_of_points(self._config.metrics[0], *kept, found.num_true[rows].sum(axis=0))

    def _points(self, distance: float, cuts: tuple[float, ...] | None) -> _Points:
        least = self._least_cut if cuts is None else list(cuts)
        settings = {"min_score": least, "min_distance": distance, "max_points": EVERYTHING}
        config, images = with_decode(self._config, settings), self._images
        seen = [
            evidence(decode(images.prediction(i), *images.size(i), config), images.truth(i), ())
            for i in progress(range(len(images)), "looking for points")
        ]
        counts = [len(one["labels"]) for one in seen]
        return _Points(
            scores=joined(seen, "scores"),
            labels=joined(seen, "labels"),
            hits=np.concatenate([match(one) for one in seen]),
            image=np.repeat(np.arange(len(seen)), counts),
            rank=np.concatenate([np.arange(count) for count in counts]),
            num_true=np.stack([np.bincount(one["true_labels"], minlength=self._num_classes) for one in seen]),
        )


def regression_sample(
    predictions: Sequence[Prediction], truth: Target, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (k, models) heights of some cells, at the finest model's resolution, and (k,) whether a point is there.

    They are the cells of true points and some by chance; the same `seed` gives the same ones.
    """
    shape = max((one["heatmap"].shape for one in predictions), key=np.prod)
    models = [np.stack([resize_probabilities(one, *shape[1:]) for one in each["heatmap"]]) for each in predictions]
    columns, rows = np.floor(truth["keypoints"] * shape[:0:-1] / truth["size"][::-1]).astype(np.int64).T
    places = (truth["labels"], np.minimum(rows, shape[1] - 1), np.minimum(columns, shape[2] - 1))
    is_point = np.zeros(shape, dtype=bool)
    is_point[places] = True
    by_chance = np.random.default_rng(seed).integers(is_point.size, size=CELLS_A_POINT * max(len(rows), 1))
    chosen = np.concatenate([np.ravel_multi_index(places, shape), by_chance])
    values = np.stack([one.reshape(-1)[chosen] for one in models], axis=1)
    return values.astype(np.float64), is_point.reshape(-1)[chosen].astype(np.float64)
