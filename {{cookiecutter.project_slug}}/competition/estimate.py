"""`competition predict RUN --estimate`: how long the hidden test set will take, and what to leave out of it.

A few out-of-fold images are read, predicted and decoded; seconds an image are told apart for reading, every view of
`tta` and writing. What a view is worth is what the score of these images loses without it.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from competition.blend import refuse_blend
from competition.checkpoint import weights_to_use
from competition.dataset import Batch, ImageDataset
from competition.files import read_rows
from competition.inference import Ensemble, inference_device, inference_devices, precision_context, to_device
from competition.loader import evaluation_loader
from competition.pace import Pace
from competition.predict import load_network
from competition.predictions import Predictions
from competition.runs import CV, OOF, Run
from competition.settings import Config
from competition.task import Evidence, Prediction, Table, Task
from competition.views import View, views_of
from competition.window_data import WholeImages

Seen = list[tuple[str, int, int, Prediction]]  # image id, original height and width, prediction


@dataclass
class Sampled:
    """What was measured: seconds in all, and evidence for the score of the same images."""

    images: int = 0
    read: float = 0.0
    write: float = 0.0
    views: dict[str, float] = field(default_factory=dict)
    stored: list[Evidence] = field(default_factory=list)
    now: list[Evidence] = field(default_factory=list)
    without: dict[str, list[Evidence]] = field(default_factory=dict)


def estimate(run: Run, number: int = 32) -> list[str]:
    """Time a sample of `number` images and return what is to be said of `inference.hidden_images` images."""
    refuse_blend(run.folder)
    config, trainings = run.config, run.finished()
    task = Task(config.task)
    table = task.table.read_table(config)
    sampled = Sampled()
    for folder in trainings:
        network, classes = load_network(weights_to_use(folder, config.checkpoint))
        stored = Predictions(folder / OOF) if (folder / OOF).is_file() else None
        ids = stored.image_ids if stored else task.submission.read_test_ids(config, classes).tolist()
        rows = np.unique(np.linspace(0, len(ids) - 1, max(number // len(trainings), 1)).astype(int)).tolist()
        chosen = np.array([ids[row] for row in rows], dtype=object)
        # Read in this process: workers would have to start for a few images.
        alone = config.model_copy(update={"data": config.data.model_copy(update={"num_workers": 0})})
        dataset = ImageDataset(alone, chosen, table=table if stored else None)
        each = _time_views(config, network, dataset, sampled)
        _time_writing(config, classes, each, sampled)
        if stored:
            _score(config, table, each, [stored[row] for row in rows], sampled)
    hidden = config.inference.hidden_images or len(task.submission.read_test_ids(config, table.classes))
    lines, pace, worth = _describe(config, sampled, len(trainings), hidden, len(table.classes))
    if _hours(hidden, pace, sampled) <= config.inference.limit_hours:
        return lines
    return [*lines, *_advice(worth, pace, hidden, _weakest(run, next(iter(config.metrics))))]


def _time_views(config: Config, network: torch.nn.Module, dataset: ImageDataset, sampled: Sampled) -> dict[str, Seen]:
    """Predict the images in every view by itself; a first batch is not counted, and only one at a time is held."""
    device, each = inference_device(config), {}
    sampled.images += len(dataset)
    for view in views_of(config.tta):
        ensemble = Ensemble(config, [network], [view]).to(device).eval()
        images, seen, is_first = WholeImages(ensemble.task), [], True
        batches, seconds = _Timed(evaluation_loader(dataset)), 0.0
        for batch in batches:
            with torch.inference_mode(), precision_context(config, device):
                if is_first:
                    ensemble(to_device(batch, device))
                    is_first = False
                started = time.perf_counter()
                # Predictions come as numpy arrays, so what a GPU computes is over when they are there.
                seen += images.add(batch, ensemble(to_device(batch, device)))
                seconds += time.perf_counter() - started
        each[view.name] = seen
        sampled.views[view.name] = sampled.views.get(view.name, 0.0) + seconds
        if view == View():
            sampled.read += batches.seconds
    return each


class _Timed:
    """Passes batches on and adds up the time it took to get them."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches, self.seconds = batches, 0.0

    def __iter__(self) -> Iterator[Batch]:
        iterator = iter(self.batches)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            self.seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch


def _time_writing(config: Config, classes: Sequence[str], each: dict[str, Seen], sampled: Sampled) -> None:
    """Average the views, decode them and make the submission's rows."""
    task = Task(config.task)
    started = time.perf_counter()
    answers = [
        (image_id, task.decode.decode(prediction, height, width, config))
        for image_id, height, width, prediction in _average(config, list(each.values()))
    ]
    list(task.submission.rows(config, answers, classes)[1])
    sampled.write += time.perf_counter() - started


def _average(config: Config, views: list[Seen]) -> Seen:
    average = Task(config.task).decode.average
    if len(views) == 1:
        return views[0]
    return [
        (image_id, height, width, average([view[index][3] for view in views], config))
        for index, (image_id, height, width, _) in enumerate(views[0])
    ]


def _score(config: Config, table: Table, each: dict[str, Seen], stored: list[Prediction], sampled: Sampled) -> None:
    """Compare with the truth: what is stored, what is predicted now, and that without each view."""
    task = Task(config.task)
    row = {image_id: index for index, image_id in enumerate(table.image_ids)}

    def evidence(seen: Seen) -> list[Evidence]:
        return [
            task.score.evidence(
                task.decode.decode(prediction, height, width, config), table.target(row[image_id], height, width)
            )
            for image_id, height, width, prediction in seen
        ]

    now = _average(config, list(each.values()))
    sampled.now += evidence(now)
    sampled.stored += evidence([(*one[:3], before) for one, before in zip(now, stored, strict=True)])
    for name in each if len(each) > 1 else ():
        others = [seen for other, seen in each.items() if other != name]
        sampled.without.setdefault(name, []).extend(evidence(_average(config, others)))


def _describe(
    config: Config, sampled: Sampled, networks: int, hidden: int, num_classes: int
) -> tuple[list[str], Pace, dict[str, float]]:
    """Say seconds an image, hours in all and whether they fit; return the pace and what each view is worth, too."""
    n, worth = sampled.images, _worth(config, sampled, num_classes)
    devices = inference_devices(config)  # a bundle takes all
    views = {name: seconds / n for name, seconds in sampled.views.items()}
    pace = Pace(sampled.read / n, views, networks, config.data.num_workers, len(devices))
    write = sampled.write / n
    hours = _hours(hidden, pace, sampled)
    where = f"{len(devices)} x {devices[0].type}" if len(devices) > 1 else devices[0].type
    lines = [f"{n} images on {where}; seconds an image: reading {pace.read:.3f}, writing {write:.3f}"]
    if sampled.now:
        metric = next(iter(config.metrics))
        stored, now = (_score_of(config, evidence, num_classes) for evidence in (sampled.stored, sampled.now))
        lines.append(f"{metric} of these images: as stored {stored:.4f}, computed like this {now:.4f}")
    for name, seconds in views.items():
        told = f", worth {worth[name]:+.4f}" if name in worth else ""
        each = f"{seconds:.3f} s x {networks} networks"
        lines.append(f"view {name}: {each} = {hidden * networks * seconds / len(devices) / 3600:.2f} h{told}")
    limit = config.inference.limit_hours
    fits = "fits" if hours <= limit else "does not fit"
    return [*lines, f"{hidden} images: {hours:.2f} h; {fits} into inference.limit_hours: {limit:g}"], pace, worth


def _hours(hidden: int, pace: Pace, sampled: Sampled) -> float:
    return hidden * (pace.seconds + sampled.write / sampled.images) / 3600


def _worth(config: Config, sampled: Sampled, num_classes: int) -> dict[str, float]:
    """Return by view how much better the score is with it than without it."""
    sign = -1 if Task(config.task).score.lower_is_better(next(iter(config.metrics))) else 1
    now = _score_of(config, sampled.now, num_classes) if sampled.without else 0.0
    return {name: sign * (now - _score_of(config, evidence, num_classes)) for name, evidence in sampled.without.items()}


def _score_of(config: Config, evidence: list[Evidence], num_classes: int) -> float:
    return next(iter(Task(config.task).score.scores(evidence, config.metrics, num_classes).values()))


def _weakest(run: Run, metric: str) -> str | None:
    """Return the fold with the lowest score in cv.csv, if the run was tuned."""
    rows = [row for row in read_rows(run.folder / CV) if row["images"].startswith("fold")]
    sign = -1 if Task(run.config.task).score.lower_is_better(metric) else 1
    return min(rows, key=lambda row: sign * float(row[metric]))["images"] if rows else None


def _advice(worth: dict[str, float], pace: Pace, hidden: int, weakest: str | None) -> list[str]:
    """Name the view whose loss costs least for the time it saves, and the fold that is weakest out of fold."""

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
        which = f"; the weakest on its own images is {weakest}" if weakest else ""
        lines.append(f"a training less saves {saved(pace.with_a_network_less()):.2f} h{which}")
    return [*lines, "or compute faster: inference.precision=16-mixed, inference.channels_last=true"]
