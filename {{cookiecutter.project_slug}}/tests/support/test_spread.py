"""Some of many places are as many as asked for, evenly spread from the first to the last."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from competition.support.spread import spread


@given(st.integers(0, 3000), st.integers(1, 80))
def test_places_are_distinct_in_order_and_as_far_apart_as_can_be(number: int, most: int) -> None:
    places = spread(number, most)
    assert len(places) == min(number, most)
    steps = [later - earlier for earlier, later in pairwise(places)]
    assert not steps or (min(steps) > 0 and max(steps) - min(steps) <= 1)
    if places:
        assert places[0] == 0
        assert places[-1] == number - 1 or len(places) == 1
