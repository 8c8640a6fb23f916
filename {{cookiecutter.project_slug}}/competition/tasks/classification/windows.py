"""From what is said of an image's windows to what is said of the image."""

import numpy as np

from competition.task import Prediction
from competition.windows import Place


class Mean:
    """The average of what the network says of the windows: `probabilities` (classes,) or `values` (columns,)."""

    def __init__(self) -> None:
        self._each: list[Prediction] = []

    def add(self, prediction: Prediction, place: Place) -> None:
        """Take the prediction of a window."""
        self._each.append(prediction)

    def joined(self) -> Prediction:
        """Return that of the image."""
        return {key: np.mean([one[key] for one in self._each], axis=0).astype(np.float32) for key in self._each[0]}


def joining(height: int, width: int) -> Mean:
    """Begin an image."""
    return Mean()
