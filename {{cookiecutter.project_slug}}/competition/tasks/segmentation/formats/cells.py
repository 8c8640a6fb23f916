"""What stands in the mask column of a submission: run lengths of one class, or all objects of an image."""

from collections.abc import Sequence

import numpy as np

from competition.files.csv_numbers import exact
from competition.tasks.contract import Target
from competition.tasks.segmentation.formats.rle import decode_coco, decode_rle, encode_coco, encode_pixels, encode_rle
from competition.tasks.segmentation.objects import Objects, objects_of, parts_of
from competition.tasks.segmentation.resize import resize_mask
from competition.tasks.segmentation.settings import TaskConfig


def write_cells(answer: Target, class_id: str, classes: Sequence[str], config: TaskConfig) -> list[str]:
    """Write the mask of a class, or every object of the image, at the size masks are handed in at: a cell; where a row
    is an object (`format.rows`), a cell for each of the class, or an empty one."""
    mask, form = answer["mask"], config.format
    if form.rows == "objects":
        objects = objects_of(answer)
        found = [pixels for number, pixels in objects if number == classes.index(class_id)]
        return [encode_pixels(one, objects.height, objects.width, form.rle) for one in found] or [form.rle.empty]
    size = config.answer_size(*mask.shape[:2])
    if form.submission.style == "instances":
        objects = objects_of(answer) if size == mask.shape[:2] else parts_of(resize_mask(mask, *size))
        return [encode_objects(objects, answer.get("confidence"))]
    return [encode_rle(resize_mask(mask[:, :, classes.index(class_id)], *size), form.rle)]


def read_cell(text: str, mask: np.ndarray, class_id: str, classes: Sequence[str], config: TaskConfig) -> None:
    """Add what is in a cell to a mask (height, width, classes); raise ValueError if it does not fit."""
    if config.format.submission.style == "instances":
        add_objects(text, mask)
    else:
        mask[:, :, classes.index(class_id)] |= decode_rle(text, *mask.shape[:2], config.format.rle)


def encode_objects(objects: Objects, confidence: np.ndarray | None = None) -> str:
    """Write `class confidence mask ...` of objects, the surest first.

    Confidence is the mean over an object of `confidence` (H, W, classes), 1 without it.
    """
    found: list[tuple[float, str]] = []
    for k, pixels in objects:
        sure = 1.0 if confidence is None else float(confidence[:, :, k].ravel()[pixels].astype(np.float64).mean())
        mask = np.zeros(objects.height * objects.width, dtype=np.uint8)
        mask[pixels] = 1
        found.append((sure, f"{k} {exact(sure)} {encode_coco(mask.reshape(objects.height, objects.width))}"))
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
