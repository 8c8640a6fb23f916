"""Which thresholds score best on out-of-fold predictions.

For metrics of pixel counts every combination of two thresholds and an area is tried in one pass, and of each threshold
of presence where a head tells it; for any other metric one setting of one class at a time, coarse steps, then fine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np

from competition.config.settings import with_decode
from competition.support.progress import progress
from competition.tasks.contract import Prediction, Scored, Search, Target
from competition.tasks.maps import resize_probabilities
from competition.tasks.presence import PRESENCE
from competition.tasks.segmentation.decode import class_mask
from competition.tasks.segmentation.resize import resize_mask
from competition.tasks.segmentation.score import OF_COUNTS, image_scores, is_counted
from competition.tasks.segmentation.settings import TaskConfig

THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.025), 3)
# Areas as shares of an image: none, then from a sixteen-thousandth to an eighth in steps of the square root of two.
SHARES = np.concatenate([[0.0], 2.0 ** np.arange(-14, -2.9, 0.5)])
PRESENCES = (0.0, *np.round(np.arange(0.05, 0.96, 0.05), 2).tolist())  # thresholds of it; the first leaves it out
SAME = 1e-12  # scores that differ by less are the same


@dataclass(frozen=True)
class Cut:
    """What is found for one class; areas in pixels of the answer."""

    top: float
    min_area: int
    bottom: float
    min_component: int = 0
    least_presence: float = 0.0


class CountSearch:
    """Counts of every image: pixels over each threshold, those of them that are true, and true pixels."""

    def __init__(
        self, config: TaskConfig, images: Scored, num_classes: int, thresholds: np.ndarray = THRESHOLDS
    ) -> None:
        self.config, self.images, self.metric = config, images, config.metrics[0]
        self.thresholds = np.asarray(thresholds, dtype=np.float32)
        shape = (len(images), num_classes, len(thresholds))
        self.predicted, self.overlap = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self.true = np.zeros(shape[:2], np.int32)
        pixels, said = np.zeros(len(images)), list[np.ndarray]()
        for index in progress(range(len(images)), "counting pixels"):
            height, width = config.answer_size(*images.size(index))
            pixels[index] = height * width
            truth = resize_mask(images.truth(index)["mask"], height, width)
            prediction = images.prediction(index)
            said += [prediction[key] for key in (PRESENCE,) if key in prediction]
            for k, one in enumerate(prediction["probabilities"]):
                layer = truth[:, :, k]
                self.true[index, k] = np.count_nonzero(layer)
                self.predicted[index, k], self.overlap[index, k] = self._count(
                    resize_probabilities(one, height, width), layer
                )
        # (n, classes) what a second head says; none where an image lacks it.
        self.presence = np.stack(said) if said and len(said) == len(images) else None
        self.areas = np.unique(np.round(SHARES * np.median(pixels)).astype(int)) if len(images) else np.zeros(1, int)

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the keys of `decode:` that score best on the images `rows`, a list of a value a class each."""
        cuts = self._components(rows, self._cuts(rows))
        found = {
            "threshold": [cut.top for cut in cuts],
            "min_area": [cut.min_area for cut in cuts],
            "bottom_threshold": [cut.bottom for cut in cuts],
            "min_component": [cut.min_component for cut in cuts],
        }
        if self.presence is not None:
            found["presence_threshold"] = [cut.least_presence for cut in cuts]
        return found

    def _count(self, probabilities: np.ndarray, layer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (thresholds,) pixels over each threshold, and those of them that are in the true mask."""
        over = probabilities > self.thresholds[0]
        passed = np.searchsorted(self.thresholds, probabilities[over], side="left")  # thresholds a pixel is over
        counts = [np.bincount(p, minlength=len(self.thresholds) + 1) for p in (passed, passed[layer[over] > 0])]
        said, right = (np.cumsum(count[::-1])[::-1][1:] for count in counts)
        return said, right

    def _cuts(self, rows: np.ndarray) -> list[Cut]:
        """Return the best thresholds and area of each class."""
        classes = range(self.true.shape[1])
        if self.metric != "global_dice":
            return [self._cut(rows, k, 0.0) for k in classes]
        # A ratio of sums is best where 2 overlap - level * total is, with the level that this best has (Dinkelbach).
        level, cuts = 0.0, [self._cut(rows, k, 0.0) for k in classes]
        while (better := self._global_dice(rows, cuts)) > level + SAME:
            level = better
            cuts = [self._cut(rows, k, level) for k in classes]
        return cuts

    def _cut(self, rows: np.ndarray, number: int, level: float) -> Cut:
        """Score every combination for one class, of the images that have it by each threshold of presence."""
        best, cut = self._cut_of(rows, number, level)
        for least in PRESENCES[1:] if self.presence is not None else ():
            score, found = self._cut_of(rows[self._has_class(rows, number, least)], number, level)
            if score > best + SAME * len(rows):
                best, cut = score, replace(found, least_presence=least)
        return cut

    def _has_class(self, rows: np.ndarray, number: int, least: float) -> np.ndarray:
        """Return (rows,) bool: which images have a class by the second head, if there is one."""
        if self.presence is None:
            return np.ones(len(rows), dtype=bool)
        return self.presence[rows, number] >= np.float32(least)

    def _cut_of(self, rows: np.ndarray, number: int, level: float) -> tuple[float, Cut]:
        """Score every combination for one class of images that have it; of equal ones take the plainest. Return also
        what it adds to empty masks."""
        predicted, overlap = self.predicted[rows, number], self.overlap[rows, number]
        true = self.true[rows, number][:, None]
        with_mask = self._gain(overlap, predicted, true, level)
        without = self._gain(np.zeros_like(true), np.zeros_like(true), true, level)
        gain = with_mask - without
        # What a combination adds to empty masks everywhere: (tops, areas, bottoms), bottoms up to the top.
        added = np.full((len(self.thresholds), len(self.areas), len(self.thresholds)), -np.inf)
        for top in range(len(self.thresholds)):
            has_class = predicted[:, top, None] >= np.maximum(self.areas, 1)
            added[top, :, : top + 1] = has_class.T.astype(np.float64) @ gain[:, : top + 1]
        equal = np.argwhere(added >= added.max() - SAME * max(len(rows), 1))
        top, area, bottom = min(equal, key=lambda at: self._oddness(*at))
        return float(added.max()), Cut(self._threshold(top), int(self.areas[area]), self._threshold(bottom))

    def _oddness(self, top: int, area: int, bottom: int) -> tuple[Any, ...]:
        return top != bottom, round(abs(float(self.thresholds[top]) - 0.5), 3), area, -bottom

    def _threshold(self, index: int) -> float:
        return round(float(self.thresholds[index]), 6)

    def _gain(self, overlap: np.ndarray, predicted: np.ndarray, true: np.ndarray, level: float) -> np.ndarray:
        """Return what each image adds to the score."""
        if self.metric == "global_dice":
            return 2.0 * overlap - level * (predicted.astype(np.float64) + true)
        return image_scores(self.metric, overlap, predicted, true) * is_counted(self.metric, true)

    def _global_dice(self, rows: np.ndarray, cuts: list[Cut]) -> float:
        overlap, total = 0, 0
        for k, cut in enumerate(cuts):
            top, bottom = (int(np.searchsorted(self.thresholds, np.float32(t))) for t in (cut.top, cut.bottom))
            has_class = self._has_class(rows, k, cut.least_presence)
            has_class &= self.predicted[rows, k, top] >= max(cut.min_area, 1)
            overlap += int(self.overlap[rows, k, bottom][has_class].sum())
            total += int(self.predicted[rows, k, bottom][has_class].sum() + self.true[rows, k].sum(dtype=np.int64))
        return 2 * overlap / total if total else 0.0

    def _components(self, rows: np.ndarray, cuts: list[Cut]) -> list[Cut]:
        """Add to each class the least size of connected parts, found by one more look at the pixels."""
        shape = (len(rows), len(cuts), len(self.areas))
        predicted, overlap = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        has_class = np.stack([self._has_class(rows, k, cut.least_presence) for k, cut in enumerate(cuts)], axis=1)
        for place, index in enumerate(rows):
            size = self.config.answer_size(*self.images.size(index))
            truth = resize_mask(self.images.truth(index)["mask"], *size)
            for k, (one, cut) in enumerate(zip(self.images.prediction(index)["probabilities"], cuts, strict=True)):
                mask = class_mask(one, *size, cut.top, cut.min_area, cut.bottom, 0) * has_class[place, k]
                areas, inside = component_counts(mask, truth[:, :, k])
                keep = areas[:, None] >= self.areas
                predicted[place, k], overlap[place, k] = areas @ keep, inside @ keep
        level = self._global_dice(rows, cuts) if self.metric == "global_dice" else 0.0
        found = []
        for k, cut in enumerate(cuts):
            gain = partial(self._gain, level=level)(overlap[:, k], predicted[:, k], self.true[rows, k][:, None]).sum(0)
            least = int(np.flatnonzero(gain >= gain.max() - SAME * len(rows))[0])
            found.append(replace(cut, min_component=int(self.areas[least])))
        return found


def component_counts(mask: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (parts,) pixels of each connected part of a mask (h, w), and those of them that are in the truth."""
    if not mask.any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    number, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    inside = np.bincount(labels[truth > 0], minlength=number)
    return stats[1:, cv2.CC_STAT_AREA].astype(np.int64), inside[1:]


NAMES = ("threshold", "min_area", "bottom_threshold", "min_component")
OF_PRESENCE = "presence_threshold"
COARSE_THRESHOLDS = (0.2, 0.35, 0.65, 0.8)
COARSE_PRESENCES = (0.1, 0.3, 0.5, 0.7)
COARSE_BOTTOMS = (-0.15, -0.3)  # beside the threshold
FINE_STEP = 0.075
COARSE_SHARES = (2.0**-12, 2.0**-9, 2.0**-6)  # areas as shares of an image
Lists = dict[str, list[Any]]


class CoordinateSearch:
    """Scores whole settings: the given one, and at most 20 a class, or 26 where a second head tells presence."""

    def __init__(self, config: TaskConfig, images: Scored, num_classes: int) -> None:
        self.config, self.images, self.num_classes = config, images, num_classes
        sizes = [np.prod(config.answer_size(*images.size(index))) for index in range(len(images))]
        self.pixels = float(np.median(sizes)) if sizes else 0.0

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the keys of `decode:` that score best on the images `rows`, a list of a value a class each."""
        each = [self.config.decode.of_class(number) for number in range(self.num_classes)]
        found: Lists = {name: list(values) for name, values in zip(NAMES, zip(*each, strict=True), strict=True)}
        if len(self.images) and PRESENCE in self.images.prediction(0):
            least = self.config.decode.presence_threshold
            found[OF_PRESENCE] = least if isinstance(least, list) else [least] * self.num_classes
        best = self._score(found, rows)
        for number in range(self.num_classes):
            for name in list(found):
                for is_coarse in (True, False):
                    # Candidates are made before any is taken: those of a step lie around one value.
                    for changed in self._candidates(found, name, number, is_coarse=is_coarse):
                        score = self._score(changed, rows)
                        if score > best:
                            found, best = changed, score
        return found

    def _score(self, settings: Lists, rows: np.ndarray) -> float:
        return self.images.score(with_decode(self.config, settings), rows)

    def _candidates(self, found: Lists, name: str, number: int, *, is_coarse: bool) -> list[Lists]:
        """Return settings that differ from those found in one value of one class."""
        now, top = found[name][number], found["threshold"][number]
        if name in ("min_area", "min_component"):
            # From zero, fine steps go below the least of the coarse ones.
            least = round(COARSE_SHARES[0] * self.pixels)
            fine = [now // 2, now * 2] if now else [least // 2, least // 4]
            values = [round(share * self.pixels) for share in COARSE_SHARES] if is_coarse else fine
        elif name == OF_PRESENCE:
            values = COARSE_PRESENCES if is_coarse else [round(now - 0.1, 4), round(now + 0.1, 4)]
        elif is_coarse:
            values = COARSE_THRESHOLDS if name == "threshold" else [round(top + step, 4) for step in COARSE_BOTTOMS]
        else:
            values = [round(now - FINE_STEP, 4), round(now + FINE_STEP, 4)]
        allowed = [value for value in values if value != now and (isinstance(value, int) or 0 < value < 1)]
        return [self._with(found, name, number, value) for value in allowed]

    def _with(self, found: Lists, name: str, number: int, value: float) -> Lists:
        """Return the settings with one value changed; a bottom threshold that is the top one goes with it."""
        changed = {key: list(values) for key, values in found.items()}
        if name == "threshold" and changed["bottom_threshold"][number] == changed["threshold"][number]:
            changed["bottom_threshold"][number] = value
        changed[name][number] = value
        return changed


PIXELS_AN_IMAGE = 400  # that weights of models are found on


def search(config: TaskConfig, images: Scored, num_classes: int) -> Search:
    """Prepare a search over the images."""
    is_counted = config.host_metric is None and config.metrics[0] in OF_COUNTS
    is_counted &= config.format.train.ignore is None  # areas are of all pixels, scores of those that count
    if not is_counted or config.decode.model_dump(exclude={*NAMES, OF_PRESENCE}, exclude_defaults=True):
        return CoordinateSearch(config, images, num_classes)
    return CountSearch(config, images, num_classes)


def regression_sample(
    predictions: Sequence[Prediction], truth: Target, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (k, models) probabilities of some pixels, any class, at the finest model's resolution and (k,) the truth.

    The same `seed` gives the same pixels.
    """
    num_classes, height, width = max((one["probabilities"].shape for one in predictions), key=np.prod)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(num_classes * height * width, size=PIXELS_AN_IMAGE)
    if "ignored" in truth:
        chosen = chosen[resize_mask(truth["ignored"], height, width).reshape(-1)[chosen % (height * width)] == 0]
    models = [
        np.stack([resize_probabilities(one, height, width) for one in prediction["probabilities"]]).reshape(-1)[chosen]
        for prediction in predictions
    ]
    mask = resize_mask(truth["mask"], height, width).transpose(2, 0, 1).reshape(-1)
    return np.stack(models, axis=1).astype(np.float64), mask[chosen].astype(np.float64)
