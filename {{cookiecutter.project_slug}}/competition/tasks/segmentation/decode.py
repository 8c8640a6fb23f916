"""From stored probabilities to masks in pixels of the original image."""

from collections.abc import Sequence

import cv2
import numpy as np

from competition.task import Prediction, Target
from competition.tasks.segmentation.settings import TaskConfig


def average(
    predictions: Sequence[Prediction], config: TaskConfig, weights: Sequence[float] | None = None
) -> Prediction:
    """Average `probabilities` (classes, h, w) of several networks; those of another resolution are resized first."""
    _, height, width = predictions[0]["probabilities"].shape
    maps = [_resize(p["probabilities"], height, width) for p in predictions]
    mean = np.average(np.stack(maps), axis=0, weights=weights)
    return {"probabilities": mean.astype(np.float16)}


def _resize(probabilities: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return (classes, height, width) float32."""
    as_float = probabilities.astype(np.float32)
    if probabilities.shape[1:] == (height, width):
        return as_float
    return np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in as_float])


def decode(prediction: Prediction, height: int, width: int, config: TaskConfig) -> Target:
    """Return `mask` (height, width, classes) of 0 and 1.

    Probabilities are resized first and cut at the threshold then: the other way round loses small structures.
    """
    settings = config.decode
    channels = []
    for probabilities in prediction["probabilities"]:
        full = cv2.resize(probabilities.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        mask = (full > settings.threshold).astype(np.uint8)
        channels.append(mask if int(mask.sum()) >= settings.min_area else np.zeros_like(mask))
    return {"mask": np.stack(channels, axis=-1)}
