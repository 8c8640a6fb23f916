"""What a prediction says of an image in a few numbers, by which runs are compared."""

import cv2
import numpy as np

from competition.task import Prediction

CELLS = 8  # along a side


def summary(prediction: Prediction, height: int, width: int, num_classes: int) -> np.ndarray:
    """Return (classes * CELLS * CELLS,): the mean probability of each class in the cells of a grid over the image."""
    probabilities = prediction["probabilities"].astype(np.float32)
    return np.stack([cv2.resize(one, (CELLS, CELLS), interpolation=cv2.INTER_AREA) for one in probabilities]).ravel()
