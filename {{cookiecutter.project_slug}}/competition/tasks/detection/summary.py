"""What a prediction says of an image in a few numbers, by which runs are compared."""

import numpy as np

from competition.task import Prediction

CELLS = 8  # along a side


def summary(prediction: Prediction, height: int, width: int, num_classes: int) -> np.ndarray:
    """Return (classes * CELLS * CELLS,): the scores of each class's boxes, added up in the cells of a grid over the
    image that hold their centres; networks count by their weight."""
    boxes, weights = prediction["boxes"], prediction["model_weights"]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / np.array([width, height])
    column, row = np.clip(centre * CELLS, 0, CELLS - 1).astype(np.int64).T
    found = np.zeros((num_classes, CELLS, CELLS))
    np.add.at(
        found,
        (prediction["labels"], row, column),
        prediction["scores"] * (weights / weights.sum())[prediction["model"]],
    )
    return found.ravel()
