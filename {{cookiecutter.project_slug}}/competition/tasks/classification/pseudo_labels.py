"""Predicted classes as training rows: how sure they are, and how they are written."""

import numpy as np

from competition.support.errors import CompetitionError
from competition.tasks.classification.settings import ClassificationFormat, TaskConfig, TrainFormat
from competition.tasks.contract import Prediction, Target


def own_format(config: TaskConfig) -> ClassificationFormat:
    """Return the format of `image_id,label`, or of `image_id` and a column a class where an image may have several.

    Raises CompetitionError for a regression, which does not say how sure it is, and for several targets.
    """
    if config.format.targets:
        raise CompetitionError(
            "pseudo-labels: of format.targets, several answers an image, none are made; give targets of test images as "
            "rows of train.csv, with format.targets.NAME.unknown for those that nobody knows"
        )
    if config.format.target == "regression":
        raise CompetitionError("pseudo-labels: a regression does not say how sure it is of an image")
    layout = "label" if config.format.target == "single" else "columns"
    return ClassificationFormat(target=config.format.target, train=TrainFormat(layout=layout))


def confidence(prediction: Prediction, answer: Target, config: TaskConfig) -> float:
    """Return the probability of the best class, or of several classes that of the one that is the least sure."""
    probabilities = prediction["probabilities"]
    if config.format.target == "single":
        return float(probabilities.max())
    return float(np.maximum(probabilities, 1 - probabilities).min())


def confidence_name(config: TaskConfig) -> str:
    """Return what that number of an image is, in a few words."""
    if config.format.target == "single":
        return "the probability of its best class"
    return "the least sure class's probability of being there, or of not being there"


def label_columns(classes: tuple[str, ...], config: TaskConfig) -> list[str]:
    """Return the columns of a csv file of labels."""
    return ["image_id", *(["label"] if config.format.target == "single" else classes)]


def label_rows(
    image_id: str, answer: Target, height: int, width: int, classes: tuple[str, ...], config: TaskConfig
) -> list[list[str]]:
    """Return the row of an image: the best class, or 1 for each class over one half."""
    probabilities = answer["probabilities"]
    if config.format.target == "single":
        return [[image_id, classes[int(probabilities.argmax())]]]
    return [[image_id, *(str(int(probability > 0.5)) for probability in probabilities)]]
