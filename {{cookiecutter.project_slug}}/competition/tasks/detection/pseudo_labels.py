"""Predicted boxes as training rows: how sure they are, and how they are written."""

from collections.abc import Sequence

from competition.tasks.contract import Prediction, Target
from competition.tasks.detection.settings import DetectionFormat, TaskConfig


def own_format(config: TaskConfig, columns: Sequence[str] = ()) -> DetectionFormat:
    """Return the format of `image_id,class_id,x,y,w,h`, whatever the competition's is."""
    return DetectionFormat()


def confidence(prediction: Prediction, answer: Target, config: TaskConfig) -> float:
    """Return the mean score of the boxes, or 1 - the largest score of any where there is none."""
    if len(answer["scores"]):
        return float(answer["scores"].mean())
    return 1 - float(prediction["scores"].max(initial=0))


def confidence_name(config: TaskConfig) -> str:
    """Return what that number of an image is, in a few words."""
    return "the mean score of its boxes, or without any 1 - the largest score"


def is_soft(config: TaskConfig) -> bool:
    """Return whether rows tell how sure they are: a box is there or not."""
    return False


def label_columns(classes: tuple[str, ...], config: TaskConfig) -> list[str]:
    """Return the columns of a csv file of labels."""
    return ["image_id", "class_id", "x", "y", "w", "h"]


def label_rows(
    image_id: str, answer: Target, height: int, width: int, classes: tuple[str, ...], config: TaskConfig
) -> list[list[str]]:
    """Return a row a box; an image without any has one row without a box."""
    boxes = zip(answer["bboxes"].tolist(), answer["labels"].tolist(), strict=True)
    rows = [
        [image_id, classes[label], *(f"{value:.2f}" for value in (x1, y1, x2 - x1, y2 - y1))]
        for (x1, y1, x2, y2), label in boxes
    ]
    return rows or [[image_id, "", "", "", "", ""]]
