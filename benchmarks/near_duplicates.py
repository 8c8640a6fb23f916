"""Measure the search for near-duplicates among 100,000 small pictures: `python benchmarks/near_duplicates.py`.

Pictures are smooth noise of 4 x 4 numbers, far less than a photograph holds, so strangers come close to each other;
every thousandth is followed by a copy. Prints CPU seconds, the copies found and the strangers taken for copies.
"""

import sys
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"))

from competition.checking.near_duplicates import SIDE, Thumbnails, near_duplicates

NUMBER = 100_000


def main() -> None:
    """Measure once."""
    coarse = np.random.default_rng(0).random((NUMBER, 4, 4), dtype=np.float32)
    pictures = np.stack([cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for one in coarse])
    thumbnails = Thumbnails((np.clip(pictures, 0, 1) * 255).astype(np.uint8))
    thumbnails.pictures[1::1000] = thumbnails.pictures[::1000]
    started = time.process_time()
    groups = near_duplicates(thumbnails)
    seconds = time.process_time() - started
    first, copies = groups[::1000], groups[1::1000]
    found = int(((first >= 0) & (first == copies)).sum())
    others = int((groups >= 0).sum()) - 2 * found
    print(
        f"{NUMBER} pictures: {seconds:.1f} s, {found} of {len(copies)} copies found, {others} strangers taken for one"
    )


if __name__ == "__main__":
    main()
