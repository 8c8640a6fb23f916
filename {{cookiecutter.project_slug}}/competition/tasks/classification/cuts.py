"""Exact searches for where to cut: a threshold of one class, the cut points between ranks. No torch."""

from collections.abc import Callable

import numpy as np

from competition.tasks.classification.decode import SMALLEST
from competition.tasks.classification.metrics import kappa

# From right answers among the first k, k, and how many are true and are there in all: the score of answering those k.
CutScore = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]


def f1(hits: np.ndarray, chosen: np.ndarray, num_true: int, num: int) -> np.ndarray:
    """Return 2 TP / (chosen + true)."""
    return 2 * hits / np.maximum(chosen + num_true, 1)


def right_answers(hits: np.ndarray, chosen: np.ndarray, num_true: int, num: int) -> np.ndarray:
    """Return TP + TN."""
    return 2 * hits - chosen + num - num_true


def balanced_right_answers(hits: np.ndarray, chosen: np.ndarray, num_true: int, num: int) -> np.ndarray:
    """Return the sum of the shares of right answers on both sides."""
    return hits / max(num_true, 1) - (chosen - hits) / max(num - num_true, 1)


def best_threshold(probabilities: np.ndarray, truth: np.ndarray, score: CutScore, *, is_quantile: bool) -> float:
    """Return the best threshold over 0 of probabilities (n,) against truth (n,) bool, or the quantile it is at.

    Exact: every place between two different probabilities is looked at, by one sort.
    """
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order].astype(np.float64)
    number = len(falling)
    chosen = np.arange(number + 1)
    hits = np.concatenate([[0], np.cumsum(truth[order])])
    above, below = np.append(np.inf, falling), np.append(falling, 0.0)
    # No threshold is over 1, and no quantile leaves out the largest.
    is_place = (above > below) & ((chosen > 0) if is_quantile else (below < 1))
    scores = np.where(is_place, score(hits, chosen, int(truth.sum()), number), -np.inf)
    best = int(scores.argmax())
    if is_quantile:
        return float(np.clip((number - best - 0.5) / max(number - 1, 1), 0, 1))
    return max((min(above[best], 1.0) + below[best]) / 2, SMALLEST)


def best_cut_points(
    values: np.ndarray, truth: np.ndarray, lowest: int, num_ranks: int, own: list[float] | None
) -> list[float]:
    """Return the `num_ranks - 1` cut points of values (n,) whose ranks agree best with truth (n,) by `kappa`.

    Coordinate by coordinate until none gets better, from halves, the truth's shares, and the config's own points if
    there are some. Every place is looked at, for little: both sums of kappa are prefix sums over the sorted values.
    """
    order = np.argsort(values, kind="stable")
    rising, ranks = values[order], np.arange(num_ranks) + lowest
    counts = np.bincount(truth.astype(np.int64) - lowest, minlength=num_ranks)
    starts = [np.searchsorted(rising, ranks[:-1] + 0.5), np.cumsum(counts)[:-1]]
    if own is not None and len(own) == num_ranks - 1:
        starts.append(np.searchsorted(rising, own))
    found = [_climb(rising, truth[order], ranks, start) for start in starts]
    best = max(found, key=lambda points: kappa(lowest + np.searchsorted(points, values, side="right"), truth))
    return [float(point) for point in best]


def _climb(rising: np.ndarray, truth: np.ndarray, ranks: np.ndarray, start: np.ndarray) -> np.ndarray:
    number = len(rising)
    # What it costs to give the first k images a rank: against their own truth, and against everybody's.
    own = np.vstack([np.zeros(len(ranks)), np.cumsum((ranks - truth[:, None]) ** 2, axis=0)])
    chance = ((ranks - truth[:, None]) ** 2).mean(axis=0) * np.arange(number + 1)[:, None]
    is_place = np.concatenate([[True], np.diff(rising) > 0, [True]])
    places = np.flatnonzero(is_place)
    at = places[np.searchsorted(places, start)]

    def costs(table: np.ndarray, at: np.ndarray) -> float:
        ends = np.concatenate([[0], at, [number]])
        return float(sum(table[ends[r + 1], r] - table[ends[r], r] for r in range(len(ranks))))

    for _ in range(100):
        before = at.copy()
        for cut in range(len(at)):
            low, high = (at[cut - 1] if cut else 0), (at[cut + 1] if cut + 1 < len(at) else number)
            tried = places[(places >= low) & (places <= high)]
            moved = [table[tried, cut] - table[tried, cut + 1] for table in (own, chance)]
            here = [table[at[cut], cut] - table[at[cut], cut + 1] for table in (own, chance)]
            numerator, denominator = (
                costs(table, at) + change - now for table, change, now in zip((own, chance), moved, here, strict=True)
            )
            ratio = numerator / np.maximum(denominator, 1e-12)
            if ratio.min() < ratio[np.searchsorted(tried, at[cut])]:
                at[cut] = tried[ratio.argmin()]
        if (at == before).all():
            break
    above, below = np.append(rising, rising[-1] + 1), np.insert(rising, 0, rising[0] - 1)
    return (above[at] + below[at]) / 2
