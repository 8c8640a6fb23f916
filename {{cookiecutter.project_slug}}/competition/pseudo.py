"""`competition pseudo RUN`: confident test predictions as training rows, which join the training part of every fold.

They stand in pseudo.csv in the project's own format, whatever the competition's is, as no one else reads the file. They
are never validated on and have no fold. No torch.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from competition.errors import CompetitionError
from competition.files import write_csv
from competition.folds import is_validated
from competition.predictions import Predictions
from competition.progress import progress
from competition.runs import TEST, Run
from competition.settings import Config
from competition.task import Table, Target, Task

PSEUDO = "pseudo.csv"
LOWER = (0.9, 0.8, 0.7, 0.6, 0.5, 0.3)  # confidences to suggest


def make_pseudo(run: Run, confidence: float) -> tuple[Path, str]:
    """Write the test images of which a run is at least so confident; return the file and a word on it.

    Raises CompetitionError where there is none.
    """
    stored = Predictions(run.folder / TEST)
    config = own_config(run.config, stored.classes)
    labels = Task(config.task).pseudo_labels
    name = f"an image's confidence is {labels.confidence_name(config)}"
    sure = np.array([confident for *_, confident in _answers(run.config, stored)])
    number = int((sure >= confidence).sum())
    if not number:
        others = ", ".join(f"{(sure >= lower).sum()} at {lower:g}" for lower in LOWER if lower < confidence)
        raise CompetitionError(
            f"--confidence {confidence:g}: no test image is as sure; the surest is {sure.max(initial=0):.3f}; of "
            f"{len(sure)} images there are {others or 'none'}; {name}"
        )
    rows = (
        row
        for image_id, answer, size, confident in _answers(run.config, stored)
        if confident >= confidence
        for row in labels.label_rows(image_id, answer, *size, stored.classes, config)
    )
    path = run.folder / PSEUDO
    write_csv(path, labels.label_columns(stored.classes, config), rows)
    words = f"{number} of {len(stored)} test images, those of confidence {confidence:g} or more ({name})"
    return path, f"{words}; train with data.pseudo={path} and another name=..."


def own_config(config: Config, classes: tuple[str, ...]) -> Config:
    """Return the config with the project's own format, in which pseudo.csv is written."""
    data = config.data.model_copy(update={"classes": list(classes), "absent_images": "ignore", "group": None})
    return config.model_copy(update={"data": data, "format": Task(config.task).pseudo_labels.own_format(config)})


def training_part(config: Config, table: Table, folds: np.ndarray) -> tuple[Table, np.ndarray]:
    """Return the images of a fold's training part: a table, and its rows (n,), with those of `data.pseudo`."""
    rows = np.flatnonzero(~is_validated(config, folds))
    if config.data.pseudo is None:
        return table, rows
    pseudo = Task(config.task).table.read_table(own_config(config, table.classes), config.data.pseudo)
    joined = JoinedTable(table, pseudo)
    return joined, np.concatenate([rows, np.arange(len(table.image_ids), len(joined.image_ids))])


class JoinedTable:
    """train.csv and, behind it, pseudo.csv: a Table whose last images lie in the folder of test images.

    Test images that are training images, too, have an answer already and are left out.
    """

    def __init__(self, own: Table, pseudo: Table) -> None:
        self.own, self.pseudo = own, pseudo
        known = set(own.image_ids.tolist())
        self._kept = np.array([row for row, one in enumerate(pseudo.image_ids) if one not in known], dtype=np.int64)
        self.classes = own.classes
        self.image_ids = np.concatenate([own.image_ids, pseudo.image_ids[self._kept]])
        self.lines = np.concatenate([own.lines, np.zeros(len(self._kept), dtype=np.int64)])
        alone = np.full(len(self._kept), "", dtype=object)
        self.groups = None if own.groups is None else np.concatenate([own.groups, alone])

    def is_pseudo(self, index: int) -> bool:
        """Return whether an image is one of the test images."""
        return index >= len(self.own.image_ids)

    def target(self, index: int, height: int, width: int) -> Target:
        """Return the answer for one image in pixels of the original image."""
        if not self.is_pseudo(index):
            return self.own.target(index, height, width)
        return self.pseudo.target(int(self._kept[index - len(self.own.image_ids)]), height, width)

    def present(self) -> np.ndarray:
        """Return (n, classes), true where an image has a mask or box of a class, or bears its label."""
        return np.concatenate([self.own.present(), self.pseudo.present()[self._kept]])

    def strata(self) -> np.ndarray:
        """Return (n,) int codes."""
        return np.concatenate([self.own.strata(), self.pseudo.strata()[self._kept]])

    def amounts(self) -> np.ndarray:
        """Return (n,) float: how much is on an image."""
        return np.concatenate([self.own.amounts(), self.pseudo.amounts()[self._kept]])

    def summary(self) -> list[str]:
        """Describe the answers in a few lines."""
        return [*self.own.summary(), f"pseudo-labels: {len(self._kept)} test images"]


def _answers(config: Config, stored: Predictions) -> Iterator[tuple[str, Target, tuple[int, int], float]]:
    """Yield image id, answer by the run's own thresholds and at their size, size of the image, and confidence."""
    task = Task(config.task)
    for image_id, (height, width), prediction in progress(stored, "decoding", len(stored)):
        answer = task.decode.decode(prediction, height, width, config)
        yield image_id, answer, (height, width), task.pseudo_labels.confidence(prediction, answer, config)
