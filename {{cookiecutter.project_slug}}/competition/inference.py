"""How predictions are made, wherever: several networks see an image in several views, and are averaged. No Lightning.

Training, `predict` and a bundle all go through `Ensemble`.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn.functional import interpolate

from competition.dataset import Batch, ImageDataset
from competition.errors import CompetitionError
from competition.loader import evaluation_loader
from competition.settings import Config
from competition.task import Prediction, Task
from competition.views import View
from competition.window_data import WholeImages

HALF = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class Ensemble(nn.Module):
    """Several trained networks that see each image, in every view, together, so that it is read once."""

    def __init__(self, config: Config, networks: Sequence[nn.Module], views: Sequence[View]) -> None:
        super().__init__()
        self.config = config
        self.task = Task(config.task)
        if config.inference.channels_last:
            networks = [network.to(memory_format=torch.channels_last) for network in networks]
        if config.inference.compile:
            for network in networks:
                network.compile()  # in place: the task finds its parts as before
        self.networks = nn.ModuleList(networks)
        self.views = views

    def forward(self, batch: Batch) -> list[Prediction]:
        """Return one averaged prediction an image."""
        each = [self._predict(network, batch, view) for view in self.views for network in self.networks]
        if len(each) == 1:
            return each[0]
        return [self.task.decode.average(list(image), self.config) for image in zip(*each, strict=True)]

    def _predict(self, network: nn.Module, batch: Batch, view: View) -> list[Prediction]:
        images = view.see(batch["image"])
        if self.config.inference.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        size = view.scaled_size(*images.shape[-2:])
        if size != tuple(images.shape[-2:]):
            images = interpolate(images, size, mode="bilinear", antialias=True)
        sides = {"height": batch["width"], "width": batch["height"]} if view.swap_axes else {}
        seen = {**batch, "image": images, **sides}
        predictions = self.task.prediction.predictions(network, network(images), seen)
        sizes = zip(batch["height"].tolist(), batch["width"].tolist(), strict=True)
        undo = self.task.prediction.undo_view
        return [undo(one, view, *size) for one, size in zip(predictions, sizes, strict=True)]


def predict_stream(
    ensemble: Ensemble, dataset: ImageDataset, device: torch.device | None = None
) -> Iterator[tuple[str, int, int, Prediction]]:
    """Yield image id, original height and width, and prediction of every image, in batches as `predict` has them.

    It is the loop of a Lightning Trainer on one device, in the same precision, without Lightning.
    """
    device = inference_device(ensemble.config) if device is None else device
    ensemble.to(device).eval()
    images = WholeImages(ensemble.task)
    for batch in evaluation_loader(dataset):
        with torch.inference_mode(), precision_context(ensemble.config, device):
            predictions = ensemble(to_device(batch, device))
        yield from images.add(batch, predictions)


def inference_device(config: Config) -> torch.device:
    """Return the GPU, unless there is none or `trainer.accelerator` says cpu."""
    is_cpu = str(config.trainer.get("accelerator", "auto")) == "cpu" or not torch.cuda.is_available()
    return torch.device("cpu" if is_cpu else "cuda")


def precision_context(config: Config, device: torch.device) -> AbstractContextManager[Any]:
    """Return what computes in the precision of `inference_precision`."""
    name = inference_precision(config)
    return torch.autocast(device.type, dtype=HALF[name]) if name in HALF else nullcontext()


def inference_precision(config: Config) -> Literal["32", "16-mixed", "bf16-mixed"]:
    """Return the precision of predictions; raise CompetitionError where only Lightning has that."""
    name = config.prediction_precision
    if name != "32" and name not in HALF:
        raise CompetitionError(
            f"trainer.precision: found {name}, in which only Lightning computes; give inference.precision, one of 32, "
            f"{', '.join(HALF)}"
        )
    return cast(Literal["32", "16-mixed", "bf16-mixed"], name)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }
