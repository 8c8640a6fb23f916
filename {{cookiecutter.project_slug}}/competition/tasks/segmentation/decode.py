"""From stored probabilities to masks in pixels of the original image."""

from collections.abc import Sequence

import cv2
import numpy as np

from competition.task import Prediction, Target
from competition.tasks.segmentation.settings import TaskConfig


def average(predictions: Sequence[Prediction], config: TaskConfig) -> Prediction:
    """Average `probabilities` (classes, h, w) of several networks."""
    mean = np.stack([p["probabilities"] for p in predictions]).astype(np.float32).mean(axis=0)
    return {"probabilities": mean.astype(np.float16)}


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
