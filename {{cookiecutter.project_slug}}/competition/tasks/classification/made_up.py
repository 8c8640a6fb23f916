"""A made-up classification competition: which shape is in the image; the last one is rare."""

from pathlib import Path

import numpy as np

from competition.support.atomic_files import write_csv
from competition.tasks.made_up_images import SHAPES, background, paint, shape_mask, write_images

FREQUENCY = (0.5, 0.3, 0.14, 0.06)


def make_competition(folder: Path, num_train: int, num_test: int, seed: int) -> None:
    """Write a whole small competition in the sample format."""
    train = write_images(folder / "train_images", range(num_train), "train_", _draw, seed)
    write_csv(folder / "train.csv", ["image_id", "label"], ([i, label] for i, label, _ in train))
    test = list(write_images(folder / "test_images", range(num_test), "test_", _draw, seed + 1))
    write_csv(folder / "solution.csv", ["image_id", "label"], ([i, label] for i, label, _ in test))
    classes = sorted(SHAPES)
    constant = [1 / len(classes)] * len(classes)
    write_csv(folder / "sample_submission.csv", ["image_id", *classes], ([i, *constant] for i, _, _ in test))


def _draw(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Return an image and its label."""
    image = background(rng)
    name = str(rng.choice(list(SHAPES), p=FREQUENCY))
    mask = shape_mask(rng, name, *image.shape[:2], radius=int(rng.integers(14, 30)))
    paint(image, mask, name, rng)
    return image, name
