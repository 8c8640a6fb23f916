"""The optimizer, and its learning rate by optimizer step."""

import math
from collections.abc import Callable

import torch
from torch import nn

from competition.config.settings import Optimizer, Scheduler


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


def build_optimizer(network: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer; biases and normalisation layers are not decayed."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.lr)
