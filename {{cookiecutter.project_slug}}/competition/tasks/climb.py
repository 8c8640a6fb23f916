"""A search that moves from point to point, always to a better one. No torch."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Generic, Self, TypeVar

import numpy as np

LEAST_CUT = 0.02  # lower ones are not tried: boxes are stored from 0.01

Point = TypeVar("Point", bound=Hashable)
Cuts = TypeVar("Cuts", bound="CutPoint")


class Climb(Generic[Point]):
    """The best point so far, by a function that is to be made large; each point is asked for once."""

    def __init__(self, objective: Callable[[Point], float], start: Point) -> None:
        self._objective = cache(objective)
        self.point, self.score = start, self._objective(start)

    def look(self, points: Iterable[Point]) -> None:
        """Move to the best of the points if it is better."""
        for point in list(points):
            if (score := self._objective(point)) > self.score:
                self.point, self.score = point, score


@dataclass(frozen=True)
class CutPoint:
    """Settings of `decode:` of which some are cuts: the score, class by class, below which what was found is left
    out."""

    cuts: tuple[float, ...]  # one a class

    def with_cut(self, change: Callable[[float], float], class_number: int | None = None) -> Self:
        """Change the cut of all classes, or of one."""
        changed = tuple(
            round(float(np.clip(change(cut), LEAST_CUT, 1)), 4) if class_number in (None, number) else cut
            for number, cut in enumerate(self.cuts)
        )
        return replace(self, cuts=changed)

    def settings(self) -> dict[str, Any]:
        """Return keys of `decode:`."""
        same = len(set(self.cuts)) == 1
        return {"min_score": self.cuts[0] if same else list(self.cuts)}


def look_at_cuts(climb: Climb[Cuts], class_number: int | None, steps: Iterable[float]) -> None:
    """Move the cut of all classes, or of one, by the best of the steps, if any is better than none."""
    climb.look(climb.point.with_cut(lambda cut, step=step: cut + step, class_number) for step in steps)
