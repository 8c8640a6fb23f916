"""What stands in the mask column of a submission: run lengths of one class, or all objects of an image."""

from collections.abc import Sequence

import cv2
import numpy as np

from competition.files.csv_file import exact
from competition.tasks.contract import Target
from competition.tasks.segmentation.formats.rle import decode_coco, decode_rle, encode_coco, encode_rle
from competition.tasks.segmentation.resize import resize_mask
from competition.tasks.segmentation.settings import TaskConfig


def write_cell(answer: Target, class_id: str, classes: Sequence[str], config: TaskConfig) -> str:
    """Write the mask of a class, or every object, at the size masks are handed in at."""
    mask = answer["mask"]
    size = config.answer_size(*mask.shape[:2])
    if config.format.submission.style == "instances":
        return encode_objects(resize_mask(mask, *size), answer.get("confidence"))
    return encode_rle(resize_mask(mask[:, :, classes.index(class_id)], *size), config.format.rle)


def read_cell(text: str, mask: np.ndarray, class_id: str, classes: Sequence[str], config: TaskConfig) -> None:
    """Add what `write_cell` wrote to a mask (height, width, classes); raise ValueError if it does not fit."""
    if config.format.submission.style == "instances":
        add_objects(text, mask)
    else:
        mask[:, :, classes.index(class_id)] |= decode_rle(text, *mask.shape[:2], config.format.rle)


def encode_objects(mask: np.ndarray, confidence: np.ndarray | None = None) -> str:
    """Write `class confidence mask ...`: the connected parts of a mask (H, W, classes), the surest first.

    Confidence is the mean over a part of `confidence` (H, W, classes), 1 without it.
    """
    found: list[tuple[float, str]] = []
    for k in range(mask.shape[2]):
        number, labels = cv2.connectedComponents(np.ascontiguousarray(mask[:, :, k]))
        sure = np.ones(mask.shape[:2]) if confidence is None else confidence[:, :, k].astype(np.float64)
        sums = np.bincount(labels.ravel(), weights=sure.ravel(), minlength=number)
        means = sums / np.bincount(labels.ravel(), minlength=number).clip(1)
        found += [(means[part], f"{k} {exact(means[part])} {encode_coco(labels == part)}") for part in range(1, number)]
    return " ".join(text for _, text in sorted(found, key=lambda one: -one[0]))


def add_objects(text: str, mask: np.ndarray) -> None:
    """Add objects in the form of `encode_objects` to a mask (H, W, classes); raise ValueError if they do not fit."""
    words = text.split()
    if len(words) % 3:
        raise ValueError(f"expected `class confidence mask` for each object, found {len(words)} words")
    for number, confidence, runs in zip(words[::3], words[1::3], words[2::3], strict=True):
        if not number.isdecimal() or int(number) >= mask.shape[2]:
            raise ValueError(f"found class {number!r}; expected 0 to {mask.shape[2] - 1}")
        if not 0 <= float(confidence) <= 1:
            raise ValueError(f"found confidence {confidence}; expected 0 to 1")
        mask[:, :, int(number)] |= decode_coco(runs, *mask.shape[:2])
