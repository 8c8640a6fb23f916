"""Times run-length encoding beside pycocotools': `uv run --with pycocotools python benchmarks/rle.py`.

A mask of 1400 x 2100 with blobs as large as those of the clouds competition, and one with many small ones. In turn, so
that other work on the machine meets both; the best of all rounds, milliseconds of one thread, and their ratio.
Ours makes and reads the text that stands in a csv file; theirs its own compressed bytes. Masks go in and come out as
numpy has them, row by row; `column-major` is without turning the mask to and from the order of the runs.

With `--rows 100000` it reads a submission of so many masks of 350 x 525, and says what memory grew by on the way.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"))
from competition.config.data_settings import Data
from competition.tasks.segmentation.formats.rle import decode_rle, encode_rle
from competition.tasks.segmentation.settings import RunLengths, TaskConfig
from competition.tasks.segmentation.submission import read_submission

HEIGHT, WIDTH = 1400, 2100
ROUNDS = 40


def blobs(scale: float, share: float, seed: int) -> np.ndarray:
    """Return a mask (HEIGHT, WIDTH) of round blobs about `scale` pixels large that cover `share` of it."""
    noise = np.random.default_rng(seed).standard_normal((HEIGHT, WIDTH)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), scale)
    return (smooth > np.quantile(smooth, 1 - share)).astype(np.uint8)


def best_of(functions: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the best milliseconds of each function, called in turn."""
    best = dict.fromkeys(functions, np.inf)
    for _ in range(ROUNDS):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            best[name] = min(best[name], (time.perf_counter() - start) * 1000)
    return best


def compare(name: str, mask: np.ndarray) -> None:
    """Print milliseconds and ratios for one mask."""
    from pycocotools import mask as coco

    text, fortran, theirs = encode_rle(mask), np.asfortranarray(mask), coco.encode(np.asfortranarray(mask))
    rows = RunLengths(order="rows")
    along_rows = encode_rle(mask, rows)
    assert (np.ascontiguousarray(coco.decode(theirs)) == decode_rle(text, HEIGHT, WIDTH)).all()
    found = best_of(
        {
            "encode": lambda: encode_rle(mask),
            "encode along rows": lambda: encode_rle(mask, rows),
            "encode, column-major": lambda: encode_rle(fortran),
            "pycocotools encode": lambda: coco.encode(np.asfortranarray(mask)),
            "pycocotools encode, column-major": lambda: coco.encode(fortran),
            "decode": lambda: decode_rle(text, HEIGHT, WIDTH),
            "decode along rows": lambda: decode_rle(along_rows, HEIGHT, WIDTH, rows),
            "pycocotools decode": lambda: np.ascontiguousarray(coco.decode(theirs)),
            "pycocotools decode, column-major": lambda: coco.decode(theirs),
        }
    )
    print(f"{name}: {text.count(' ') // 2 + 1} runs")
    for what, milliseconds in found.items():
        verb = what.removeprefix("pycocotools ").split()[0].strip(",")
        print(f"  {what:34}{milliseconds:8.2f} ms {found[f'pycocotools {verb}'] / milliseconds:6.2f} times as fast")


def stream(num_rows: int) -> None:
    """Read a submission and print seconds and peak memory when its rows stand in memory as text, and at its end."""
    mask = cv2.resize(blobs(120, 0.3, 0), (525, 350), interpolation=cv2.INTER_NEAREST)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "submission.csv"
        with path.open("w", encoding="utf-8") as file:
            file.write("image_id,class_id,rle\n")
            file.writelines(f"{number},cloud,{encode_rle(mask)}\n" for number in range(num_rows))
        config = TaskConfig(name="rle", task="segmentation", data=Data(dir=Path(folder)))
        sizes = dict.fromkeys(map(str, range(num_rows)), mask.shape)
        start = time.perf_counter()
        read = read_submission(path, config, ["cloud"], sizes)
        peaks = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 for _ in read]
        seconds, size = time.perf_counter() - start, path.stat().st_size / 2**20
    print(f"{num_rows} rows, {size:.0f} MB of text, {num_rows * mask.size / 2**20:.0f} MB of masks: {seconds:.1f} s")
    print(f"  peak memory {peaks[0]:.0f} MB at the first mask, {peaks[-1]:.0f} MB at the last")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int)
    if num_rows := parser.parse_args().rows:
        stream(num_rows)
    else:
        compare("clouds", blobs(120, 0.3, 0))
        compare("small blobs", blobs(12, 0.1, 0))
