"""How each out-of-fold image of a run was answered, from one pass over the stored predictions. No torch."""

from dataclasses import dataclass

import numpy as np

from competition.out_of_fold import OutOfFold
from competition.progress import progress
from competition.settings import Config
from competition.task import Outcome

# Images are looked at as long as their stored predictions have no more numbers than this, but always some.
MOST_NUMBERS, FEWEST, MOST = 200_000_000, 1000, 50_000
NUM_SAMPLED = 20  # images by which the numbers of a prediction are counted


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of the images `rows` (m,) of all, in ascending order."""

    images: OutOfFold
    rows: np.ndarray
    each: list[Outcome]

    @property
    def is_sample(self) -> bool:
        """Whether there are images that were not looked at."""
        return len(self.rows) < len(self.images)


def look_at(config: Config, images: OutOfFold) -> Outcomes:
    """Decode the images' predictions once and compare them with the truth."""
    rows, task, num_classes = affordable(images, MOST_NUMBERS, FEWEST, MOST), images.task, len(images.table.classes)
    each = []
    for row in progress(rows.tolist(), "out-of-fold images"):
        prediction = images.prediction(row)
        answer = task.decode.decode(prediction, *images.size(row), config)
        each.append(task.outcome.outcome(prediction, answer, images.truth(row), num_classes))
    return Outcomes(images, rows, each)


def affordable(images: OutOfFold, most_numbers: int, fewest: int, most: int) -> np.ndarray:
    """Return (m,) numbers of all images, ascending, or of some by chance where predictions have too many numbers."""
    some = np.unique(np.linspace(0, len(images) - 1, NUM_SAMPLED).round().astype(int)).tolist()
    numbers = np.mean([sum(values.size for values in images.prediction(row).values()) for row in some])
    number = int(np.clip(most_numbers / max(numbers, 1), fewest, most))
    return np.sort(np.random.default_rng(0).permutation(len(images))[:number])
