"""The batches a process trains on in an epoch: a sampler's draws, cut into steps and dealt to the processes."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from competition.data.dataset import SeededIndex
from competition.sampling.build import EpochSampler


class EpochBatches(NamedTuple):
    """How an epoch falls into steps of the optimizer, all alike."""

    steps: int
    parts: int  # batches of a process in each
    images: int  # of all processes in each


class TrainBatches(Sampler[list[SeededIndex]]):
    """The batches of this process in one epoch, each draw with a seed for its random changes.

    A step of the optimizer takes a global batch, dealt to the processes and cut into `accumulate` parts of `batch_size`
    each; which images it holds hangs on neither. Images that do not fill the last global batch are left out, unless it
    is the only one; its parts are smaller, and some processes may have an image less of it. `limit` leaves so many
    steps of an epoch, or such a share of them.

    A seed follows from the run's seed, the epoch and the place in the epoch's draw over all processes: the same for
    any number of processes, and after a resume.
    """

    def __init__(
        self, sampler: EpochSampler, batch_size: int, *, accumulate: int = 1, limit: float | None = None
    ) -> None:
        self.sampler, self.batch_size, self.accumulate, self.limit = sampler, batch_size, accumulate, limit
        self.epoch, self._start = 0, 0

    @property
    def global_batch(self) -> int:
        """Return the images of a whole step."""
        return self.batch_size * self.sampler.world_size * self.accumulate

    def set_epoch(self, epoch: int, *, start_batch: int = 0) -> None:
        """Choose the epoch; its first `start_batch` batches are skipped, to go on in its middle."""
        self.epoch, self._start = epoch, start_batch

    def of_epoch(self, epoch: int) -> EpochBatches:
        """Return how an epoch falls into steps, without drawing it."""
        drawn, world_size = self.sampler.num_drawn(epoch), self.sampler.world_size
        whole = drawn // self.global_batch
        if whole:
            return EpochBatches(self._limited(whole), self.accumulate, self.global_batch)
        # Each process needs an image for each part, as all of them have equally many parts.
        parts = min(-(-drawn // (self.batch_size * world_size)), drawn // world_size)
        return EpochBatches(self._limited(1), parts, drawn)

    def _limited(self, steps: int) -> int:
        if self.limit is None:
            return steps
        if isinstance(self.limit, int):
            return min(self.limit, steps)
        return max(int(steps * self.limit), 1) if self.limit else 0

    def __len__(self) -> int:
        """Return the batches of the whole epoch, with those skipped: Lightning counts them as done."""
        epoch = self.of_epoch(self.epoch)
        return epoch.steps * epoch.parts

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        """Yield batches of the current epoch."""
        return self.draws(self.epoch, self._start)

    def draws(self, epoch: int, start: int = 0) -> Iterator[list[SeededIndex]]:
        """Yield this process's batches of any epoch, from number `start` on."""
        rank, world_size = self.sampler.rank, self.sampler.world_size
        steps, parts, images = self.of_epoch(epoch)
        own, ends = len(range(rank, images, world_size)), range(1, parts + 1)
        cuts = [0, *(own * end // parts for end in ends)]  # of the process's images of a step
        first = start // parts * own + cuts[start % parts]
        rows = enumerate(chain.from_iterable(self.sampler.own_rows(epoch)))
        rows = islice(rows, first, None)
        for number in range(start, steps * parts):
            part = number % parts
            size = cuts[part + 1] - cuts[part]
            yield [
                SeededIndex(row, self._seed(epoch, place * world_size + rank), epoch)
                for place, row in islice(rows, size)
            ]

    def _seed(self, epoch: int, place: int) -> int:
        numbers = np.random.SeedSequence([self.sampler.seed, epoch, place])
        return int(numbers.generate_state(1)[0])
