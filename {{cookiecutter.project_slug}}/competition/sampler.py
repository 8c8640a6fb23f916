"""Draws a given share of positives in every epoch, alone or on many ranks, for tables of any size."""

import math
from collections.abc import Iterator
from itertools import chain, count, islice
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

from competition.errors import CompetitionError
from competition.share_schedule import EpochCounts, ShareSchedule
from competition.turns import CHUNK, make_sides


class RatioSampler(Sampler[int]):
    """Yields row numbers at the positive share that a schedule asks for in the current epoch.

    keep="positives": every positive once, and as many negatives as make the share (at most all of them).
    keep="negatives": every negative once, and positives repeated as evenly as possible.
    num_draws: so many draws an epoch instead, whatever there is; what is left of a draw is carried to the next epoch.

    Draws continue where the epoch before stopped: over the run all rows of a side come equally often.
    `weights` change that: rows of a side come in proportion to their weight, rounded up or down. Under
    `max_per_group` an epoch holds at most so many rows of a group, positives first, and repeats none.

    The draw depends on seed and epoch alone. Rank r of w takes positions r, r + w, r + 2w, ... of it, so a global batch
    holds the same rows for any w. Up to w - 1 draws at the end are left out, and ranks are equally long.
    """

    def __init__(
        self,
        positive: np.ndarray,
        *,
        seed: int,
        schedule: ShareSchedule | None = None,
        keep: Literal["positives", "negatives"] = "positives",
        num_draws: int | None = None,
        weights: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        max_per_group: int | None = None,
        epoch: int = 0,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Take `positive` (n,) bool, `weights` (n,) of 0 or more, and `groups` (n,) of any type.

        `epoch` and `start` are those of `set_epoch`. `rank` and `world_size` say all that is needed of a
        process group. Raises CompetitionError if rows, shares or the number of ranks make no draw.
        """
        assert 0 <= rank < world_size
        self.schedule = schedule or ShareSchedule()
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.keep, self.num_draws, self.is_capped = keep, num_draws, max_per_group is not None
        _check_rows(positive, weights, groups, max_per_group)
        # The last number keeps this stream apart from every epoch's.
        rng = np.random.default_rng([seed, 0, 1])
        self._positives, self._negatives = make_sides(positive, weights, groups, max_per_group, rng)
        self._check_shares()
        self._due = [0.0]  # positives by epoch, summed over those before it; as far as they have been asked for
        self.epoch, self.start = epoch, start
        self.counts(epoch)

    def set_epoch(self, epoch: int, *, start: int | None = None) -> None:
        """Choose the epoch; this rank's first `start` draws of it are skipped, to go on in its middle."""
        # Lightning names the epoch once more, without `start`: the same epoch again changes nothing.
        if epoch != self.epoch or start is not None:
            self.epoch, self.start = epoch, start or 0

    def __len__(self) -> int:
        """Return this rank's draws in the current epoch, with those skipped: Lightning counts them as done."""
        return self.counts(self.epoch).per_rank

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's row numbers of the current epoch."""
        return islice(chain.from_iterable(self.own_rows(self.epoch)), self.start, len(self))

    def own_rows(self, epoch: int) -> Iterator[list[int]]:
        """Yield this rank's row numbers of an epoch in pieces, also those that some ranks have one more of."""
        at = 0
        for chunk in self.chunks(epoch):
            # Only a chunk at a time becomes Python numbers: all of them would take ten times the memory.
            yield chunk[(self.rank - at) % self.world_size :: self.world_size].tolist()
            at += len(chunk)

    def chunks(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the epoch's draw for all ranks, in pieces that each have its share of positives."""
        counts = self.counts(epoch)
        before = [self.counts(earlier) for earlier in range(epoch)]
        rows = np.empty(counts.positives + counts.negatives, self._positives.dtype)
        self._positives.draw(epoch, sum(c.positives for c in before), rows[: counts.positives])
        self._negatives.draw(epoch, sum(c.negatives for c in before), rows[counts.positives :])
        rng = np.random.default_rng([self.seed, epoch])
        # Big tables are dealt into piles that fit the processor's cache, where shuffling is several times faster.
        # Another number every epoch brings other rows together; one prime to the sides spreads repeated rows.
        fewest = -(-len(rows) // CHUNK)
        sizes = max(1, self._negatives.size) * self._positives.size
        fitting = (number for number in count(fewest) if math.gcd(number, sizes) == 1)
        num_piles = next(islice(fitting, epoch % fewest, None))
        for first in rng.permutation(num_piles):
            pile = rows[first::num_piles].copy()
            rng.shuffle(pile)
            yield pile

    def counts(self, epoch: int) -> EpochCounts:
        """Return how many draws an epoch has, without drawing; raise CompetitionError if a rank gets none."""
        num_positives, num_negatives = self._positives.size, self._negatives.size
        asked = self.schedule.share(epoch, num_positives / (num_positives + num_negatives))
        if self.num_draws is not None:
            positives = min(self._num_due(epoch + 1) - self._num_due(epoch), self.num_draws)
            negatives = self.num_draws - positives
        elif self.keep == "positives":
            positives = num_positives
            negatives = round(min(num_negatives, num_positives * (1 - asked) / asked))
        else:
            positives = round(num_negatives * asked / (1 - asked))
            negatives = num_negatives
        if self.is_capped:
            positives, negatives = min(positives, num_positives), min(negatives, num_negatives)
        if (total := positives + negatives) < self.world_size:
            raise CompetitionError(
                f"sampler: epoch {epoch + 1} has {total} draws for {self.world_size} ranks; use fewer"
            )
        return EpochCounts(epoch, asked, positives, negatives, self.world_size)

    def _num_due(self, epoch: int) -> int:
        """Return the positives that `num_draws` brings in all epochs before this one.

        It is rounded once: of a share below half a draw an epoch, rounding each would never draw a positive.
        """
        assert self.num_draws is not None
        natural = self._positives.size / (self._positives.size + self._negatives.size)
        while len(self._due) <= epoch:
            self._due.append(self._due[-1] + self.num_draws * self.schedule.share(len(self._due) - 1, natural))
        return math.floor(self._due[epoch] + 0.5)

    def _check_shares(self) -> None:
        shares = [share for _, share in self.schedule.points]
        if self.num_draws is not None and (self.num_draws < 1 or self.keep == "negatives"):
            raise CompetitionError(f"sampler: num_draws {self.num_draws}, keep {self.keep}: give 1 or more, no keep")
        # Without them keep="positives" still has an epoch: every positive once. `schedule_warnings` tells of the share.
        has_share = any(share is not None and share < 1 for share in shares)
        needs_negatives = self.keep == "negatives" or (self.num_draws is not None and has_share)
        if self._negatives.size == 0 and needs_negatives:
            raise CompetitionError(
                f"sampler: an epoch can have {self._positives.size} positives and no negative; change what "
                "counts as positive, raise max_per_group, or leave the share natural and keep positives"
            )
        if self.keep == "negatives" and 1 in shares:
            raise CompetitionError("sampler: share 1 has no room for negatives; set keep to positives")


def class_weights(labels: np.ndarray, kind: Literal["balanced", "sqrt"]) -> np.ndarray:
    """Return (n,) weights by class frequency: its inverse, or the inverse of its square root.

    `labels` are (n,) of any type, or (n, classes) multi-hot, where a row's rarest class decides, as in the
    repeat-factor sampling of LVIS (Gupta et al. 2019), and rows without a class make a class of their own.
    """
    power = -1.0 if kind == "balanced" else -0.5
    if labels.ndim == 1:
        _, codes, numbers = np.unique(labels, return_inverse=True, return_counts=True)
        return (numbers**power)[codes]
    is_empty = ~labels.any(axis=1)
    weights = np.where(is_empty, max(1, int(is_empty.sum())) ** power, 0.0)
    for column in labels.T:
        has_class = column.astype(bool)
        np.maximum(weights, has_class * max(1, int(has_class.sum())) ** power, out=weights)
    return weights


def _check_rows(positive: np.ndarray, weights: np.ndarray | None, groups: np.ndarray | None, cap: int | None) -> None:
    if positive.dtype != np.bool_ or positive.ndim != 1:
        raise CompetitionError(f"sampler: positive is {positive.ndim}d {positive.dtype}; expected 1d bool")
    if not positive.any():
        raise CompetitionError(f"sampler: 0 of {len(positive)} rows are positive; change what counts as such")
    for name, values in (("weights", weights), ("groups", groups)):
        if values is not None and values.shape != positive.shape:
            raise CompetitionError(f"sampler: {name} has shape {values.shape}; expected {positive.shape}")
    if weights is not None and not (np.isfinite(weights).all() and weights.min() >= 0):
        raise CompetitionError("sampler: a weight is negative or not a number; expected weights of 0 or more")
    if (groups is None) != (cap is None) or (cap is not None and cap < 1):
        raise CompetitionError(f"sampler: max_per_group is {cap}; expected at least 1, with groups")
    if weights is not None and groups is not None:
        raise CompetitionError("sampler: weights repeat rows and max_per_group forbids it; give one of them")
