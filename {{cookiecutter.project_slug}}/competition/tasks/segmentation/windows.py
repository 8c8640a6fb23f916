"""From the masks of an image's windows to that of the image."""

import numpy as np

from competition.task import Prediction
from competition.tasks.segmentation.resize import resize_probabilities
from competition.windows import Blend, Place


class BlendedMasks:
    """`probabilities` (classes, h, w) of windows, blended into (classes, height, width) float16 at full resolution."""

    def __init__(self, height: int, width: int) -> None:
        self._blend = Blend(height, width)

    def add(self, prediction: Prediction, place: Place) -> None:
        """Take the prediction of a window."""
        maps = [resize_probabilities(one, place.height, place.width) for one in prediction["probabilities"]]
        self._blend.add(np.stack(maps), place)

    def joined(self) -> Prediction:
        """Return that of the image."""
        return {"probabilities": self._blend.mean().astype(np.float16)}


def joining(height: int, width: int) -> BlendedMasks:
    """Begin an image."""
    return BlendedMasks(height, width)
