"""Pseudo-labels of another run (`data.pseudo`) as training rows: never validated on, in no fold. No torch."""

import numpy as np

from competition.config.settings import Config
from competition.data.folds import is_validated
from competition.tasks.contract import Table, Target, Task


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
