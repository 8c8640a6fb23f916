"""From `sampler:` in YAML to the RatioSampler of a fold, and to the batches a process draws in an epoch."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from competition.config.data_settings import PositiveColumn
from competition.config.settings import Config
from competition.data.dataset import Draw
from competition.data.groups import join_groups
from competition.files.csv_file import read_image_column
from competition.sampling.sampler import RatioSampler, class_weights
from competition.sampling.share_schedule import ShareSchedule
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table


def build_sampler(
    config: Config, table: Table, rows: np.ndarray, *, rank: int = 0, world_size: int = 1
) -> RatioSampler:
    """Return the sampler over `rows` (n,) of the table, the training images of a fold."""
    settings = config.sampler
    present = table.present()[rows]
    points = settings.share if isinstance(settings.share, list) else [(0, settings.share)]
    return RatioSampler(
        _positive(config, table, present, rows),
        seed=config.seed,
        schedule=ShareSchedule(tuple((e, None if s == "natural" else s) for e, s in points), settings.course),
        keep=settings.keep,
        num_draws=settings.num_draws,
        weights=class_weights(present, settings.weights) if settings.weights else None,
        groups=join_groups([_column(config, table, settings.group)])[rows] if settings.group else None,
        max_per_group=settings.max_per_group,
        rank=rank,
        world_size=world_size,
    )


def _positive(config: Config, table: Table, present: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return (n,) bool; without a rule every image is positive, so that an epoch holds each once."""
    rule = config.sampler.positive
    if rule is None:
        return np.ones(len(rows), dtype=bool)
    if isinstance(rule, PositiveColumn):
        values = np.char.lower(_column(config, table, rule.column)[rows].astype(str))
        return ~np.isin(values, ["", "0", "0.0", "false", "no", "nan"])
    if isinstance(rule, str):
        return present.sum(axis=1) > 0
    unknown = [name for name in rule if name not in table.classes]
    if unknown:
        raise CompetitionError(
            f"sampler.positive: {unknown[0]!r} is no class of train.csv; expected some of {', '.join(table.classes)}"
        )
    return present[:, [table.classes.index(name) for name in rule]].sum(axis=1) > 0


def _column(config: Config, table: Table, column: str) -> np.ndarray:
    return read_image_column(config.train_csv, column, table.image_ids, table.lines)


class EpochBatches(NamedTuple):
    """How an epoch falls into steps of the optimizer, all alike."""

    steps: int
    parts: int  # batches of a process in each
    images: int  # of all processes in each


class TrainBatches(Sampler[list[Draw]]):
    """The batches of this process in one epoch, each draw with a seed for its random changes.

    A step of the optimizer takes a global batch, dealt to the processes and cut into `accumulate` parts of `batch_size`
    each; which images it holds hangs on neither. Images that do not fill the last global batch are left out, unless it
    is the only one; its parts are smaller, and some processes may have an image less of it. `limit` leaves so many
    steps of an epoch, or such a share of them.

    A seed follows from the run's seed, the epoch and the place in the epoch's draw over all processes: the same for
    any number of processes, and after a resume.
    """

    def __init__(
        self, sampler: RatioSampler, batch_size: int, *, accumulate: int = 1, limit: float | None = None
    ) -> None:
        self.sampler, self.batch_size, self.accumulate, self.limit = sampler, batch_size, accumulate, limit
        self._start = 0

    @property
    def global_batch(self) -> int:
        """Return the images of a whole step."""
        return self.batch_size * self.sampler.world_size * self.accumulate

    def set_epoch(self, epoch: int, *, start_batch: int = 0) -> None:
        """Choose the epoch; its first `start_batch` batches are skipped, to go on in its middle."""
        self._start = start_batch
        self.sampler.set_epoch(epoch)

    def of_epoch(self, epoch: int) -> EpochBatches:
        """Return how an epoch falls into steps, without drawing it."""
        drawn, world_size = self.sampler.counts(epoch).drawn, self.sampler.world_size
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
        epoch = self.of_epoch(self.sampler.epoch)
        return epoch.steps * epoch.parts

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield batches of the current epoch."""
        rank, world_size = self.sampler.rank, self.sampler.world_size
        epoch = self.of_epoch(self.sampler.epoch)
        own, ends = len(range(rank, epoch.images, world_size)), range(1, epoch.parts + 1)
        cuts = [0, *(own * end // epoch.parts for end in ends)]  # of the process's images of a step
        first = self._start // epoch.parts * own + cuts[self._start % epoch.parts]
        rows = enumerate(chain.from_iterable(self.sampler.own_rows(self.sampler.epoch)))
        rows = islice(rows, first, None)
        for number in range(self._start, len(self)):
            part = number % epoch.parts
            size = cuts[part + 1] - cuts[part]
            yield [Draw(row, self._seed(place * world_size + rank)) for place, row in islice(rows, size)]

    def _seed(self, place: int) -> int:
        numbers = np.random.SeedSequence([self.sampler.seed, self.sampler.epoch, place])
        return int(numbers.generate_state(1)[0])
