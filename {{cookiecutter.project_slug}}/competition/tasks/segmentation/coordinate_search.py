"""The search for the best masks under any metric: one setting of one class at a time, coarse steps, then fine."""

from typing import Any

import numpy as np

from competition.settings import with_decode
from competition.task import Scored
from competition.tasks.segmentation.settings import TaskConfig

NAMES = ("threshold", "min_area", "bottom_threshold", "min_component")
COARSE_THRESHOLDS = (0.2, 0.35, 0.65, 0.8)
COARSE_BOTTOMS = (-0.15, -0.3)  # beside the threshold
FINE_STEP = 0.075
COARSE_SHARES = (2.0**-12, 2.0**-9, 2.0**-6)  # areas as shares of an image
Lists = dict[str, list[Any]]


class CoordinateSearch:
    """Scores whole settings: the given one, and at most 20 a class."""

    def __init__(self, config: TaskConfig, images: Scored, num_classes: int) -> None:
        self.config, self.images, self.num_classes = config, images, num_classes
        sizes = [np.prod(config.answer_size(*images.size(index))) for index in range(len(images))]
        self.pixels = float(np.median(sizes)) if sizes else 0.0

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the keys of `decode:` that score best on the images `rows`, a list of a value a class each."""
        each = [self.config.decode.of_class(number) for number in range(self.num_classes)]
        found: Lists = {name: list(values) for name, values in zip(NAMES, zip(*each, strict=True), strict=True)}
        best = self._score(found, rows)
        for number in range(self.num_classes):
            for name in NAMES:
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
