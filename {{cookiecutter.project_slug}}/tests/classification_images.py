"""Stored predictions of a table's images, as a search for thresholds is given them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from competition.tasks.classification.decode import decode
from competition.tasks.classification.score import evidence, scores
from competition.tasks.contract import Prediction, Table, Target


class Images:
    """What is said of each image of a table, and what is true."""

    def __init__(self, table: Table, each: Sequence[Prediction]) -> None:
        self.table, self.each = table, each

    def __len__(self) -> int:
        return len(self.each)

    def prediction(self, index: int) -> Prediction:
        return self.each[index]

    def truth(self, index: int) -> Target:
        return self.table.target(index, 9, 9)

    def size(self, index: int) -> tuple[int, int]:
        return 9, 9

    def scores(self, config: Any, rows: Sequence[int] | np.ndarray) -> dict[str, float]:
        """Return all metrics of some of the images."""
        found = [evidence(decode(self.each[row], 9, 9, config), self.truth(row), config.metrics) for row in rows]
        return scores(found, config.metrics, len(self.table.classes))

    def score(self, config: Any, rows: np.ndarray) -> float:
        """Return the first metric."""
        return self.scores(config, rows)[config.metrics[0]]
