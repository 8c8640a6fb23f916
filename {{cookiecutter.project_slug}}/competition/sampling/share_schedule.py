"""The share of positives an epoch should have and what it then holds: plain numbers, no draw, no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Self

from competition.support.errors import CompetitionError

Course = Literal["hold", "linear", "cosine"]


@dataclass(frozen=True)
class ShareSchedule:
    """Positive share by epoch, given at a few epochs; `course` says what happens between them.

    `points` are (epoch, share), the first at epoch 0; a share of None is the natural one (of the data). The
    last share stays to the end of the run. By default every epoch has the natural share.
    """

    points: tuple[tuple[int, float | None], ...] = ((0, None),)
    course: Course = "hold"

    def __post_init__(self) -> None:
        """Raise CompetitionError if the points do not make a schedule."""
        epochs = [epoch for epoch, _ in self.points]
        if self.course not in ("hold", "linear", "cosine"):
            raise CompetitionError(f"sampler: course is {self.course!r}; expected hold, linear or cosine")
        if not epochs or epochs[0] != 0:
            raise CompetitionError(f"sampler: shares are given for epochs {epochs}; give one for epoch 0 first")
        if any(late <= early for early, late in pairwise(epochs)):
            raise CompetitionError(f"sampler: shares are given for epochs {epochs}; list each once, in rising order")
        for epoch, share in self.points:
            if share is not None and not 0 < share <= 1:
                raise CompetitionError(
                    f"sampler: the positive share of epoch {epoch} is {share}; expected a number over 0 and "
                    "at most 1, or the natural share"
                )

    @classmethod
    def constant(cls, share: float | None) -> Self:
        """Return the same share in every epoch."""
        return cls(((0, share),))

    @classmethod
    def steps(cls, shares: Mapping[int, float | None]) -> Self:
        """Return shares that hold from their epoch until the next one's."""
        return cls(tuple(shares.items()))

    @classmethod
    def linear(cls, start: float, epochs: int, end: float | None = None) -> Self:
        """Return a straight line from `start` in epoch 0 to `end` (None: natural) in epoch `epochs`."""
        return cls(((0, start), (epochs, end)), "linear")

    @classmethod
    def cosine(cls, start: float, epochs: int, end: float | None = None) -> Self:
        """Return half a cosine wave from `start` in epoch 0 to `end` (None: natural) in epoch `epochs`."""
        return cls(((0, start), (epochs, end)), "cosine")

    @property
    def last_change(self) -> int:
        """Epoch from which the share stays as it is."""
        return self.points[-1][0]

    def share(self, epoch: int, natural: float) -> float:
        """Return the share of an epoch (0, 1, ...), where `natural` is the share of positives in the data."""
        shares = [(at, natural if share is None else share) for at, share in self.points]
        at, share = max(point for point in shares if point[0] <= epoch)
        later = [point for point in shares if point[0] > epoch]
        if self.course == "hold" or not later:
            return share
        next_at, next_share = later[0]
        way = (epoch - at) / (next_at - at)
        if self.course == "cosine":
            way = (1 - math.cos(math.pi * way)) / 2
        return share + (next_share - share) * way


@dataclass(frozen=True)
class EpochCounts:
    """What one epoch holds over all ranks; the unit is draws, so a repeated row counts each time."""

    epoch: int
    asked: float  # the schedule's share; what is reached is `share`
    positives: int
    negatives: int
    world_size: int = 1

    @property
    def drawn(self) -> int:
        """Draws of the epoch, also those that do not divide by the ranks."""
        return self.positives + self.negatives

    @property
    def share(self) -> float:
        """Share of positives that is reached."""
        return self.positives / max(1, self.drawn)

    @property
    def per_rank(self) -> int:
        """Draws each rank gets, the same number on all."""
        return self.drawn // self.world_size

    @property
    def total(self) -> int:
        """Draws all ranks get together: up to world_size - 1 fewer than positives + negatives."""
        return self.per_rank * self.world_size

    def num_batches(self, batch_size: int, *, drop_last: bool = False) -> int:
        """Return the batches each rank gets, where `batch_size` is one rank's."""
        return self.per_rank // batch_size if drop_last else -(-self.per_rank // batch_size)


def schedule_warnings(schedule: ShareSchedule, epochs: Sequence[EpochCounts]) -> list[str]:
    """Say in a line each what will not go as the settings suggest, with epochs counted from 1.

    `epochs` are the counts of the whole run: `[sampler.counts(epoch) for epoch in range(max_epochs)]`.
    """
    lines = []
    if epochs and schedule.last_change >= len(epochs):
        lines.append(
            f"sampler: the share changes until epoch {schedule.last_change + 1}, but the run's last epoch is "
            f"{epochs[-1].epoch + 1}: it ends at share {epochs[-1].share:.3f}"
        )
    # A share is reached to less than a whole draw; more off means that there was nothing left to draw.
    missed = [c for c in epochs if abs(c.asked - c.share) * c.drawn > 1]
    if missed:
        lines.append(
            f"sampler: share {missed[0].asked:.3f} cannot be reached with the images there are in "
            f"{epochs_in_words([c.epoch for c in missed])}: the share is {missed[0].share:.3f} instead"
        )
    return lines


def epochs_in_words(epochs: Sequence[int]) -> str:
    """Name epochs in words, counted from 1, as on the console."""
    first, last = epochs[0] + 1, epochs[-1] + 1
    return f"epoch {first}" + (f" (and {len(epochs) - 1} more up to epoch {last})" if last > first else "")
