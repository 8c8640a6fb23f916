"""Draws a given share of positives in every epoch, alone or on many ranks, for tables of any size."""

import math
from collections.abc import Iterator
from itertools import chain, count, islice
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

from competition.sampling.share_schedule import EpochCounts, ShareSchedule
from competition.support.errors import CompetitionError

CHUNK = 2**16
# Steps of this size, taken round a circle, spread more evenly than random points do, however many there are.
GOLDEN = (math.sqrt(5) - 1) / 2


def make_sides(
    positive: np.ndarray,
    weights: np.ndarray | None,
    groups: np.ndarray | None,
    cap: int | None,
    rng: np.random.Generator,
) -> list["RoundRobin"]:
    """Return the positives and the negatives of a table, each to be drawn from in turn.

    `positive` is (n,) bool, `weights` (n,), `groups` (n,) of any type, of which an epoch takes `cap` rows at most.
    """
    # 32 bits are half the memory wherever the row numbers fit.
    dtype = np.int32 if len(positive) < 2**31 else np.int64
    codes, num_groups = (None, 0) if groups is None else _group_codes(groups, dtype, rng)
    sides = [np.flatnonzero(is_in).astype(dtype) for is_in in (positive, ~positive)]
    for rows in sides:
        rng.shuffle(rows)
    if codes is not None and cap is not None:
        left = np.full(num_groups, min(cap, len(positive)), dtype)
        return [CappedRoundRobin(sides.pop(0), codes, left) for _ in range(2)]  # positives first
    if weights is None:
        return [RoundRobin(rows) for rows in sides]
    if any(len(rows) > 0 and not weights[rows].any() for rows in sides):
        raise CompetitionError("sampler: all positives or all negatives have weight 0; give some of them more")
    return [WeightedRoundRobin(rows, weights) for rows in sides]


class RoundRobin:
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


class WeightedRoundRobin(RoundRobin):
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


class CappedRoundRobin(RoundRobin):
    """Each group has a quota of places; each time a place comes, it holds the next row of its group."""

    def __init__(self, rows: np.ndarray, codes: np.ndarray, left: np.ndarray) -> None:
        """Take of each group as many places as are `left` (groups,) to it, which then are fewer."""
        # The rows of group g, and the places it has, lie between edges g and g + 1.
        self.row_edges, self.place_edges = np.zeros((2, len(left) + 1), rows.dtype)
        for at in range(0, len(rows), CHUNK):
            np.add.at(self.row_edges, codes[rows[at : at + CHUNK]] + 1, 1)
        np.minimum(self.row_edges[1:], left, out=self.place_edges[1:])
        left -= self.place_edges[1:]
        for edges in (self.row_edges, self.place_edges):
            np.cumsum(edges, out=edges)
        super().__init__(_group_by_group(rows, codes, self.row_edges))
        # A group's places are neighbours: no `size` places in a row then hold a row twice.
        self.size = int(self.place_edges[-1])

    def draw(self, epoch: int, num_before: int, out: np.ndarray) -> None:
        filled = 0
        while filled < len(out):
            rounds, place = divmod(num_before + filled, self.size)
            stop = min(place + min(CHUNK, len(out) - filled), self.size)
            out[filled : filled + stop - place] = self._at_places(place, stop, rounds)
            filled += stop - place

    def _at_places(self, place: int, stop: int, rounds: int) -> np.ndarray:
        first, last = np.searchsorted(self.place_edges, [place, stop - 1], side="right") - 1
        edges, row_edges = (x[first : last + 2].astype(np.int64) for x in (self.place_edges, self.row_edges))
        quotas, sizes = np.diff(edges), np.diff(row_edges)
        group = np.repeat(np.arange(len(quotas)), np.diff(np.clip(edges, place, stop)))
        nth = np.arange(place, stop) + (rounds * quotas % np.maximum(sizes, 1) - edges[:-1])[group]
        nth -= np.where(nth < sizes[group], 0, sizes[group])
        return self.rows[row_edges[group] + nth]


def _group_codes(groups: np.ndarray, dtype: type, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Number the groups in random order, which decides the ones that share an epoch; return (n,) and how many.

    `np.unique` would do it in one line, and in three times the memory.
    """
    order, codes = np.argsort(groups), np.empty(len(groups), dtype)
    last = -1
    for at in range(0, len(order), CHUNK):
        rows = order[max(at - 1, 0) : at + CHUNK]  # with the row before, to see whether a group goes on
        names = groups[rows]
        is_new = np.append(at == 0, names[1:] != names[:-1])
        numbers = last + np.cumsum(is_new)
        codes[rows] = numbers
        last = int(numbers[-1])
    del order
    shuffled = rng.permutation(np.arange(last + 1, dtype=dtype))
    for at in range(0, len(codes), CHUNK):
        codes[at : at + CHUNK] = shuffled[codes[at : at + CHUNK]]
    return codes, last + 1


def _group_by_group(rows: np.ndarray, codes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Sort rows by group, in their order within one; in pieces, as a whole `argsort` would need twice the memory."""
    ordered, free = np.empty_like(rows), edges[:-1].copy()
    for at in range(0, len(rows), CHUNK):
        piece = rows[at : at + CHUNK]
        piece = piece[np.argsort(codes[piece], kind="stable")]
        groups = codes[piece]
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        numbers = np.diff(starts, append=len(piece))
        ordered[free[groups] + np.arange(len(piece)) - np.repeat(starts, numbers)] = piece
        free[groups[starts]] += numbers.astype(free.dtype)
    return ordered


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

    def num_drawn(self, epoch: int) -> int:
        """Return the draws of an epoch, of all ranks together, also those that do not divide by the ranks."""
        return self.counts(epoch).drawn

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
