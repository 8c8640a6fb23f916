"""`competition predict RUN --estimate`: how long the hidden test set will take, and what to leave out of it.

A few out-of-fold images are read, predicted and decoded; seconds an image are told apart for reading, every view of
`tta` and writing. What a view is worth is what the score of these images loses without it.
"""

import tempfile
from pathlib import Path

import numpy as np

from competition.blend import refuse_blend
from competition.errors import CompetitionError
from competition.inference import inference_devices
from competition.out_of_fold import lower_is_better
from competition.pace import Pace
from competition.runs import Run
from competition.task import Task
from competition.trial import Trial, as_trained, how_computed
from competition.views import View


def estimate(run: Run, number: int = 32) -> list[str]:
    """Time a sample of `number` images and return what is to be said of `inference.hidden_images` images."""
    refuse_blend(run.folder)
    config, task = run.config, Task(run.config.task)
    table = task.table.read_table(config)
    hidden = config.inference.hidden_images or len(task.submission.read_test_ids(config, table.classes))
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(run, table, Path(folder), number)
        scores, worth = _scores(trial)
    pace = trial.tried.pace
    hours, limit = hidden * (pace.seconds + trial.write) / 3600, config.inference.limit_hours
    fits = "fits" if hours <= limit else "does not fit"
    lines = [
        *_describe(trial, pace, hidden, worth),
        *scores,
        f"{hidden} images: {hours:.2f} h; {fits} into inference.limit_hours: {limit:g}",
    ]
    return lines if hours <= limit else [*lines, *_advice(worth, pace, hidden)]


def _scores(trial: Trial) -> tuple[list[str], dict[str, float]]:
    """Say what the images score; return also by view how much better the score is with it than without it."""
    if not trial.is_scored:
        return [], {}
    try:
        metric, now = trial.score()
        views = trial.tried.views if len(trial.tried.views) > 1 else ()
        before = trial.score(exact=True)[1]
        losses = {view: now - trial.score(without=view)[1] for view in views}
    except CompetitionError as error:  # a host's metric may not be defined for so few images
        return [f"no score of these images: {error}"], {}
    sign = -1 if lower_is_better(trial.run.config, metric) else 1
    worth = {view: sign * loss for view, loss in losses.items() if np.isfinite(loss)}
    ways = how_computed(as_trained(trial.run.config)), how_computed(trial.run.config)
    told = f"{before:.4f} in {ways[0]}, {now:.4f} in {ways[1]}" if trial.tried.exact else f"{now:.4f}"
    return [f"{metric} of these images: {told}"], worth


def _describe(trial: Trial, pace: Pace, hidden: int, worth: dict[str, float]) -> list[str]:
    """Say seconds an image, and what each view takes."""
    devices = inference_devices(trial.run.config)
    where = f"{len(devices)} x {devices[0].type}" if len(devices) > 1 else devices[0].type
    step = f"reading {pace.read:.3f}, writing {trial.write:.3f}"
    lines = [f"{trial.num_images} images on {where}; seconds an image: {step}"]
    for name, seconds in pace.views.items():
        told = f", worth {worth[name]:+.4f}" if name in worth else ""
        hours = hidden * pace.networks * seconds / pace.devices / 3600
        lines.append(f"view {name}: {seconds:.3f} s x {pace.networks} networks = {hours:.2f} h{told}")
    return lines


def _advice(worth: dict[str, float], pace: Pace, hidden: int) -> list[str]:
    """Name the view whose loss costs least for the time it saves, and what else saves time."""

    def saved(less: Pace) -> float:
        return hidden * (pace.seconds - less.seconds) / 3600

    lines, more = [], pace.with_more_workers()
    if saved(more) > 0:
        lines.append(f"read with data.num_workers={more.workers}: it saves {saved(more):.2f} h, given as many cores")
    if pace.is_held_up_by_reading:
        return [*lines, "networks wait for images: fewer of them, or fewer views, save nothing"]
    extra = {name: saved(pace.without_view(name)) for name in worth if name != View().name}
    if extra:
        name = min(extra, key=lambda one: worth[one] / extra[one])
        lines.append(f"drop the view {name} first: it saves {extra[name]:.2f} h and is worth {worth[name]:+.4f}")
    if pace.networks > 1:
        # Which one, out-of-fold images cannot tell: a fold's score is as much that of its images as of its network.
        lines.append(f"a training less saves {saved(pace.with_a_network_less()):.2f} h")
    return [*lines, "or compute faster: inference.precision=16-mixed, inference.channels_last=true"]
