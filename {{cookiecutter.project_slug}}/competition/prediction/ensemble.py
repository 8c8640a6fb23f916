"""How predictions are made, wherever: several networks see an image in several views, and are averaged. No Lightning.

Training, `predict` and a bundle all go through `Ensemble`.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from copy import deepcopy
from typing import Any, cast, get_args

import torch
from torch import nn
from torch.nn.functional import interpolate

from competition.config.settings import Config, InferencePrecision
from competition.config.views import View
from competition.data.dataset import Batch, ImageDataset, ready
from competition.data.loaders import evaluation_loader, explaining_lost_reader
from competition.data.window_dataset import WholeImages
from competition.networks.beside import beside
from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction, Task
from competition.training.devices import inference_device, precision_here

HALF = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class Ensemble(nn.Module):
    """Several trained networks that see each image, in every view, together, so that it is read once."""

    def __init__(self, config: Config, networks: Sequence[nn.Module], views: Sequence[View]) -> None:
        super().__init__()
        self.config = config
        self.task = Task(config.task)
        if config.predicts_channels_last:
            networks = [network.to(memory_format=torch.channels_last) for network in networks]
        if config.inference.compile:
            for network in networks:
                network.compile()  # in place: the task finds its parts as before
        self.networks = nn.ModuleList(networks)
        self.views = views

    def forward(self, batch: Batch) -> list[Prediction]:
        """Return one averaged prediction an image."""
        kinds = (weight.dtype for weight in self.networks.parameters() if weight.is_floating_point())
        batch = ready(batch, self.config, next(kinds, torch.float32))
        each = [self._predict(network, batch, view) for view in self.views for network in self.networks]
        if len(each) == 1:
            return each[0]
        return [self.task.decode.average(list(image), self.config) for image in zip(*each, strict=True)]

    def _predict(self, network: nn.Module, batch: Batch, view: View) -> list[Prediction]:
        images = view.see(batch["image"])
        if self.config.predicts_channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        size = view.scaled_size(*images.shape[-2:])
        if size != tuple(images.shape[-2:]):
            images = interpolate(images, size, mode="bilinear", antialias=True)
        sides = {"height": batch["width"], "width": batch["height"]} if view.swap_axes else {}
        seen = {**batch, "image": images, **sides}
        predictions = self.task.prediction.predictions(network, network(images, **beside(seen)), seen)
        sizes = zip(batch["height"].tolist(), batch["width"].tolist(), strict=True)
        undo = self.task.prediction.undo_view
        return [undo(one, view, *size) for one, size in zip(predictions, sizes, strict=True)]


def predict_stream(
    ensemble: Ensemble, dataset: ImageDataset, devices: Sequence[torch.device] = ()
) -> Iterator[tuple[str, int, int, Prediction]]:
    """Yield image id, original height and width, and prediction of every image, in batches as `predict` has them.

    It is the loop of a Lightning Trainer on one device, in the same precision, without Lightning. Where several devices
    are given, they take batches in turn; what is yielded and its order are the same.
    """
    replicas = _replicas(ensemble, devices or [inference_device(ensemble.config)])
    images, batches = WholeImages(ensemble.task), evaluation_loader(dataset)
    with explaining_lost_reader():
        each = _in_turn(replicas, batches) if len(replicas) > 1 else _one_by_one(replicas[0], batches)
        for batch, predictions in each:
            yield from images.add(batch, predictions)


Replica = tuple[Ensemble, torch.device]


def _replicas(ensemble: Ensemble, devices: Sequence[torch.device]) -> list[Replica]:
    """Return the ensemble on the first device and copies on the others; `compile` does not survive a mere deepcopy."""
    copies = [Ensemble(ensemble.config, [*map(deepcopy, ensemble.networks)], ensemble.views) for _ in devices[1:]]
    return [(one.to(device).eval(), device) for one, device in zip([ensemble, *copies], devices, strict=True)]


def _one_by_one(replica: Replica, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Prediction]]]:
    for batch in batches:
        yield batch, predict_batch(*replica, batch)


def _in_turn(replicas: Sequence[Replica], batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Prediction]]]:
    """Yield batches with their predictions in order; each device has a thread, and one batch waiting."""
    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in replicas]
        waiting: deque[tuple[Batch, Future[list[Prediction]]]] = deque()
        for number, batch in enumerate(batches):
            turn = number % len(replicas)
            waiting.append((batch, threads[turn].submit(predict_batch, *replicas[turn], batch)))
            if len(waiting) == 2 * len(replicas):
                oldest, future = waiting.popleft()
                yield oldest, future.result()
        for oldest, future in waiting:
            yield oldest, future.result()


def predict_batch(ensemble: Ensemble, device: torch.device, batch: Batch) -> list[Prediction]:
    """Return one averaged prediction an image of a batch, which is moved to the ensemble's device."""
    # Both contexts hold for the thread that enters them.
    with torch.inference_mode(), precision_context(ensemble.config, device):
        return ensemble(to_device(batch, device))


def precision_context(config: Config, device: torch.device) -> AbstractContextManager[Any]:
    """Return what computes in the precision of `inference_precision`."""
    name = precision_here(inference_precision(config))
    if name not in HALF:
        return nullcontext()
    # As Lightning does: a CPU computes in bfloat16, whichever half is asked for.
    return torch.autocast(device.type, dtype=torch.bfloat16 if device.type == "cpu" else HALF[name])


def inference_precision(config: Config) -> InferencePrecision:
    """Return the precision of predictions; raise CompetitionError where only Lightning has that."""
    name = config.prediction_precision
    if name not in get_args(InferencePrecision):
        raise CompetitionError(
            f"trainer.precision: found {name}, in which only Lightning computes; give inference.precision, one of "
            f"{', '.join(get_args(InferencePrecision))}"
        )
    return cast(InferencePrecision, name)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }
