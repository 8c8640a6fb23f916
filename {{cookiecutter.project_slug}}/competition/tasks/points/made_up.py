"""A made-up competition of points: the middles of small coloured shapes, a fifth of the images without any."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from competition.support.atomic_files import write_csv
from competition.tasks.made_up_images import SHAPES, background, paint, shape_mask, write_images

COLUMNS = ("image_id", "class_id", "x", "y")
SUBMISSION_COLUMNS = (*COLUMNS, "confidence")
FREQUENCY = (0.5, 0.3, 0.14, 0.06)  # of each shape among the points, common to rare
MOST_POINTS = 6

Point = tuple[str, float, float]  # class, x and y


def make_competition(folder: Path, num_train: int, num_test: int, seed: int) -> None:
    """Write a whole small competition in the sample format."""
    train = write_images(folder / "train_images", range(num_train), "train_", _draw, seed)
    write_csv(folder / "train.csv", COLUMNS, _rows(train))
    test = list(write_images(folder / "test_images", range(num_test), "test_", _draw, seed + 1))
    write_csv(folder / "solution.csv", COLUMNS, _rows(test))
    write_csv(folder / "sample_submission.csv", SUBMISSION_COLUMNS, ([name, "", "", "", ""] for name, _, _ in test))


def _draw(rng: np.random.Generator) -> tuple[np.ndarray, list[Point]]:
    """Return an image and (class, x, y) of the middle of every shape; shapes do not touch each other."""
    image = background(rng)
    height, width = image.shape[:2]
    taken = np.zeros((height, width), dtype=np.uint8)
    points = []
    number = 0 if rng.random() < 0.2 else int(rng.integers(1, MOST_POINTS + 1))
    for name in rng.choice(list(SHAPES), size=number, p=FREQUENCY):
        mask = shape_mask(rng, name, height, width, radius=int(rng.integers(6, 12)))
        grown = cv2.dilate(mask, np.ones((5, 5), np.uint8))
        if np.logical_and(grown, taken).any():
            continue
        taken |= mask
        paint(image, mask, name, rng)
        rows, columns = np.nonzero(mask)
        points.append((str(name), columns.mean() + 0.5, rows.mean() + 0.5))
    return image, points


def _rows(images: Iterable[tuple[str, list[Point], tuple[int, int]]]) -> Iterable[list[object]]:
    for image_id, points, _ in images:
        if not points:
            yield [image_id, "", "", ""]
        for name, x, y in points:
            yield [image_id, name, f"{x:.2f}", f"{y:.2f}"]
