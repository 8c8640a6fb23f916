"""Draws a given share of positives in every epoch, alone or on many ranks, for tables of any size."""

import math
from collections.abc import Iterator
from itertools import chain, count, islice
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

from competition.errors import CompetitionError
from competition.share_schedule import EpochCounts, ShareSchedule

CHUNK = 2**16
# Steps of this size, taken round a circle, spread more evenly than random points do, however many there are.
GOLDEN = (math.sqrt(5) - 1) / 2


class RatioSampler(Sampler[int]):
    """Yields row numbers at the positive share that a schedule asks for in the current epoch.

    keep="positives": every positive once, and as many negatives as make the share (at most all of them).
    keep="negatives": every negative once, and positives repeated as evenly as possible.
    num_draws: so many draws an epoch instead, whatever there is.

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
        self._positives, self._negatives = _make_sides(positive, weights, groups, max_per_group, rng)
        self._check_shares()
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
        return islice(chain.from_iterable(self._own_rows(self.epoch)), self.start, len(self))

    def _own_rows(self, epoch: int) -> Iterator[list[int]]:
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
            positives = round(self.num_draws * asked)
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
            raise CompetitionError(f"sampler: epoch {epoch} has {total} draws for {self.world_size} ranks; use fewer")
        return EpochCounts(epoch, asked, positives, negatives, self.world_size)

    def _check_shares(self) -> None:
        shares = [share for _, share in self.schedule.points]
        if self.num_draws is not None and (self.num_draws < 1 or self.keep == "negatives"):
            raise CompetitionError(f"sampler: num_draws {self.num_draws}, keep {self.keep}: give 1 or more, no keep")
        needs_negatives = self.keep == "negatives" or any(s is not None and s < 1 for s in shares)
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


class _Turns:
    """The rows of one side, (n,) in an order that a seed decided, in turn, round and round."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.dtype = rows, rows.dtype
        self.size = len(rows)  # distinct rows an epoch can have

    def draw(self, epoch: int, num_before: int, out: np.ndarray) -> None:
        """Fill `out` with the rows that come after the `num_before` of all epochs before."""
        filled = 0
        while filled < len(out):
            piece = self.rows[(num_before + filled) % self.size :][: len(out) - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)


class _WeightedTurns(_Turns):
    """Rows in proportion to weights: a row due 2.3 times comes 2 or 3 times, never 0 or 7 as by chance."""

    def __init__(self, rows: np.ndarray, weights: np.ndarray) -> None:
        super().__init__(rows)
        self.edges = weights[rows].astype(np.float64, copy=False)
        np.cumsum(self.edges, out=self.edges)
        self.edges /= self.edges.max(initial=0)  # there may be no rows

    def draw(self, epoch: int, num_before: int, out: np.ndarray) -> None:
        # Systematic sampling: a comb of even teeth over the weights laid end to end, moved on every epoch. Half a
        # move comes first: of teeth on the very edges of equal weights, rounding would decide. The minimum is for
        # `len(out) + shift` rounded up to one too many.
        shift, filled = (epoch + 0.5) * GOLDEN % 1, 0
        for at in range(0, self.size, CHUNK):
            teeth = np.minimum(self.edges[at : at + CHUNK] * len(out) + shift, len(out)).astype(np.int64)
            out[filled : teeth[-1]] = np.repeat(self.rows[at : at + CHUNK], np.diff(teeth, prepend=filled))
            filled = int(teeth[-1])


class _CappedTurns(_Turns):
    """Each group has a quota of places; each time a place comes, it holds the next row of its group."""

    def __init__(self, rows: np.ndarray, codes: np.ndarray, quotas: np.ndarray) -> None:
        super().__init__(rows[np.argsort(codes[rows], kind="stable")])
        self.sizes = np.bincount(codes[rows], minlength=len(quotas))
        self.quotas = np.minimum(self.sizes, quotas)
        self.first_rows, self.first_places = (np.cumsum(x) - x for x in (self.sizes, self.quotas))
        # A group's places are neighbours: no `size` places in a row then hold a row twice.
        self.group_of_place = np.repeat(np.arange(len(quotas), dtype=self.dtype), self.quotas)
        self.size = len(self.group_of_place)

    def draw(self, epoch: int, num_before: int, out: np.ndarray) -> None:
        for at in range(0, len(out), CHUNK):
            rounds, places = np.divmod(num_before + np.arange(at, min(at + CHUNK, len(out))), self.size)
            group = self.group_of_place[places]
            nth = (rounds * self.quotas[group] + places - self.first_places[group]) % self.sizes[group]
            out[at : at + CHUNK] = self.rows[self.first_rows[group] + nth]


def _make_sides(
    positive: np.ndarray,
    weights: np.ndarray | None,
    groups: np.ndarray | None,
    cap: int | None,
    rng: np.random.Generator,
) -> list[_Turns]:
    # 32 bits are half the memory wherever the row numbers fit.
    dtype = np.int32 if len(positive) <= 2**31 else np.int64
    sides = [np.flatnonzero(is_in).astype(dtype) for is_in in (positive, ~positive)]
    for rows in sides:
        rng.shuffle(rows)
    if groups is not None and cap is not None:
        names, codes = np.unique(groups, return_inverse=True)
        # The order of groups decides which ones share an epoch.
        codes = rng.permutation(len(names))[codes]
        quotas = np.minimum(np.bincount(codes[sides[0]], minlength=len(names)), cap)
        return [_CappedTurns(sides[0], codes, quotas), _CappedTurns(sides[1], codes, cap - quotas)]
    if weights is None:
        return [_Turns(rows) for rows in sides]
    if any(len(rows) > 0 and not weights[rows].any() for rows in sides):
        raise CompetitionError("sampler: all positives or all negatives have weight 0; give some of them more")
    return [_WeightedTurns(rows, weights) for rows in sides]


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
