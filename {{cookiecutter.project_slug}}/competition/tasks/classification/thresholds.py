"""Climbing to good thresholds class by class, coarse to fine, for any score. No torch."""

from collections.abc import Callable, Iterator

import numpy as np

SMALLEST = 1e-6
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
    return np.clip(scaled, SMALLEST, 1.0) if is_single else scaled


def _against_others(probabilities: np.ndarray, limits: np.ndarray, number: int) -> np.ndarray:
    """Return (n,) thresholds of a class at which each image would change to it."""
    ratios = probabilities / limits
    ratios[:, number] = 0
    return probabilities[:, number] / np.maximum(ratios.max(axis=1), SMALLEST)


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
        return float(max((rising[index] + rising[index + 1]) / 2, SMALLEST))

    sorted_all, last = np.sort(column), max(len(column) - 1, 1)
    low, high = 0, number - 2
    for count in (coarse, fine):
        tried = np.unique(np.linspace(low, high, count).round().astype(int))
        reached = [score(place(index)) for index in tried]
        at = int(np.argmax(reached))
        yield place(tried[at])
        low, high = int(tried[max(at - 1, 0)]), int(tried[min(at + 1, len(tried) - 1)])
