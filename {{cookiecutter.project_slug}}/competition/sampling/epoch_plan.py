"""How much a run trains in each of its epochs: the one place that knows, for the learning rate, preview and metrics."""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from competition.config.settings import Ema
from competition.sampling.batch_sampler import TrainBatches
from competition.sampling.sampler import RatioSampler
from competition.sampling.share_schedule import epochs_in_words, schedule_warnings
from competition.support.errors import CompetitionError

EPOCHS_BY_DEFAULT = 1000  # Lightning's, where `trainer:` names neither epochs nor steps
MOST_LEFT = 0.2  # of an average that what it began with may be at the end without a word
FEW = 0.05  # share of an epoch's images that may be left out without a word


class EpochPlan(NamedTuple):
    """What is trained in one epoch."""

    batches: int  # of a process
    steps: int  # of the optimizer
    images: int  # of all processes
    drawn: int  # by the sampler, of which some may be left out
    left_out: int  # as they do not fill a batch of all processes


def plan_epochs(batches: TrainBatches, max_epochs: int | None, max_steps: int) -> list[EpochPlan]:
    """Return what each epoch of a run holds, whose end a Trainer's `max_epochs` and `max_steps` (-1: none) say.

    Epochs may differ in length, as the sampler's share changes, and `max_steps` may end one in its middle.
    Raises CompetitionError where the run has no end, and so the learning rate no course, or no step.
    """
    steps_left = max_steps
    plans = []
    for epoch in _epochs(max_epochs, max_steps):
        drawn, held = batches.sampler.num_drawn(epoch), batches.of_epoch(epoch)
        steps = held.steps
        if steps_left >= 0:
            steps = min(steps, steps_left)
            if not steps:
                break
            steps_left -= steps
        plans.append(EpochPlan(steps * held.parts, steps, steps * held.images, drawn, drawn % held.images))
    if not any(plan.steps for plan in plans):
        raise CompetitionError(
            f"trainer: max_epochs {max_epochs}, max_steps {max_steps} and limit_train_batches "
            f"{batches.limit} leave nothing to train; expected numbers over 0"
        )
    return plans


def plan_warnings(batches: TrainBatches, plans: list[EpochPlan], ema: Ema | None) -> list[str]:
    """Say what will not go as the settings suggest."""
    sampler, size = batches.sampler, batches.global_batch
    lines = []
    if isinstance(sampler, RatioSampler):
        lines += schedule_warnings(sampler.schedule, [sampler.counts(epoch) for epoch in range(len(plans))])
    if short := [epoch for epoch, plan in enumerate(plans) if plan.drawn < size]:
        lines.append(
            f"data.batch_size: {epochs_in_words(short)} has {plans[short[0]].drawn} images, fewer than a batch of "
            f"{size}: the optimizer steps once, on these"
        )
    return [*lines, *_left_out_warnings(plans, size), *([] if ema is None else _average_warnings(ema, plans))]


def _average_warnings(ema: Ema, plans: list[EpochPlan]) -> list[str]:
    """Say where a moving average hardly leaves the weights that it began with, which would be validated and predict."""
    steps = sum(plan.steps for plan in plans) - ema.start_step
    if steps < 1 or (left := ema.decay ** (steps - 1)) < MOST_LEFT:
        return []
    return [
        f"ema.decay: after its {steps} steps {left:.0%} of the moving average, which predicts, are still the weights "
        f"of the first; {1 - float(f'{5 / (steps + 5):.1g}'):g} fits so short a training"
    ]


def _left_out_warnings(plans: list[EpochPlan], batch_size: int) -> list[str]:
    """Say in a line where more than a few images are left out, as they do not fill a batch of all processes."""
    worst = max(plans, key=lambda plan: plan.left_out / plan.drawn)
    if worst.left_out <= FEW * worst.drawn:
        return []
    return [
        f"data.batch_size: an epoch leaves out up to {worst.left_out} of its {worst.drawn} images "
        f"({worst.left_out / worst.drawn:.0%}), other ones each time, as they do not fill a batch of {batch_size}; a "
        "smaller batch leaves out fewer"
    ]


def _epochs(max_epochs: int | None, max_steps: int) -> Iterator[int]:
    """Yield the epochs of a run but for those after its last step."""
    has_steps = max_steps >= 0
    if max_epochs is None:
        return iter(count() if has_steps else range(EPOCHS_BY_DEFAULT))
    if max_epochs >= 0:
        return iter(range(max_epochs))
    if has_steps:
        return count()
    raise CompetitionError(
        f"trainer.max_epochs: found {max_epochs}, a run without end; expected a number of epochs, or "
        "trainer.max_steps beside it, as the learning rate falls towards the end"
    )
