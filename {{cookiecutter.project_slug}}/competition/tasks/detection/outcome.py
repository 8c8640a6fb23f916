"""What boxes say of their image, and how they compare with the true ones, at an IoU of one half."""

from collections.abc import Sequence

import numpy as np

from competition.config.settings import Config
from competition.tasks.contract import Outcome, Prediction, Target
from competition.tasks.detection.metrics import match
from competition.tasks.detection.score import evidence
from competition.tasks.found_items import CELLS, classes_present, outcome_of_items

IOU = np.array([0.5])


def outcome(prediction: Prediction, answer: Target, truth: Target, num_classes: int) -> Outcome:
    """Score by the average precision of the image's boxes, of all classes in one; where there is nothing to find, by
    how unsure the surest box is."""
    boxes = evidence(answer, truth, ())
    return outcome_of_items(
        boxes["labels"], boxes["scores"], match(boxes, IOU)[:, 0], boxes["true_labels"], num_classes
    )


def score_name(config: Config) -> str:
    """Return what an outcome's score is."""
    return "average precision"


def threshold_names(config: Config) -> Sequence[str]:
    """Return the score from which a box is handed in."""
    return ["min_score"]


def present(answer: Target, num_classes: int) -> np.ndarray:
    """Return (classes,) bool: which classes have a box."""
    return classes_present(answer["labels"], num_classes)


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
