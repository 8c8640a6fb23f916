"""Times run-length encoding beside pycocotools': `uv run --with pycocotools python benchmarks/rle.py`.

A mask of 1400 x 2100 with blobs as large as those of the clouds competition, and one with many small ones. In turn, so
that other work on the machine meets both; the best of all rounds, milliseconds of one thread, and their ratio.
Ours makes and reads the text that stands in a csv file; theirs its own compressed bytes. Masks go in and come out as
numpy has them, row by row; `column-major` is theirs without turning the mask to and from the order it needs.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"))
from competition.tasks.segmentation.rle import decode_rle, encode_rle
from competition.tasks.segmentation.settings import RunLengths

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


if __name__ == "__main__":
    compare("clouds", blobs(120, 0.3, 0))
    compare("small blobs", blobs(12, 0.1, 0))
