"""`competition predict RUN --estimate`: how long the hidden test set will take, and what to leave out of it.

A few out-of-fold images are read, predicted and decoded; seconds an image are told apart for reading, every view of
`tta` and writing, of a blend for each of its runs. What a view or a run is worth is what the score of these images
loses without it.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from competition.config.settings import Config
from competition.config.views import View
from competition.prediction.ensemble import HALF
from competition.runs.blend_recipe import members_of
from competition.runs.folder import Run
from competition.scoring.out_of_fold import lower_is_better
from competition.scoring.timed_trial import LeftOut, Pace, Trial, as_trained, how_computed
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.training.devices import inference_device, inference_devices, precision_here

Worth = dict[LeftOut, float]


def estimate(run: Run, overrides: list[str] | None = None, number: int = 32) -> list[str]:
    """Time a sample of `number` images and return what is to be said of `inference.hidden_images` images.

    Of a blend, `overrides` hold for its runs, too.
    """
    config, task = run.config, Task(run.config.task)
    table = task.table.read_table(config)
    hidden = config.inference.hidden_images or len(task.submission.read_test_ids(config, table.classes))
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(run, members_of(run, overrides), table, Path(folder), number)
        scores, worth = _scores(trial)
    seconds = sum(tried.pace.seconds for tried in trial.tried) + trial.write  # a bundle takes one run after the other
    hours, limit = hidden * seconds / 3600, config.inference.limit_hours
    fits = "fits" if hours <= limit else "does not fit"
    lines = [
        *_describe(trial, hidden, worth),
        *scores,
        f"{hidden} images: {hours:.2f} h; {fits} into inference.limit_hours: {limit:g}",
        *(
            f"not counted: {name}, which a bundle asks first what it finds in images; `competition predict "
            f"{name} --estimate`"
            for name in sorted(_stages(members_of(run, overrides)))
        ),
    ]
    return lines if hours <= limit else [*lines, *_advice(trial, hidden, worth)]


def _stages(members: Sequence[Run]) -> set[str]:
    """Return the runs by which members look at images."""
    return {Path(name).name for member in members for name in member.config.data.stages}


def _scores(trial: Trial) -> tuple[list[str], Worth]:
    """Say what the images score; return also how much better the score is with each view and run than without it."""
    if not trial.is_scored:
        return [], {}
    parts = [LeftOut(name, view) for name, pace in _paces(trial) if len(pace.views) > 1 for view in pace.views]
    parts += [LeftOut(name) for name, _ in _paces(trial) if len(trial.tried) > 1]
    try:
        metric, now = trial.score()
        before = trial.score(exact=True)[1]
        losses = {part: now - trial.score(part)[1] for part in parts}
    except CompetitionError as error:  # a host's metric may not be defined for so few images
        return [f"no score of these images: {error}"], {}
    sign = -1 if lower_is_better(trial.run.config, metric) else 1
    worth = {part: sign * loss for part, loss in losses.items() if np.isfinite(loss)}
    configs = [tried.run.config for tried in trial.tried]
    ways = (" or ".join(dict.fromkeys(map(how_computed, each))) for each in (map(as_trained, configs), configs))
    is_faster = any(tried.exact for tried in trial.tried)
    told = f"{before:.4f} in {next(ways)}, {now:.4f} in {next(ways)}" if is_faster else f"{now:.4f}"
    return [f"{metric} of these images: {told}"], worth


def _describe(trial: Trial, hidden: int, worth: Worth) -> list[str]:
    """Say seconds an image, and what each view and each run of a blend takes."""
    devices = inference_devices(trial.run.config)
    where = f"{len(devices)} x {devices[0].type}" if len(devices) > 1 else devices[0].type
    read = sum(pace.read for _, pace in _paces(trial))
    step = f"reading {read:.3f}, writing {trial.write:.3f}"
    lines = [f"{trial.num_images} images on {where}; seconds an image: {step}"]
    for name, pace in _paces(trial):
        for view, seconds in pace.views.items():
            hours = hidden * pace.networks * seconds / pace.devices / 3600
            each = f"{seconds:.3f} s x {pace.networks} networks = {hours:.2f} h"
            lines.append(f"view {view}{_of(trial, name)}: {each}{_told(worth, LeftOut(name, view))}")
        if len(trial.tried) > 1:
            lines.append(f"run {name}: {hidden * pace.seconds / 3600:.2f} h{_told(worth, LeftOut(name))}")
    return lines


def _advice(trial: Trial, hidden: int, worth: Worth) -> list[str]:
    """Name the view or run whose loss costs least for the time it saves, and what else saves time."""
    paces, lines = _paces(trial), []
    if saved := sum(pace.seconds - pace.with_more_workers().seconds for _, pace in paces):
        workers = max(pace.with_more_workers().workers for _, pace in paces)
        lines.append(
            f"read with data.num_workers={workers}: it saves {hidden * saved / 3600:.2f} h, given as many cores"
        )
    parts = {
        LeftOut(name, view): pace.seconds - pace.without_view(view).seconds
        for name, pace in paces
        for view in pace.views
        if view != View().name
    }
    parts |= {LeftOut(name): pace.seconds for name, pace in paces}
    if saving := {part: seconds for part, seconds in parts.items() if part in worth and seconds > 0}:
        part = min(saving, key=lambda one: worth[one] / saving[one])
        what = f"view {part.view}{_of(trial, part.run)}" if part.view else f"run {part.run}"
        told = f"it saves {hidden * saving[part] / 3600:.2f} h and is worth {worth[part]:+.4f}"
        lines.append(f"drop the {what} first: {told}")
    for name, pace in paces:
        # Which one, out-of-fold images cannot tell: a fold's score is as much that of its images as of its network.
        saved = pace.seconds - pace.with_a_network_less().seconds
        if pace.networks > 1 and saved > 0:
            lines.append(f"a training{_of(trial, name)} less saves {hidden * saved / 3600:.2f} h")
    if all(pace.is_held_up_by_reading for _, pace in paces):
        return [*lines, "networks wait for images: fewer networks or views in a run save nothing"]
    faster = _what_computes_faster([tried.run.config for tried in trial.tried])
    return [*lines, *([f"or compute faster: {', '.join(faster)}"] if faster else [])]


def _what_computes_faster(configs: Sequence[Config]) -> list[str]:
    """Return the settings, not on in all of the configs, that make networks quicker."""
    # A CPU computes in bf16 alone, and is slower in it where it only emulates that.
    is_cpu = any(inference_device(config).type == "cpu" for config in configs)
    half = "inference.precision=bf16-mixed (if this CPU has bf16)" if is_cpu else "inference.precision=16-mixed"
    ways = {
        half: all(precision_here(config.prediction_precision) in HALF for config in configs),
        "inference.channels_last=true": all(config.predicts_channels_last for config in configs),
    }
    return [way for way, is_on in ways.items() if not is_on]


def _paces(trial: Trial) -> list[tuple[str, Pace]]:
    return [(tried.run.folder.name, tried.pace) for tried in trial.tried]


def _of(trial: Trial, name: str) -> str:
    return f" of {name}" if len(trial.tried) > 1 else ""


def _told(worth: Worth, part: LeftOut) -> str:
    return f", worth {worth[part]:+.4f}" if part in worth else ""
