"""What a network remembers of training images (`networks/memory.py`), made anew for the weights that are validated."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging

from competition.data.loaders import ImageLoader, evaluation_loader
from competition.data.series_dataset import open_dataset
from competition.networks.memory import EMBEDDINGS, LABELS, Memory
from competition.support.distributed import of_all_processes
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule


class RememberImages(pl.Callback):
    """Shows all training images, not augmented, to a network with a Memory before it is validated, and saves what it
    remembers with its weights; it forgets them with the next step. Each process shows its share."""

    def __init__(self, data: FoldData) -> None:
        self.data = data
        self._loader: ImageLoader | None = None
        self._memory: Memory | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the part of the network that remembers, once."""
        self._memory = next((part for part in pl_module.modules() if isinstance(part, Memory)), None)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember by the weights that are validated: averages, where `ema` has put them there."""
        self._remember(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember where this epoch was not validated: it may be the last, and predict."""
        if self._memory is None or self._memory.embeddings is not None:
            return
        with _averaged(trainer, pl_module):
            self._remember(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Forget what other weights remembered."""
        if self._memory is not None and self._memory.embeddings is not None:
            self._memory.forget()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save it with the averaged weights, too, which another module holds; and nothing of older ones."""
        state = checkpoint["state_dict"]
        for name, part in pl_module.named_modules():
            if isinstance(part, Memory):
                for key in (EMBEDDINGS, LABELS):
                    state.pop(f"{name}.{key}", None)
                state.update({f"{name}.{key}": value for key, value in part.remembered().items()})

    def _remember(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (memory := self._memory) is None:
            return
        assert isinstance(pl_module, CompetitionModule)
        labels, was_training = [], pl_module.training
        pl_module.eval()
        memory.begin()
        with torch.no_grad():
            for batch in self._batches(trainer):
                pl_module.show(batch)
                labels.append(batch["label"])
        shares = of_all_processes((memory.end().cpu(), torch.cat(labels).cpu()))
        pl_module.train(was_training)
        memory.remember(
            *(_in_turn([share[part] for share in shares], len(self._ids())).to(pl_module.device) for part in (0, 1))
        )

    def _batches(self, trainer: pl.Trainer) -> ImageLoader:
        if self._loader is None:
            shown = open_dataset(self.data.config, self._ids(), table=self.data.train_table)
            images, kept = shown.of_images(), self.data.train_set.of_images().kept
            if kept is not None:
                images.read_from(kept.cache, [images.source(index) for index in range(len(images))])
            self._loader = evaluation_loader(shown, trainer.global_rank, trainer.world_size)
        return self._loader

    def _ids(self) -> np.ndarray:
        return self.data.train_table.image_ids[self.data.train_rows]


def _in_turn(shares: list[torch.Tensor], number: int) -> torch.Tensor:
    """Return the images of all processes in their order: image i was seen by process i modulo their number."""
    if len(shares) == 1:
        return shares[0]
    joined = shares[0].new_empty((number, *shares[0].shape[1:]))
    for rank, share in enumerate(shares):
        joined[rank :: len(shares)] = share[: len(joined[rank :: len(shares)])]
    return joined


@contextmanager
def _averaged(trainer: pl.Trainer, module: pl.LightningModule) -> Generator[None]:
    """Put averaged weights in the place of the last ones for a while, as Lightning does for a validation."""
    callbacks: list[pl.Callback] = getattr(trainer, "callbacks")  # noqa: B009 - Lightning does not declare it
    averages = [one for one in callbacks if isinstance(one, WeightAveraging)]
    for one in averages:
        one.on_validation_epoch_start(trainer, module)
    try:
        yield
    finally:
        for one in averages:
            one.on_validation_epoch_end(trainer, module)
