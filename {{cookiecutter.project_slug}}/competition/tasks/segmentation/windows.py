"""From the masks of an image's windows to that of the image."""

from collections.abc import Sequence

import numpy as np

from competition.task import Prediction
from competition.tasks.segmentation.resize import resize_probabilities
from competition.windows import Place, blend


def join_windows(predictions: Sequence[Prediction], places: Sequence[Place], height: int, width: int) -> Prediction:
    """Blend `probabilities` (classes, h, w) of windows into (classes, height, width) float16 at full resolution."""
    maps = [_at_full_size(p["probabilities"], place) for p, place in zip(predictions, places, strict=True)]
    return {"probabilities": blend(maps, list(places), height, width).astype(np.float16)}


def _at_full_size(probabilities: np.ndarray, place: Place) -> np.ndarray:
    return np.stack([resize_probabilities(one, place.height, place.width) for one in probabilities])
