"""From what is said of an image's windows to what is said of the image."""

from collections.abc import Sequence

import numpy as np

from competition.task import Prediction
from competition.windows import Place


def join_windows(predictions: Sequence[Prediction], places: Sequence[Place], height: int, width: int) -> Prediction:
    """Average what the network says of the windows: `probabilities` (classes,) or `values` (columns,)."""
    return {key: np.mean([p[key] for p in predictions], axis=0).astype(np.float32) for key in predictions[0]}
