"""A search that moves from point to point, always to a better one. No torch."""

from collections.abc import Callable, Hashable, Iterable
from functools import cache
from typing import Generic, TypeVar

Point = TypeVar("Point", bound=Hashable)


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
