"""What points say of their image, and how they compare with the true ones."""

from collections.abc import Sequence

import cv2
import numpy as np

from competition.config.settings import Config
from competition.tasks.contract import Outcome, Prediction, Target
from competition.tasks.found_items import CELLS, classes_present, outcome_of_items
from competition.tasks.points.metrics import match
from competition.tasks.points.score import evidence


def outcome(prediction: Prediction, answer: Target, truth: Target, num_classes: int) -> Outcome:
    """Score by the average precision of the image's points, of all classes in one; where there is nothing to find, by
    how unsure the surest point is."""
    known = evidence(answer, truth, ())
    return outcome_of_items(known["labels"], known["scores"], match(known), known["true_labels"], num_classes)


def score_name(config: Config) -> str:
    """Return what an outcome's score is."""
    return "average precision"


def threshold_names(config: Config) -> Sequence[str]:
    """Return the score from which a point is handed in."""
    return ["min_score"]


def present(answer: Target, num_classes: int) -> np.ndarray:
    """Return (classes,) bool: which classes have a point."""
    return classes_present(answer["labels"], num_classes)


def summary(prediction: Prediction, height: int, width: int, num_classes: int) -> np.ndarray:
    """Return (classes * CELLS * CELLS,): the mean height of each class in the cells of a grid over the image."""
    heatmap = prediction["heatmap"].astype(np.float32)
    return np.stack([cv2.resize(layer, (CELLS, CELLS), interpolation=cv2.INTER_AREA) for layer in heatmap]).ravel()
