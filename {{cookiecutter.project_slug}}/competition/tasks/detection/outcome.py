"""What boxes say of their image, and how they compare with the true ones, at an IoU of one half."""

from collections.abc import Sequence

import numpy as np

from competition.config.settings import Config
from competition.tasks.contract import Outcome, Prediction, Target
from competition.tasks.detection.metrics import match
from competition.tasks.detection.score import evidence

IOU = np.array([0.5])


def outcome(prediction: Prediction, answer: Target, truth: Target, num_classes: int) -> Outcome:
    """Score by the average precision of the image's boxes, of all classes in one; where there is nothing to find, by
    how unsure the surest box is."""
    boxes = evidence(answer, truth, ())
    hits = match(boxes, IOU)[:, 0]
    scores, num_true = boxes["scores"].astype(np.float64), len(boxes["true_labels"])
    found = hits[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(found) / np.arange(1, len(found) + 1)
    return Outcome(
        score=float(precision[found].sum() / num_true) if num_true else 1 - float(scores.max(initial=0)),
        too_much=float(scores[~hits].max(initial=0)),
        too_little=num_true - float(scores[hits].sum()),
        labels=boxes["labels"].astype(np.int64),
        confidences=scores,
        hits=hits,
        num_true=np.bincount(boxes["true_labels"].astype(np.int64), minlength=num_classes),
    )


def score_name(config: Config) -> str:
    """Return what an outcome's score is."""
    return "average precision"


def threshold_names(config: Config) -> Sequence[str]:
    """Return the score from which a box is handed in."""
    return ["min_score"]


def present(answer: Target, num_classes: int) -> np.ndarray:
    """Return (classes,) bool: which classes have a box."""
    return np.bincount(answer["labels"], minlength=num_classes) > 0


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
