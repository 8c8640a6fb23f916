"""Made-up images for `competition sample`: coloured shapes on noise, which a small network learns in a minute."""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from competition.support.errors import CompetitionError
from competition.support.progress import progress
from competition.tasks.contract import Task

Answer = TypeVar("Answer")
FEWEST_FOR_PROCESSES = 2000  # below it starting them takes longer than drawing

# Shape and colour (RGB) by class, common to rare.
SHAPES = {"disk": (210, 70, 60), "square": (60, 170, 80), "triangle": (70, 90, 220), "ring": (220, 190, 60)}
# Speed over size: these files are thrown away.
FAST_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
SIZES = ((96, 128), (128, 96), (112, 112))  # height, width: not square on purpose, so that swapped axes show


def background(rng: np.random.Generator) -> np.ndarray:
    """Return a grey, noisy image (height, width, 3) uint8 of one of SIZES."""
    height, width = SIZES[rng.integers(len(SIZES))]
    level = rng.integers(80, 150)
    noise = rng.integers(-25, 26, size=(height // 4, width // 4, 1), dtype=np.int16).repeat(4, 0).repeat(4, 1)
    return np.clip(level + noise, 0, 255).astype(np.uint8).repeat(3, axis=2)


def shape_mask(rng: np.random.Generator, name: str, height: int, width: int, radius: int) -> np.ndarray:
    """Return a (height, width) uint8 mask of one shape of about `radius` pixels that lies in the image."""
    mask = np.zeros((height, width), dtype=np.uint8)
    x, y = int(rng.integers(radius, width - radius)), int(rng.integers(radius, height - radius))
    if name in ("disk", "ring"):
        cv2.circle(mask, (x, y), radius, 1, -1 if name == "disk" else max(radius // 3, 2))
        return mask
    corners = 4 if name == "square" else 3
    angles = rng.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
    points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
    cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
    return mask


def paint(image: np.ndarray, mask: np.ndarray, name: str, rng: np.random.Generator) -> None:
    """Colour the mask's pixels in place, in the class's colour give or take a little."""
    colour = np.array(SHAPES[name]) + rng.integers(-20, 21, size=3)
    image[mask > 0] = np.clip(colour, 0, 255).astype(np.uint8)


def write_images(
    folder: Path,
    numbers: range,
    prefix: str,
    draw: Callable[[np.random.Generator], tuple[np.ndarray, Answer]],
    seed: int,
) -> Iterator[tuple[str, Answer, tuple[int, int]]]:
    """Draw and write images in parallel; yield (image_id, answer, (height, width)) in order.

    Each image has a generator of its own, so that the same seed gives the same image whatever the number of images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write = partial(_write_image, folder, prefix, draw, seed)
    if len(numbers) < FEWEST_FOR_PROCESSES:
        yield from progress(map(write, numbers), "drawing images", len(numbers))
        return
    with ProcessPoolExecutor() as pool:
        yield from progress(pool.map(write, numbers, chunksize=256), "drawing images", len(numbers))


def _write_image(
    folder: Path,
    prefix: str,
    draw: Callable[[np.random.Generator], tuple[np.ndarray, Answer]],
    seed: int,
    number: int,
) -> tuple[str, Answer, tuple[int, int]]:
    image, answer = draw(np.random.default_rng([seed, number]))
    image_id = f"{prefix}{number:06d}.png"
    if not cv2.imwrite(str(folder / image_id), image[:, :, ::-1], FAST_PNG):
        raise CompetitionError(f"{folder / image_id}: cannot be written; is the disk full?")
    return image_id, answer, (image.shape[0], image.shape[1])


def write_sample(task: str, folder: Path, size: int, seed: int = 0) -> None:
    """Write a competition of `size` training and a quarter as many test images into an empty or new folder.

    Nothing is left behind if it is interrupted.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CompetitionError(f"{folder}: is not empty; move it away, or name another folder with --dir")
    if size < 20:
        raise CompetitionError(f"--size: found {size}; expected 20 or more images, or some classes would be missing")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        Task(task).made_up.make_competition(temporary, num_train=size, num_test=max(size // 4, 5), seed=seed)
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
