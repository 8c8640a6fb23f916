"""The learning rate by step: warm-up, peak, course and end; torch's own schedules are the references."""

import io
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from competition.config.loading import load_config, task_names
from competition.config.optimizer_settings import Scheduler
from competition.data.folds import make_folds
from competition.support.errors import CompetitionError
from competition.training.preview import preview
from competition.training.schedule import COURSES, Plateau, learning_rate_factor

FALLING = ["cosine", "linear", "constant", "poly", "step", "flat"]
SCHEDULERS = st.builds(
    Scheduler,
    name=st.sampled_from(FALLING),
    milestones=st.lists(st.floats(0.01, 0.99), max_size=3),
    hold=st.floats(0, 0.9),
    power=st.floats(0.1, 3),
    warmup=st.floats(0, 0.9),
    final=st.floats(0, 1),
)


def course(scheduler: Scheduler, steps: int) -> list[float]:
    return [learning_rate_factor(scheduler, steps)(step) for step in range(steps)]


def end_of(scheduler: Scheduler) -> float:
    fallen = {"constant": 1.0, "step": scheduler.gamma ** len(scheduler.milestones)}
    return max(fallen.get(scheduler.name, 0.0), scheduler.final)


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
        assert factors[-1] == pytest.approx(end_of(scheduler))


@given(SCHEDULERS, st.integers(1, 50), st.integers(0, 100))
def test_a_step_more_than_planned_stays_at_the_end(scheduler: Scheduler, steps: int, more: int) -> None:
    factor = learning_rate_factor(scheduler, steps)
    assert factor(steps + more) == pytest.approx(end_of(scheduler)) or steps - round(scheduler.warmup * steps) <= 1


def test_by_hand() -> None:
    linear = course(Scheduler(name="linear", warmup=0.3, final=0.1), 10)
    assert linear == pytest.approx([0.25, 0.5, 0.75, 1, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1])
    cosine = course(Scheduler(name="cosine", warmup=0, final=0), 5)
    assert cosine == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0])
    assert course(Scheduler(name="constant", warmup=0.5, final=0), 4) == pytest.approx([1 / 3, 2 / 3, 1, 1])


def rates(make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], steps: int) -> list[float]:
    """Return the learning rates of so many steps by a schedule of torch, of a peak of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


LAST = 39  # number of the last step of 40
LIKE_TORCH: dict[str, tuple[Scheduler, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]]] = {
    "poly": (
        Scheduler(name="poly", warmup=0, final=0, power=2),
        lambda one: lr_scheduler.PolynomialLR(one, LAST, power=2),
    ),
    "step": (
        Scheduler(name="step", warmup=0, final=0, milestones=[10 / LAST, 20 / LAST, 30 / LAST], gamma=0.5),
        lambda one: lr_scheduler.MultiStepLR(one, [10, 20, 30], gamma=0.5),
    ),
    "onecycle": (
        Scheduler(name="onecycle", warmup=0.25, final=0.01),
        lambda one: lr_scheduler.OneCycleLR(
            one, 1.0, 40, pct_start=11 / 40, div_factor=25, final_div_factor=4, cycle_momentum=False
        ),
    ),
    "restarts": (
        Scheduler(name="restarts", warmup=0, final=0.1, cycles=3),
        lambda one: lr_scheduler.CosineAnnealingWarmRestarts(one, 13, eta_min=0.1),
    ),
    "restarts that grow": (
        Scheduler(name="restarts", warmup=0, final=0, cycles=2, growth=2),
        lambda one: lr_scheduler.CosineAnnealingWarmRestarts(one, 13, T_mult=2),
    ),
}


@pytest.mark.parametrize("name", LIKE_TORCH)
def test_a_course_is_that_of_torch(name: str) -> None:
    scheduler, make = LIKE_TORCH[name]
    steps = 39 if "restarts" in name else 40  # which end a cycle of their own later than we do
    assert course(scheduler, 40)[:steps] == pytest.approx(rates(make, steps), abs=1e-9)


def test_flat_stays_at_the_peak_and_then_falls() -> None:
    found = course(Scheduler(name="flat", warmup=0, final=0, hold=0.5), 9)
    assert found == pytest.approx([1] * 5 + course(Scheduler(name="cosine", warmup=0, final=0), 5)[1:])


def test_plateau_falls_when_validation_has_not_improved_for_so_long() -> None:
    plateau = learning_rate_factor(Scheduler(name="plateau", warmup=0, gamma=0.5, patience=2, final=0.2), 100)
    assert isinstance(plateau, Plateau)
    found = []
    for value in (3, 2, 2, math.nan, 1, 5, 5, 5, 5, 5, 5):
        plateau.observe(value, "min")
        found.append(plateau(50))
    assert found == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]


def test_what_a_plateau_has_seen_goes_into_a_checkpoint_and_back() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    one, other = (
        lr_scheduler.LambdaLR(optimizer, learning_rate_factor(Scheduler(name="plateau", patience=1), 10))
        for _ in range(2)
    )
    seen = one.lr_lambdas[0]
    assert isinstance(seen, Plateau)
    seen.observe(1, "max")
    seen.observe(0, "max")
    torch.save(one.state_dict(), saved := io.BytesIO())
    saved.seek(0)
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert vars(other.lr_lambdas[0]) == vars(seen)
    assert seen.drops == 1


@pytest.mark.parametrize("word", ["fold=all", "fold=[0,all]"])
def test_a_plateau_is_refused_where_nothing_is_validated(config_file: Path, word: str) -> None:
    with pytest.raises(CompetitionError, match="plateau goes by validation"):
        load_config([config_file], ["scheduler.name=plateau", word])


def test_a_preview_draws_every_course(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if load_config([Path(words[0])]).task != task_names()[0]:
        return  # it is the same for each task
    make_folds(load_config([Path(words[0])], words[1:]))
    drawn = {}
    for name in get_args(Scheduler.model_fields["name"].annotation):
        config = load_config([Path(words[0])], [*words[1:], f"scheduler.name={name}", "trainer.max_epochs=6"])
        said, (path, *_) = preview(config)
        assert path.is_file()
        lines = [line.split() for line in said[0].splitlines()]
        columns = [lines[0].index(one) for one in ("lr_first", "lr_last")]
        drawn[name] = tuple(line[column] for line in lines[1:] for column in columns)
        assert any("val/loss improves" in line for line in said) == (name == "plateau")
    assert set(drawn) == {*COURSES, "plateau"}
    assert len(set(drawn.values())) == len(drawn) - 1  # a plateau is constant as far as anybody knows before
