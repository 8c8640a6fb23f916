"""Predicted classes as training rows: how sure they are, and how they are written."""

from collections.abc import Sequence

import numpy as np

from competition.support.errors import CompetitionError
from competition.tasks.classification.kinds.find import kind_of
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.settings.format import ClassificationFormat, TrainFormat
from competition.tasks.contract import Prediction, Target


def own_format(config: TaskConfig, columns: Sequence[str] = ()) -> ClassificationFormat:
    """Return the format of `image_id` and a column a class with its probability, or of `image_id,label`, where there
    is such a column, as earlier versions wrote it.

    Raises CompetitionError for a regression, which does not say how sure it is, and for several targets.
    """
    if config.format.targets:
        raise CompetitionError(
            "pseudo-labels: of format.targets, several answers an image, none are made; give targets of test images as "
            "rows of train.csv, with format.targets.NAME.unknown for those that nobody knows"
        )
    if config.format.target == "regression":
        raise CompetitionError("pseudo-labels: a regression does not say how sure it is of an image")
    layout = "label" if config.format.target == "single" and "label" in columns else "probabilities"
    return ClassificationFormat(target=config.format.target, train=TrainFormat(layout=layout))


def confidence(prediction: Prediction, answer: Target, config: TaskConfig) -> float:
    """Return the probability of the best class, or of several classes that of the one that is the least sure."""
    return kind_of(config).confidence(prediction["probabilities"])


def confidence_name(config: TaskConfig) -> str:
    """Return what that number of an image is, in a few words."""
    return kind_of(config).confidence_name


def is_soft(config: TaskConfig) -> bool:
    """Return whether rows tell how sure they are: of classes, which learn from probabilities."""
    return True


def label_columns(classes: tuple[str, ...], config: TaskConfig) -> list[str]:
    """Return the columns of a csv file of labels."""
    return ["image_id", *classes]


def label_rows(
    image_id: str, answer: Target, height: int, width: int, classes: tuple[str, ...], config: TaskConfig
) -> list[list[str]]:
    """Return the row of an image: the probability of each class."""
    probabilities = np.asarray(answer["probabilities"], dtype=np.float64)
    if config.format.target == "single":
        probabilities = probabilities / probabilities.sum()
    return [[image_id, *(f"{probability:.5f}" for probability in probabilities)]]
