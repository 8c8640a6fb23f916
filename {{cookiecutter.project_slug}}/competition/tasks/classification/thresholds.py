"""Climbing to good thresholds and cut points, coarse to fine, for any score. No torch."""

from collections.abc import Callable, Iterator

import numpy as np

from competition.tasks.classification.decode import SMALLEST
from competition.tasks.classification.metrics import kappa

FLOOR = 1e-6
Score = Callable[[list[float]], float]  # of a limit for each class; more is better


def climb(
    probabilities: np.ndarray,
    score: Score,
    *,
    is_single: bool,
    is_quantile: bool,
    starts: list[list[float]],
    effort: tuple[int, int, int],
) -> list[float]:
    """Return thresholds, or quantiles, (classes,) for probabilities (n, classes).

    Tried are places between the predictions themselves: so many coarse ones, so many finer ones around the best of
    them, and so many rounds over the classes (`effort`), from the best of the starts or of places for all classes
    together. With one class an image the thresholds only count against each other: the largest is brought to 1 or less.
    """
    num_classes = probabilities.shape[1]
    coarse, fine, rounds = effort
    limits = np.array(starts[0])
    best = score(starts[0])
    for start in starts[1:]:
        limits, best = _better(limits, best, np.array(start), score)
    if not is_single:
        pooled = probabilities.reshape(-1)
        for value in _places(pooled, coarse, fine, lambda v: score([v] * num_classes), is_quantile):
            limits, best = _better(limits, best, np.full(num_classes, value), score)
    for _ in range(rounds if num_classes > 1 else 0):
        before = best
        for number in range(num_classes):
            column = _against_others(probabilities, limits, number) if is_single else probabilities[:, number]
            found = _places(column, coarse, fine, _along(limits, number, score, is_single), is_quantile)
            for value in found:
                moved = limits.copy()
                moved[number] = value
                limits, best = _better(limits, best, _within(moved, is_single), score)
        if best <= before:
            break
    return [float(limit) for limit in limits]


def _better(limits: np.ndarray, best: float, other: np.ndarray, score: Score) -> tuple[np.ndarray, float]:
    reached = score(other.tolist())
    return (other, reached) if reached > best else (limits, best)


def _along(limits: np.ndarray, number: int, score: Score, is_single: bool) -> Callable[[float], float]:
    def at(value: float) -> float:
        moved = limits.copy()
        moved[number] = value
        return score(_within(moved, is_single).tolist())

    return at


def _within(limits: np.ndarray, is_single: bool) -> np.ndarray:
    scaled = limits / max(limits.max(), 1.0) if is_single else limits
    return np.clip(scaled, FLOOR, 1.0) if is_single else scaled


def _against_others(probabilities: np.ndarray, limits: np.ndarray, number: int) -> np.ndarray:
    """Return (n,) thresholds of a class at which each image would change to it."""
    ratios = probabilities / limits
    ratios[:, number] = 0
    return probabilities[:, number] / np.maximum(ratios.max(axis=1), FLOOR)


def _places(
    column: np.ndarray, coarse: int, fine: int, score: Callable[[float], float], is_quantile: bool
) -> Iterator[float]:
    """Yield the best of places between the values (n,), first of coarse ones, then of finer ones beside it."""
    rising = np.unique(column.astype(np.float64))
    number = len(rising)
    if number < 2:
        return

    def place(index: int) -> float:
        if is_quantile:
            return float(np.clip((np.searchsorted(sorted_all, rising[index], side="right") - 0.5) / last, 0, 1))
        return float(max((rising[index] + rising[index + 1]) / 2, FLOOR))

    sorted_all, last = np.sort(column), max(len(column) - 1, 1)
    low, high = 0, number - 2
    for count in (coarse, fine):
        tried = np.unique(np.linspace(low, high, count).round().astype(int))
        reached = [score(place(index)) for index in tried]
        at = int(np.argmax(reached))
        yield place(tried[at])
        low, high = int(tried[max(at - 1, 0)]), int(tried[min(at + 1, len(tried) - 1)])


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
