"""Predicted points as training rows: how sure they are, and how they are written."""

from collections.abc import Sequence

from competition.tasks.contract import Prediction, Target
from competition.tasks.points.settings import PointsFormat, TaskConfig


def own_format(config: TaskConfig, columns: Sequence[str] = ()) -> PointsFormat:
    """Return the format of `image_id,class_id,x,y`, whatever the competition's is."""
    return PointsFormat()


def confidence(prediction: Prediction, answer: Target, config: TaskConfig) -> float:
    """Return the mean score of the points, or 1 - the greatest height of any class where there is none."""
    if len(answer["scores"]):
        return float(answer["scores"].mean())
    return 1 - float(prediction["heatmap"].max(initial=0))


def confidence_name(config: TaskConfig) -> str:
    """Return what that number of an image is, in a few words."""
    return "the mean score of its points, or without any 1 - the greatest height"


def is_soft(config: TaskConfig) -> bool:
    """Return whether rows tell how sure they are: a point is there or not."""
    return False


def label_columns(classes: tuple[str, ...], config: TaskConfig) -> list[str]:
    """Return the columns of a csv file of labels."""
    return ["image_id", "class_id", "x", "y"]


def label_rows(
    image_id: str, answer: Target, height: int, width: int, classes: tuple[str, ...], config: TaskConfig
) -> list[list[str]]:
    """Return a row a point; an image without any has one row without a point."""
    points = zip(answer["keypoints"].tolist(), answer["labels"].tolist(), strict=True)
    rows = [[image_id, classes[label], f"{x:.2f}", f"{y:.2f}"] for (x, y), label in points]
    return rows or [[image_id, "", "", ""]]
