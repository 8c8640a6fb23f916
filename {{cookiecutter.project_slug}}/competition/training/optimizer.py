"""The learning rate by optimizer step. No torch, so that it can be drawn without training."""

import math
from collections.abc import Callable

from competition.config.settings import Scheduler


def learning_rate_factor(settings: Scheduler, total_steps: int) -> Callable[[int], float]:
    """Return the factor of the peak learning rate at each of `total_steps` optimizer steps.

    Linear warm-up over the first `warmup` share, then cosine, linear or constant, to `final` at the last step.
    """
    warmup = round(settings.warmup * total_steps)
    courses: dict[str, Callable[[float], float]] = {
        "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
        "linear": lambda progress: 1 - progress,
        "constant": lambda progress: 1.0,
    }
    course = courses[settings.name]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min((step - warmup) / max(total_steps - 1 - warmup, 1), 1.0)
        return settings.final + (1 - settings.final) * course(progress)

    return factor
