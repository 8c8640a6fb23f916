"""From `sampler:` in YAML to the RatioSampler of a fold, and to the batches a process draws in an epoch."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from competition.csv_file import read_image_column
from competition.data_settings import PositiveColumn
from competition.errors import CompetitionError
from competition.image_groups import join_groups
from competition.sampler import RatioSampler, class_weights
from competition.settings import Config
from competition.share_schedule import EpochCounts, ShareSchedule, schedule_warnings
from competition.task import Table


class Draw(NamedTuple):
    """Which image to read, and the seed of its random changes."""

    index: int
    seed: int


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


class TrainBatches(Sampler[list[Draw]]):
    """The batches of this process in one epoch, each draw with a seed for its random changes.

    A seed follows from the run's seed, the epoch and the place in the epoch's draw over all processes: the same for
    any number of processes, and after a resume. The last, incomplete batch is left out unless it is the only one.
    """

    def __init__(self, sampler: RatioSampler, batch_size: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size
        self._start = 0

    def set_epoch(self, epoch: int, *, start_batch: int = 0) -> None:
        """Choose the epoch; its first `start_batch` batches are skipped, to go on in its middle."""
        self._start = start_batch
        self.sampler.set_epoch(epoch, start=start_batch * self.batch_size)

    def __len__(self) -> int:
        """Return the batches of the whole epoch, with those skipped: Lightning counts them as done."""
        return num_batches(self.sampler.counts(self.sampler.epoch), self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield batches of the current epoch."""
        rows = iter(self.sampler)
        for number in range(self._start, len(self)):
            batch = []
            for place in range(number * self.batch_size, (number + 1) * self.batch_size):
                row = next(rows, None)
                if row is None:  # the only batch, and it is not full
                    break
                batch.append(Draw(row, self._seed(place * self.sampler.world_size + self.sampler.rank)))
            yield batch

    def _seed(self, place: int) -> int:
        numbers = np.random.SeedSequence([self.sampler.seed, self.sampler.epoch, place])
        return int(numbers.generate_state(1)[0])


def num_batches(counts: EpochCounts, batch_size: int) -> int:
    """Return the batches a process has in an epoch: the only one may be incomplete, any other is left out then."""
    return max(counts.num_batches(batch_size, drop_last=True), 1)


def sampling_warnings(sampler: RatioSampler, batches: list[int], accumulate: int) -> list[str]:
    """Say what of `sampler:` will not go as its settings suggest, for a run of so many batches in each epoch."""
    counts = [sampler.counts(epoch) for epoch in range(len(batches))]
    return schedule_warnings(sampler.schedule, counts, batches, accumulate_grad_batches=accumulate)
