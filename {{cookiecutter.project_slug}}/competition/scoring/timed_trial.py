"""A trial of prediction: a few images by every network in every view, each step timed; how long many images take."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np
from torch import nn

from competition.config.settings import Config, Inference, InferencePrecision
from competition.config.views import View, views_of
from competition.data.dataset import Batch, ImageDataset
from competition.data.loaders import evaluation_loader, num_workers
from competition.data.series_dataset import open_dataset
from competition.data.window_dataset import WholeImages
from competition.prediction.averages import Ranks, average_predictions
from competition.prediction.ensemble import Ensemble, predict_batch
from competition.prediction.predict import load_network
from competition.prediction.stored import Predictions, PredictionWriter
from competition.runs.blend_recipe import STACK, read_recipe, unless_equal
from competition.runs.folder import Run, fold_of
from competition.scoring.out_of_fold import OutOfFold, folds_of_files
from competition.support.errors import CompetitionError
from competition.support.spread import spread
from competition.tasks.contract import Table, Task
from competition.training.checkpoint import weights_to_use
from competition.training.devices import inference_device, inference_devices


@dataclass(frozen=True)
class Pace:
    """Seconds an image: `read` by one process, `views` by one network on one device."""

    read: float
    views: Mapping[str, float]
    networks: int
    workers: int
    devices: int

    @property
    def look(self) -> float:
        """Return the seconds an image that all networks take, in all views."""
        return self.networks * sum(self.views.values()) / self.devices

    @property
    def wait(self) -> float:
        """Return the seconds an image until the next one is read."""
        return self.read / max(self.workers, 1)

    @property
    def has_both_at_once(self) -> bool:
        """Return whether the next images are read while networks look at these.

        Workers do that and, where it hands images to threads of several devices, the main process.
        """
        return self.workers > 0 or self.devices > 1

    @property
    def seconds(self) -> float:
        """Return the seconds an image that reading and looking take together."""
        return max(self.wait, self.look) if self.has_both_at_once else self.wait + self.look

    @property
    def is_held_up_by_reading(self) -> bool:
        """Return whether quicker networks would only wait for images."""
        return self.has_both_at_once and self.wait >= self.look

    def without_view(self, name: str) -> "Pace":
        """Return the pace without a view."""
        return replace(self, views={view: seconds for view, seconds in self.views.items() if view != name})

    def with_a_network_less(self) -> "Pace":
        """Return the pace without one of the trainings."""
        return replace(self, networks=self.networks - 1)

    def with_more_workers(self) -> "Pace":
        """Return the pace with twice as many workers, at least the two that any machine has cores for."""
        return replace(self, workers=max(2 * self.workers, 2))


TEST_IMAGES = "test"  # stands for a fold where no training has out-of-fold images


@dataclass
class Tried:
    """What was measured of a run: seconds in all, and by fold a folder a training with a file for each view.

    `exact` are such folders of what was computed as in training, where that is another way.
    """

    run: Run
    images: int = 0
    read: float = 0.0
    views: dict[str, float] = field(default_factory=dict)
    folders: dict[str, list[Path]] = field(default_factory=dict)
    exact: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def pace(self) -> Pace:
        """Return seconds an image."""
        config = self.run.config
        views = {name: seconds / self.images for name, seconds in self.views.items()}
        devices = len(inference_devices(config))  # a bundle takes all
        return Pace(self.read / self.images, views, len(self.run.finished()), num_workers(config), devices)


@dataclass(frozen=True)
class LeftOut:
    """What a score is made without: a view of a run, or all of it."""

    run: str
    view: str | None = None


class Trial:
    """Some images of every fold as a run predicts them, or as those of a blend do.

    `tried` is what was measured of each of these, `write` the seconds an image of what follows prediction.
    """

    def __init__(self, run: Run, members: Sequence[Run], table: Table, folder: Path, number: int) -> None:
        """Predict `number` images by every run whose networks predict; keep the predictions in a folder."""
        self.run, self.table, self.folder = run, table, folder
        recipe = read_recipe(run.folder)
        if recipe.get("mean") == STACK:
            raise CompetitionError(f"{run.folder}: is a stack; estimate the runs that it is made of")
        self.is_of_ranks = recipe.get("mean") == "rank"
        self.weights = [weight for weight in recipe.get("weights", [1.0]) if weight > 0]
        self.folds = _images_by_fold(members, table, number)
        self.is_scored = TEST_IMAGES not in self.folds
        known = table if self.is_scored else None
        self.tried = [_try(member, known, self.folds, folder / member.folder.name) for member in members]
        self.write = self._time_writing() / self.num_images

    @property
    def num_images(self) -> int:
        """Return how many images there are."""
        return sum(map(len, self.folds.values()))

    def score(self, without: LeftOut | None = None, *, exact: bool = False) -> tuple[str, float]:
        """Return the first metric, the host's if there is one, of the images.

        `exact` scores what was computed as in training.
        """
        files = [[self._blend(fold, self._averages(fold, without, exact=exact))] for fold in self.folds]
        return next(iter(OutOfFold(self.run.config, self.table, files).scores(self.run.config).items()))

    def _averages(self, fold: str, without: LeftOut | None = None, *, exact: bool = False) -> list[tuple[Path, float]]:
        """Return for each run a file of its predictions, and its weight."""
        found = []
        for tried, weight in zip(self.tried, self.weights, strict=True):
            name = tried.run.folder.name
            if without != LeftOut(name):
                view = without.view if without and without.run == name else None
                by_fold = tried.exact if exact and tried.exact else tried.folders
                found.append((_average(tried.run.config, by_fold[fold], view), weight))
        return found

    def _blend(self, fold: str, weighted: Sequence[tuple[Path, float]]) -> Path:
        """Average runs; ranks are those among the images of the trial."""
        stored = [Ranks(Predictions(path)) if self.is_of_ranks else Predictions(path) for path, _ in weighted]
        path = self.folder / f"{fold}.npz"
        average_predictions(stored, path, self.run.config, unless_equal([weight for _, weight in weighted]))
        return path

    def _time_writing(self) -> float:
        """Average the runs, decode the images and make the submission's rows; return the seconds."""
        config, task = self.run.config, Task(self.run.config.task)
        each = {fold: self._averages(fold) for fold in self.folds}
        started = time.perf_counter()
        answers = [
            (image_id, task.decode.decode(prediction, height, width, config))
            for fold, weighted in each.items()
            for image_id, (height, width), prediction in Predictions(self._blend(fold, weighted))
        ]
        list(task.submission.rows(config, answers, self.table.classes)[1])
        return time.perf_counter() - started


def _average(config: Config, trainings: Sequence[Path], without: str | None) -> Path:
    """Average the views of each training, then the trainings of a fold, which are its seeds."""
    each, path = [], trainings[0].parent / "seeds.npz"
    for folder in trainings:
        views = [Predictions(view) for view in sorted(folder.glob("*.npz")) if view.stem != without]
        each.append(folder.parent / f"{folder.name}.npz")
        average_predictions(views, each[-1], config)
    average_predictions([*map(Predictions, each)], path, config)
    return path


def as_trained(config: Config) -> Config:
    """Return the config with predictions computed as in training, by nothing of `inference:` that is faster."""
    found = config.model_copy(update={"inference": Inference()})
    # What only Lightning computes in is more exact than half precision.
    is_possible = found.prediction_precision in get_args(InferencePrecision)
    return found if is_possible else config.model_copy(update={"inference": Inference(precision="32")})


def how_computed(config: Config) -> str:
    """Say in which precision predictions are computed, and what else changes them a little."""
    ways = {"channels_last": config.predicts_channels_last, "compile": config.inference.compile}
    faster = [name for name, is_on in ways.items() if is_on]
    return ", ".join([f"precision {config.prediction_precision}", *faster])


def _images_by_fold(runs: Sequence[Run], table: Table, number: int) -> dict[str, list[str]]:
    """Choose images that are spread evenly over the out-of-fold images of each fold of all runs, or the test images."""
    folds = [
        {fold_of(files[0].parent.name): files[0] for files in folds_of_files(run.out_of_fold_files())} for run in runs
    ]
    common = [fold for fold in folds[0] if all(fold in others for others in folds)]
    every = {fold: Predictions(folds[0][fold]).image_ids for fold in common}
    if not every:
        ids = Task(runs[0].config.task).submission.read_test_ids(runs[0].config, table.classes)
        every = {TEST_IMAGES: ids.tolist()}
    most = max(number // len(every), 1)
    return {fold: [ids[row] for row in spread(len(ids), most)] for fold, ids in every.items()}


def _try(run: Run, table: Table | None, folds: Mapping[str, list[str]], folder: Path) -> Tried:
    """Predict the images of each fold with its trainings; those of no fold with the first training."""
    config, tried = run.config, Tried(run)
    # Read in this process: workers would have to start for a few images.
    alone = config.model_copy(update={"data": config.data.model_copy(update={"num_workers": 0})})
    exact = as_trained(config)
    for fold, ids in folds.items():
        dataset = open_dataset(alone, np.array(ids, dtype=object), table=table)
        named = [path for path in run.finished() if fold_of(path.name) == fold]
        for training in named or run.finished()[:1]:
            network, classes = load_network(weights_to_use(training, config.checkpoint))
            target, before = folder / training.name, folder / "exact" / training.name
            if how_computed(config) != how_computed(exact):
                # First: the other way may change the network for good.
                for view in views_of(config.tta):
                    _predict(exact, network, view, dataset, before / f"{view.name}.npz", classes)
                tried.exact.setdefault(fold, []).append(before)
            for view in views_of(config.tta):
                read, look = _predict(config, network, view, dataset, target / f"{view.name}.npz", classes)
                tried.read += read if view == View() else 0
                tried.views[view.name] = tried.views.get(view.name, 0.0) + look
            tried.folders.setdefault(fold, []).append(target)
            tried.images += len(dataset)
    return tried


def _predict(
    config: Config, network: nn.Module, view: View, dataset: ImageDataset, path: Path, classes: Sequence[str]
) -> tuple[float, float]:
    """Write what one network says in one view; return the seconds of reading and looking."""
    device = inference_device(config)
    ensemble = Ensemble(config, [network], [view]).to(device).eval()
    images, batches, look = WholeImages(ensemble.task), _Timed(evaluation_loader(dataset)), 0.0
    with PredictionWriter(path.parent) as writer:
        for number, batch in enumerate(batches):
            if number == 0:
                predict_batch(ensemble, device, batch)  # what happens once is not counted
            started = time.perf_counter()
            # Predictions come as numpy arrays, so what a GPU computes is over when they are there.
            found = list(images.add(batch, predict_batch(ensemble, device, batch)))
            look += time.perf_counter() - started
            for one in found:
                writer.add(*one)
        writer.finish(path, classes)
    return batches.seconds, look


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
