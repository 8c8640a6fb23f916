"""A made-up detection competition: coloured shapes to be boxed, a fifth of the images without any."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from competition.support.atomic_files import write_csv
from competition.tasks.made_up_images import SHAPES, background, paint, shape_mask, write_images

COLUMNS = ("image_id", "width", "height", "class_id", "x", "y", "w", "h")
SUBMISSION_COLUMNS = ("image_id", "PredictionString")
FREQUENCY = (0.5, 0.3, 0.14, 0.06)  # of each shape among the boxes, common to rare
MOST_BOXES = 3

Box = tuple[str, Sequence[int]]  # class and x, y, w, h


def make_competition(folder: Path, num_train: int, num_test: int, seed: int) -> None:
    """Write a whole small competition in the sample format."""
    train = write_images(folder / "train_images", range(num_train), "train_", _draw, seed)
    write_csv(folder / "train.csv", COLUMNS, _rows(train))
    test = list(write_images(folder / "test_images", range(num_test), "test_", _draw, seed + 1))
    write_csv(folder / "solution.csv", COLUMNS, _rows(test))
    write_csv(folder / "sample_submission.csv", SUBMISSION_COLUMNS, ([image_id, ""] for image_id, _, _ in test))


def _draw(rng: np.random.Generator) -> tuple[np.ndarray, list[Box]]:
    """Return an image and (class, x, y, w, h) of every box; shapes do not touch each other."""
    image = background(rng)
    height, width = image.shape[:2]
    taken = np.zeros((height, width), dtype=np.uint8)
    boxes = []
    for name in rng.choice(list(SHAPES), size=_num_boxes(rng), p=FREQUENCY):
        mask = shape_mask(rng, name, height, width, radius=int(rng.integers(14, 26)))
        grown = cv2.dilate(mask, np.ones((5, 5), np.uint8))
        if np.logical_and(grown, taken).any():
            continue
        taken |= mask
        paint(image, mask, name, rng)
        boxes.append((str(name), cv2.boundingRect(mask)))
    return image, boxes


def _num_boxes(rng: np.random.Generator) -> int:
    return 0 if rng.random() < 0.2 else int(rng.integers(1, MOST_BOXES + 1))


def _rows(images: Iterable[tuple[str, list[Box], tuple[int, int]]]) -> Iterable[list[object]]:
    for image_id, boxes, (height, width) in images:
        if not boxes:
            yield [image_id, width, height, *[""] * 5]
        for name, box in boxes:
            yield [image_id, width, height, name, *box]
