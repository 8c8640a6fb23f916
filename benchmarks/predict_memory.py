"""Measure that predicting more images takes no more memory: `python benchmarks/predict_memory.py [FOLDER]`.

Each number of images is predicted in a process of its own by the project's own loop (`predict_images`: Trainer, data
loader, PredictionWriter) with a network that does next to nothing, 4 classes at 350 x 525 in float16: 1.5 MB an image.
Prints the process's peak memory, the seconds and the size of the file, which is deleted again; 4,000 images need 6.5 GB
in FOLDER (default: the folder for temporary files).
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"
NUMBERS = (250, 1000, 4000)


def measure(number: int, folder: Path) -> None:
    """Predict so many images and print one line."""
    sys.path.insert(0, str(PROJECT))
    import cv2
    import numpy as np
    import torch
    from competition.config.loading import load_config
    from competition.data.dataset import ImageDataset
    from competition.prediction.predict import predict_images
    from torch import nn

    images = folder / "test_images"
    images.mkdir(exist_ok=True)
    ids = np.array([f"{index:05d}.png" for index in range(number)], dtype=object)
    _, encoded = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (350, 525, 3), dtype=np.uint8))
    first = images / "picture"
    first.write_bytes(encoded.tobytes())
    for image_id in ids:
        if not (images / image_id).exists():
            (images / image_id).hardlink_to(first)
    words = [f"data.dir={folder}", "data.image_size=[350, 525]", "data.batch_size=8", "data.num_workers=0"]
    config = load_config([PROJECT / "configs" / "segmentation.yaml"], [*words, "trainer.accelerator=cpu"])
    network = nn.Conv2d(3, 4, 1)
    started = time.perf_counter()
    with torch.no_grad():
        predict_images(config, [network], ImageDataset(config, ids), folder / "test.npz", ["a", "b", "c", "d"])
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = (folder / "test.npz").stat().st_size / 1e9
    print(f"{number:6d} images: peak {peak:7.0f} MB, {seconds:6.1f} s, file {size:5.2f} GB", flush=True)


def main() -> None:
    """Measure each number of images in a fresh process."""
    if len(sys.argv) == 4:
        measure(int(sys.argv[2]), Path(sys.argv[3]))
        return
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    for number in NUMBERS:
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            subprocess.run([sys.executable, __file__, "--measure", str(number), folder], check=True)


if __name__ == "__main__":
    main()
