"""The learning rate by step: warm-up, peak, course and end."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.config.settings import Scheduler
from competition.training.optimizer import learning_rate_factor

SCHEDULERS = st.builds(
    Scheduler,
    name=st.sampled_from(["cosine", "linear", "constant"]),
    warmup=st.floats(0, 0.9),
    final=st.floats(0, 1),
)


def course(scheduler: Scheduler, steps: int) -> list[float]:
    return [learning_rate_factor(scheduler, steps)(step) for step in range(steps)]


@given(SCHEDULERS, st.integers(1, 300))
def test_it_rises_evenly_to_the_peak_and_never_again(scheduler: Scheduler, steps: int) -> None:
    factors = course(scheduler, steps)
    peak = factors.index(max(factors))
    rises = [after - before for before, after in pairwise(factors[: peak + 1])]
    assert rises == pytest.approx(rises[:1] * len(rises))
    assert all(after <= before + 1e-12 for before, after in pairwise(factors[peak:]))
    assert all(0 <= factor <= 1 for factor in factors)


@given(SCHEDULERS, st.integers(10, 300))
def test_the_peak_is_full_and_the_last_step_is_the_final_share(scheduler: Scheduler, steps: int) -> None:
    factors = course(scheduler, steps)
    warmup = round(scheduler.warmup * steps)
    if warmup < steps - 1:
        assert factors[warmup] == pytest.approx(1)
        assert factors[-1] == pytest.approx(1 if scheduler.name == "constant" else scheduler.final)


@given(SCHEDULERS, st.integers(1, 50), st.integers(0, 100))
def test_a_step_more_than_planned_stays_at_the_end(scheduler: Scheduler, steps: int, more: int) -> None:
    factor = learning_rate_factor(scheduler, steps)
    end = 1.0 if scheduler.name == "constant" else scheduler.final
    assert factor(steps + more) == pytest.approx(end) or steps - round(scheduler.warmup * steps) <= 1


def test_by_hand() -> None:
    linear = course(Scheduler(name="linear", warmup=0.3, final=0.1), 10)
    assert linear == pytest.approx([0.25, 0.5, 0.75, 1, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1])
    cosine = course(Scheduler(name="cosine", warmup=0, final=0), 5)
    assert cosine == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0])
    assert course(Scheduler(name="constant", warmup=0.5, final=0), 4) == pytest.approx([1 / 3, 2 / 3, 1, 1])
