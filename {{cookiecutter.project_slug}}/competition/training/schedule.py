"""The learning rate by optimizer step, as a factor of its peak."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from competition.config.optimizer_settings import Scheduler
from competition.config.settings import Mode

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LambdaLR

Course = Callable[[float], float]  # from the share of the way behind the warm-up to the share of the peak
FIRST = 0.04  # share of the peak that a cycle of `onecycle` begins with, as torch's


def learning_rate_factor(settings: Scheduler, total_steps: int) -> Callable[[int], float]:
    """Return the factor of the peak learning rate at each of `total_steps` optimizer steps.

    Warm-up over the first `warmup` share, then the named course, to `final` at the last step where it falls at all.
    """
    warmup = round(settings.warmup * total_steps)
    if settings.name == "plateau":
        return Plateau(settings, warmup)
    course = COURSES[settings.name](settings)
    rise = _cosine_rise if settings.name == "onecycle" else _linear_rise

    def factor(step: int) -> float:
        if step < warmup:
            return rise(step, warmup)
        progress = min((step - warmup) / max(total_steps - 1 - warmup, 1), 1.0)
        return settings.final + (1 - settings.final) * course(progress)

    return factor


def _linear_rise(step: int, warmup: int) -> float:
    return (step + 1) / (warmup + 1)


def _cosine_rise(step: int, warmup: int) -> float:
    return FIRST + (1 - FIRST) * (1 - _cosine(step / warmup))


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _steps(settings: Scheduler) -> Course:
    """Fall by `gamma` at each milestone; of the peak, of which the caller leaves `final` at least."""
    final = settings.final

    def course(progress: float) -> float:
        share = settings.gamma ** sum(progress >= one for one in settings.milestones)
        return max(share - final, 0.0) / (1 - final) if final < 1 else 0.0

    return course


def _restarts(settings: Scheduler) -> Course:
    """Fall along a cosine again and again (Loshchilov and Hutter 2017), each time `growth` as long as before."""
    lengths = [settings.growth**cycle for cycle in range(settings.cycles)]
    ends = [sum(lengths[: cycle + 1]) / sum(lengths) for cycle in range(settings.cycles)]
    ends[-1] = 1.0

    def course(progress: float) -> float:
        cycle = next((number for number, end in enumerate(ends) if progress < end), settings.cycles - 1)
        begin = ends[cycle - 1] if cycle else 0.0
        return _cosine((progress - begin) / (ends[cycle] - begin))

    return course


def _flat(settings: Scheduler) -> Course:
    """Stay at the peak for a share of the way, then fall along a cosine."""
    return lambda progress: (
        1.0 if progress <= settings.hold else _cosine((progress - settings.hold) / (1 - settings.hold))
    )


COURSES: dict[str, Callable[[Scheduler], Course]] = {
    "cosine": lambda settings: _cosine,
    "linear": lambda settings: lambda progress: 1 - progress,
    "constant": lambda settings: lambda progress: 1.0,
    "poly": lambda settings: lambda progress: (1 - progress) ** settings.power,
    "onecycle": lambda settings: _cosine,
    "step": _steps,
    "restarts": _restarts,
    "flat": _flat,
}


class Plateau:
    """The peak, times `gamma` each time that validation has not improved for `patience` epochs, down to `final`.

    torch's schedule saves and restores what stands in it, so that it holds plain values only.
    """

    def __init__(self, settings: Scheduler, warmup: int) -> None:
        self.warmup, self.gamma, self.final, self.patience = warmup, settings.gamma, settings.final, settings.patience
        self.best: float | None = None
        self.waited = 0  # validations without improvement
        self.drops = 0

    def __call__(self, step: int) -> float:
        """Return the factor of the peak at a step, by what has been observed so far."""
        share = max(self.gamma**self.drops, self.final)
        return share * _linear_rise(step, self.warmup) if step < self.warmup else share

    def observe(self, value: float, mode: Mode) -> None:
        """Take the monitored value of a validation; one that is no number is no improvement."""
        best = self.best
        if math.isfinite(value) and (best is None or (value < best if mode == "min" else value > best)):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.drops, self.waited = self.drops + 1, 0


def observe(schedule: "LambdaLR", value: float, mode: Mode) -> None:
    """Tell a plateau what was monitored in an epoch, and let rates follow at once; other courses go by steps alone."""
    plateau = schedule.lr_lambdas[0]
    if isinstance(plateau, Plateau):
        plateau.observe(value, mode)
        for group, peak in zip(schedule.optimizer.param_groups, schedule.base_lrs, strict=True):
            group["lr"] = peak * plateau(schedule.last_epoch)
