"""Samples a second from jpeg files to batches: with `data.cache`, without it, and by the same steps of other libraries.

    IMAGES=16 ROUNDS=5 python benchmarks/pipeline.py [KEY=VALUE ...]

One process without workers or threads, as one worker is; CPU seconds, every way once a round, so that a machine whose
speed drifts slows all. Images are 1400 x 2100, samples 512 x 512, changed at random as the shipped configs do. Batches
leave a worker as they travel; others' leave normalised, so that ours are measured normalised, too.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

PROJECT = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"
sys.path.insert(0, str(PROJECT))

from competition.config.loading import load_config  # noqa: E402
from competition.config.settings import Config  # noqa: E402
from competition.data.dataset import ImageDataset, SeededIndex, ready, share_cache  # noqa: E402
from competition.tasks.contract import Task  # noqa: E402

IMAGES, ROUNDS = int(os.environ.get("IMAGES", "16")), int(os.environ.get("ROUNDS", "5"))
HEIGHT, WIDTH, SIDE, BATCH = 1400, 2100, 512, 8
Work = Callable[[int], object]  # what is done in a round


def write_competition(folder: Path) -> None:
    """Write images of smooth colours with grain, each with a label and a round mask."""
    (folder / "train_images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels, masks = ["image_id,label"], ["image_id,class_id,rle"]
    for number in range(IMAGES):
        smooth = cv2.resize(
            rng.integers(0, 256, (14, 21, 3), dtype=np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
        )
        grain = rng.integers(-8, 9, smooth.shape)
        name = f"{number}.jpg"
        pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "train_images" / name), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
        labels.append(f"{name},{'ab'[number % 2]}")
        masks.append(f"{name},{'ab'[number % 2]},{_disc(400 + 10 * number)}")
    (folder / "labels.csv").write_text("\n".join(labels) + "\n")
    (folder / "masks.csv").write_text("\n".join(masks) + "\n")


def _disc(radius: int) -> str:
    """Return the run lengths of a disc in the image's middle."""
    runs = []
    for column in range(WIDTH // 2 - radius, WIDTH // 2 + radius):
        half = int((radius**2 - (column - WIDTH // 2) ** 2) ** 0.5)
        if half:
            runs.append(f"{column * HEIGHT + HEIGHT // 2 - half + 1} {2 * half}")
    return " ".join(runs)


def configure(folder: Path, task: str, words: list[str], *more: str) -> Config:
    """Return the shipped config of a task on these files."""
    csv = "masks.csv" if task == "segmentation" else "labels.csv"
    own = [f"data.dir={folder}", f"data.train_csv={csv}", f"data.image_size={SIDE}"]
    return load_config([PROJECT / "configs" / f"{task}.yaml"], [*own, *words, *more])


def ours(config: Config, *, normalise: bool) -> Work:
    """Make batches as a worker does, and what the device does where asked to."""
    table = Task(config.task).table.read_table(config)
    dataset = ImageDataset(config, table.image_ids, table=table, train=True)
    share_cache(config, [dataset])

    def work(number: int) -> None:
        for start in range(0, IMAGES, BATCH):
            draws = [SeededIndex(row, number * IMAGES + row) for row in range(start, min(start + BATCH, IMAGES))]
            batch = dataset.collate([dataset[draw] for draw in draws])
            if normalise:
                ready(batch, config, torch.float32)

    return work


def decode(files: list[Path]) -> None:
    """Decode images one after the other; to keep them all would cost new memory for each."""
    for file in files:
        cv2.imread(str(file))


def others(files: list[Path], sample: Callable[[Path], torch.Tensor]) -> Work:
    """Make batches of another library's samples."""

    def work(number: int) -> None:
        for start in range(0, IMAGES, BATCH):
            torch.stack([sample(file) for file in files[start : start + BATCH]])

    return work


def by_torchvision(config: Config) -> Callable[[Path], torch.Tensor]:
    """Return the steps of a config in torchvision, which works on 8 bit to the end."""
    changes = config.data.augmentation
    affine, light = changes.shift_scale_rotate, changes.brightness_contrast
    assert affine is not None
    assert light is not None
    moved = v2.RandomAffine(affine.rotate, (affine.shift,) * 2, (1 - affine.scale, 1 + affine.scale))
    steps = v2.Compose(
        [
            v2.Resize((SIDE, SIDE), antialias=False),
            v2.RandomHorizontalFlip(changes.horizontal_flip),
            v2.RandomVerticalFlip(changes.vertical_flip),
            v2.RandomApply([v2.ColorJitter(light.brightness, light.contrast)], light.probability),
            v2.RandomApply([moved], affine.probability),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(config.data.mean, config.data.std),
        ]
    )
    return lambda file: steps(decode_image(str(file), ImageReadMode.RGB))


def by_albumentations(config: Config) -> Callable[[Path], torch.Tensor]:
    """Return the steps of a config in albumentations, which works on 8 bit until it normalises."""
    changes = config.data.augmentation
    affine, light = changes.shift_scale_rotate, changes.brightness_contrast
    assert affine is not None
    assert light is not None
    scale, shift = (1 - affine.scale, 1 + affine.scale), (-affine.shift, affine.shift)
    steps = A.Compose(
        [
            A.Resize(SIDE, SIDE),
            A.HorizontalFlip(p=changes.horizontal_flip),
            A.VerticalFlip(p=changes.vertical_flip),
            A.RandomBrightnessContrast(light.brightness, light.contrast, p=light.probability),
            A.Affine(scale=scale, translate_percent=shift, rotate=affine.rotate, p=affine.probability),
            A.Normalize(tuple(config.data.mean), tuple(config.data.std)),
            A.ToTensorV2(),
        ]
    )
    return lambda file: steps(image=cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB))["image"]


def ways(folder: Path, words: list[str]) -> dict[str, Work]:
    """Return what is compared, by name."""
    plain = configure(folder, "classification", words, "data.augmentation.crop=null")
    files = sorted((folder / "train_images").iterdir())
    found: dict[str, Work] = {
        "decode alone (cv2.imread)": lambda number: decode(files),
        "torchvision v2, normalised": others(files, by_torchvision(plain)),
        "albumentations, normalised": others(files, by_albumentations(plain)),
        "no cache, normalised": ours(plain, normalise=True),
    }
    grey, take = ["data.mean=[0.5]", "data.std=[0.25]", "data.augmentation.crop=null"], "take: [-2, -1, 0, 1, 2]"
    cases = {
        "one grey image": ("classification", [*grey, "data.channels=1"]),
        "a stack of 5": ("classification", [*grey, "data.channels=5", f"data.stack={{by: '{{number}}.jpg', {take}}}"]),
        "classes, no crop": ("classification", ["data.augmentation.crop=null"]),
        "classes, no crop or light": (
            "classification",
            ["data.augmentation.crop=null", "data.augmentation.brightness_contrast=null"],
        ),
        "classes, as shipped (crop)": ("classification", []),
        "classes, shrunk first": ("classification", ["data.augmentation.crop.shrink_first=true"]),
        "masks, no crop": ("segmentation", ["data.augmentation.crop=null"]),
        "masks, as shipped (crop)": ("segmentation", []),
        "masks, shrunk first": ("segmentation", ["data.augmentation.crop.shrink_first=true"]),
    }
    for name, (task, more) in cases.items():
        for cache in ("null", "disk"):
            config = configure(folder, task, words, *more, f"data.cache={cache}")
            found[f"{name}: {'cache' if cache == 'disk' else 'no cache'}"] = ours(config, normalise=False)
    return found


def main(words: list[str]) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        write_competition(Path(name))
        compared = ways(Path(name), words)
        seconds: dict[str, list[float]] = {way: [] for way in compared}
        for number in range(ROUNDS + 1):
            for way, work in compared.items():
                started = time.process_time()
                work(number)
                seconds[way].append(time.process_time() - started)
        # The first round warms up.
        pace = {way: IMAGES / statistics.median(times[1:]) for way, times in seconds.items()}
    decode = pace["decode alone (cv2.imread)"]
    for way, images in pace.items():
        again = pace.get(way.replace(": cache", ": no cache"), images)
        print(
            f"{way:45} {images:6.1f} a second  {images / decode:5.2f} of decoding  {images / again:5.2f} times no cache"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
