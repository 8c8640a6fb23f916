"""The rows of one side of a table, positives or negatives, that come in turn: all, by weight, or so many of a group."""

import math

import numpy as np

from competition.errors import CompetitionError

CHUNK = 2**16
# Steps of this size, taken round a circle, spread more evenly than random points do, however many there are.
GOLDEN = (math.sqrt(5) - 1) / 2


def make_sides(
    positive: np.ndarray,
    weights: np.ndarray | None,
    groups: np.ndarray | None,
    cap: int | None,
    rng: np.random.Generator,
) -> list["Turns"]:
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
        return [CappedTurns(sides.pop(0), codes, left) for _ in range(2)]  # positives first
    if weights is None:
        return [Turns(rows) for rows in sides]
    if any(len(rows) > 0 and not weights[rows].any() for rows in sides):
        raise CompetitionError("sampler: all positives or all negatives have weight 0; give some of them more")
    return [WeightedTurns(rows, weights) for rows in sides]


class Turns:
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


class WeightedTurns(Turns):
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


class CappedTurns(Turns):
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
