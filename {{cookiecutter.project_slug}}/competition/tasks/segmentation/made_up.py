"""A made-up segmentation competition: coloured shapes, a mask per kind of shape, a third of the images empty."""

from pathlib import Path

import numpy as np

from competition.support.atomic_files import write_csv
from competition.tasks.made_up_images import SHAPES, background, paint, shape_mask, write_images
from competition.tasks.segmentation.formats.rle import encode_rle

COLUMNS = ("image_id", "class_id", "rle")
PRESENCE = (0.45, 0.35, 0.25, 0.12)  # how many images have each shape, common to rare


def make_competition(folder: Path, num_train: int, num_test: int, seed: int) -> None:
    """Write a whole small competition in the sample format."""
    train = write_images(folder / "train_images", range(num_train), "train_", _draw, seed)
    write_csv(folder / "train.csv", COLUMNS, ([i, name, rle] for i, masks, _ in train for name, rle in masks))
    test = list(write_images(folder / "test_images", range(num_test), "test_", _draw, seed + 1))
    write_csv(folder / "solution.csv", COLUMNS, ([i, name, rle] for i, masks, _ in test for name, rle in masks))
    write_csv(
        folder / "sample_submission.csv", COLUMNS, ([i, name, "1 1"] for i, masks, _ in test for name, _ in masks)
    )


def _draw(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Return an image and (class, run lengths) of every class."""
    image = background(rng)
    height, width = image.shape[:2]
    masks = {name: np.zeros((height, width), dtype=np.uint8) for name in SHAPES}
    present = [name for name, share in zip(SHAPES, PRESENCE, strict=True) if rng.random() < share]
    for name in present:
        mask = shape_mask(rng, name, height, width, radius=int(rng.integers(12, 28)))
        for other in masks.values():  # what is painted over is gone
            other[mask > 0] = 0
        masks[name] |= mask
        paint(image, mask, name, rng)
    return image, [(name, encode_rle(mask)) for name, mask in masks.items()]
