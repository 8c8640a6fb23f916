"""Predicted masks as training rows: how sure they are, and how they are written."""

from collections.abc import Sequence

import numpy as np

from competition.tasks.contract import Prediction, Target
from competition.tasks.maps import resize_probabilities
from competition.tasks.segmentation.formats.rle import encode_rle
from competition.tasks.segmentation.resize import resize_mask
from competition.tasks.segmentation.settings import SegmentationFormat, TaskConfig


def own_format(config: TaskConfig, columns: Sequence[str] = ()) -> SegmentationFormat:
    """Return the format of `image_id,class_id,rle`, whatever the competition's is."""
    return SegmentationFormat()


def confidence(prediction: Prediction, answer: Target, config: TaskConfig) -> float:
    """Return the least of the classes' confidence: the mean probability in a mask, or 1 - the largest without one."""
    height, width = answer["mask"].shape[:2]
    sure = []
    for probabilities, mask in zip(prediction["probabilities"], np.moveaxis(answer["mask"], -1, 0), strict=True):
        full = resize_probabilities(probabilities, height, width)
        sure.append(float(full[mask > 0].mean()) if mask.any() else 1 - float(full.max()))
    return min(sure)


def confidence_name(config: TaskConfig) -> str:
    """Return what that number of an image is, in a few words."""
    return "that of its least sure class: the mean probability in its mask, or without one 1 - the largest"


def is_soft(config: TaskConfig) -> bool:
    """Return whether rows tell how sure they are: a pixel is in a mask or not."""
    return False


def label_columns(classes: tuple[str, ...], config: TaskConfig) -> list[str]:
    """Return the columns of a csv file of labels."""
    return ["image_id", "class_id", "rle"]


def label_rows(
    image_id: str, answer: Target, height: int, width: int, classes: tuple[str, ...], config: TaskConfig
) -> list[list[str]]:
    """Return a row a class, its mask at the image's size; a class without a mask has an empty `rle`."""
    mask = resize_mask(answer["mask"], height, width)
    return [[image_id, name, encode_rle(mask[:, :, number])] for number, name in enumerate(classes)]
