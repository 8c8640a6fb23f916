"""Times the ratio sampler beside torch's own samplers: `python benchmarks/sampler.py [--rows 10000000]`.

Every contender runs in a process of its own: CPU seconds of one thread, the best of five epochs. Memory is the peak
over what the process held before, making the sampler included, in units of an index array of 64-bit integers.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sized
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DistributedSampler, TensorDataset, WeightedRandomSampler

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"))
from competition.sampling.sampler import RatioSampler
from competition.sampling.share_schedule import ShareSchedule

HALF = ShareSchedule.constant(0.5)
Epoch = Callable[[int], Sized]


class HasEpochs(Iterable[int], Sized, Protocol):
    """A sampler that draws anew when told the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        ...


def whole_epochs(sampler: HasEpochs) -> Epoch:
    """Return a function that takes every row number of an epoch, as a data loader does."""

    def take(epoch: int) -> Sized:
        sampler.set_epoch(epoch)
        deque(iter(sampler), maxlen=0)
        return sampler

    return take


def first_indices(sampler: HasEpochs) -> Epoch:
    """Return a function that takes an epoch's first row number: what a data loader waits for."""

    def take(epoch: int) -> Sized:
        sampler.set_epoch(epoch)
        next(iter(sampler))
        return sampler

    return take


def weighted_epochs(weights: np.ndarray) -> Epoch:
    """Return a function that takes every row number torch's weighted sampler draws."""
    sampler = WeightedRandomSampler(torch.from_numpy(weights).tolist(), len(weights))

    def take(epoch: int) -> Sized:
        torch.manual_seed(epoch)
        deque(iter(sampler), maxlen=0)
        return sampler

    return take


def whole_draws(sampler: RatioSampler) -> Epoch:
    """Return a function that draws an epoch without making Python numbers of it."""

    def take(epoch: int) -> Sized:
        sampler.set_epoch(epoch)
        deque(sampler.chunks(epoch), maxlen=0)
        return sampler

    return take


# Each takes (n,) bool of positives and (n,) weights.
CONTENDERS: dict[str, Callable[[np.ndarray, np.ndarray], Epoch]] = {
    "draw: torch.randperm": lambda p, w: lambda epoch: torch.randperm(len(p)),
    "draw: every row": lambda p, w: whole_draws(RatioSampler(p, seed=0)),
    "draw: as many at share 0.5": lambda p, w: whole_draws(RatioSampler(p, seed=0, schedule=HALF, num_draws=len(p))),
    "draw: positives kept, share 0.5": lambda p, w: whole_draws(RatioSampler(p, seed=0, schedule=HALF)),
    "draw: negatives kept, share 0.5": lambda p, w: whole_draws(
        RatioSampler(p, seed=0, schedule=HALF, keep="negatives")
    ),
    "draw: by weight": lambda p, w: whole_draws(RatioSampler(p, seed=0, weights=w)),
    "draw: at most 2 of a group of 4": lambda p, w: whole_draws(
        RatioSampler(p, seed=0, groups=np.arange(len(p), dtype=np.int32) // 4, max_per_group=2)
    ),
    "epoch: DistributedSampler": lambda p, w: whole_epochs(DistributedSampler(table(p), 1, 0)),
    "epoch: RatioSampler": lambda p, w: whole_epochs(RatioSampler(p, seed=0)),
    "epoch: DistributedSampler, 1 of 2 ranks": lambda p, w: whole_epochs(DistributedSampler(table(p), 2, 0)),
    "epoch: RatioSampler, 1 of 2 ranks": lambda p, w: whole_epochs(RatioSampler(p, seed=0, world_size=2)),
    "epoch: WeightedRandomSampler": lambda p, w: weighted_epochs(w),
    "epoch: RatioSampler by weight": lambda p, w: whole_epochs(RatioSampler(p, seed=0, weights=w)),
    "first index: DistributedSampler": lambda p, w: first_indices(DistributedSampler(table(p), 1, 0)),
    "first index: RatioSampler": lambda p, w: first_indices(RatioSampler(p, seed=0)),
}


def table(positive: np.ndarray) -> TensorDataset:
    """Return a data set as long as the table: torch's sampler asks for no more."""
    return TensorDataset(torch.from_numpy(positive))


def measure(name: str, num_rows: int) -> dict[str, float]:
    """Return seconds to make the sampler, of its fastest epoch, draws of an epoch and peak bytes."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    positive, weights = rng.random(num_rows) < 0.1, rng.random(num_rows)
    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    began = time.process_time()
    take = CONTENDERS[name](positive, weights)
    made, seconds, draws = time.process_time() - began, float("inf"), 0
    for epoch in range(5):
        began = time.process_time()
        draws = len(take(epoch))
        seconds = min(seconds, time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held
    return {"made": made, "seconds": seconds, "draws": draws, "peak": peak}


def main() -> None:
    """Measure every contender and print a table; ratios are to torch.randperm of the same run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--only", choices=CONTENDERS, help="measure this one here and print JSON")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.rows)))
        return
    print(f"{arguments.rows} rows, a tenth positive; torch {torch.__version__}, numpy {np.__version__}")
    print(f"{'':40} {'make s':>7} {'epoch s':>8} {'draws':>9} {'per draw / randperm':>20} {'peak / index array':>19}")
    randperm = 0.0
    for name in CONTENDERS:
        command = [sys.executable, __file__, "--rows", str(arguments.rows), "--only", name]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        per_draw = found["seconds"] / found["draws"]
        randperm = randperm or per_draw
        print(
            f"{name:40} {found['made']:7.2f} {found['seconds']:8.3f} {found['draws']:9d} "
            f"{per_draw / randperm:19.2f}x {found['peak'] / (8 * arguments.rows):18.2f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
