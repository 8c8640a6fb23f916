"""The data of a training: images of a fold, who draws which of them on any number of processes, and the loaders."""

from collections.abc import Callable

import numpy as np
import pytorch_lightning as pl
import torch

from competition.config.settings import Config
from competition.data.dataset import Batch, ready, seeded
from competition.data.folds import is_validated
from competition.data.loaders import ImageLoader, evaluation_loader, worker_settings
from competition.data.series_dataset import open_dataset
from competition.data.training_part import training_part
from competition.sampling.batch_sampler import TrainBatches
from competition.sampling.build import fold_sampler
from competition.sampling.epoch_plan import EpochPlan, plan_epochs
from competition.sampling.sampler import RatioSampler
from competition.sampling.share_schedule import EpochCounts
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table, Target, Task


class FoldData(pl.LightningDataModule):
    """The images of one fold, for training and for validation, and their loaders.

    In a Trainer these are of this process's share; without one, as in a notebook, they are those of a training on one
    process.
    """

    def __init__(self, config: Config, table: Table, folds: np.ndarray) -> None:
        super().__init__()
        self.config = config
        self.table = table
        self.train_table, self.train_rows, weights, self.notes = training_part(config, table, folds)
        val_rows = np.flatnonzero(is_validated(config, folds))
        train_ids = self.train_table.image_ids[self.train_rows]
        self.train_set = open_dataset(config, train_ids, table=self.train_table, train=True)
        self.train_set.weights = weights
        self.val_set = open_dataset(config, table.image_ids[val_rows], table=table)
        self.teacher: Callable[[Batch], Batch] | None = None  # adds what another run says (`loss.distil`)
        self._position = {image_id: index for index, image_id in enumerate(self.val_set.image_ids)}
        self._resumed = {"epoch": 0, "batches_done": 0}
        self._batches_done = 0  # of the current epoch
        self._forget()

    def _forget(self) -> None:
        """Make anew what hangs on the Trainer, whose processes share the images."""
        self._made_for = self.trainer
        self._batches: TrainBatches | None = None
        self._plan: list[EpochPlan] | None = None
        self._train_loader: ImageLoader | None = None
        self._val_loader: ImageLoader | None = None

    def batches(self) -> TrainBatches:
        """Return the batches of this process."""
        if self._made_for is not self.trainer:
            self._forget()
        if self._batches is None:
            rank, world_size = self._share()
            accumulate = self.trainer.accumulate_grad_batches if self.trainer else 1
            self._batches = TrainBatches(
                fold_sampler(self.config, self.train_table, self.train_rows, rank=rank, world_size=world_size),
                per_device_batch_size(self.config, world_size, accumulate),
                accumulate=accumulate,
                # Counts batches of all processes together, as the steps do.
                limit=int(self.config.trainer.get("fast_dev_run") or 0)
                or self.config.trainer.get("limit_train_batches"),
            )
        return self._batches

    def batch(self, number: int = 0, epoch: int = 0) -> Batch:
        """Return a batch as it is trained on: augmented, normalised and mixed.

        No generator of random numbers is moved on.
        Raises CompetitionError where the epoch has no such batch.
        """
        draws = next(self.batches().draws(epoch, number), None)
        if draws is None:
            held = self.batches().of_epoch(epoch)
            raise CompetitionError(f"epoch {epoch} has batches 0 to {held.steps * held.parts - 1}; found {number}")
        with seeded(0):
            batch = self.train_set.collate([self.train_set[draw] for draw in draws])
        return self.mixed(ready(batch, self.config, torch.float32), epoch, number)

    def mixed(self, batch: Batch, epoch: int, number: int) -> Batch:
        """Mix normalised images of a batch as `mix:` has it; what is drawn follows from run, epoch and place."""
        if self.teacher is not None:
            batch = self.teacher(batch)
        rng = np.random.default_rng([self.config.seed, epoch, number, self._share()[0]])
        return Task(self.config.task).dataset.mix_batch(batch, self.config, rng)

    def train_dataloader(self) -> ImageLoader:
        """Return the loader of the coming epoch: one loader with its epoch set, so that workers live on.

        Lightning asks before every epoch (`reload_dataloaders_every_n_epochs=1`) and reads the length afresh.
        """
        batches, epoch = self.batches(), self._epoch()
        is_resumed = epoch == self._resumed["epoch"]
        batches.set_epoch(epoch, start_batch=self._resumed["batches_done"] if is_resumed else 0)
        if self._train_loader is None:
            collate = self.train_set.collate
            settings = worker_settings(self.config)
            self._train_loader = ImageLoader(self.train_set, batch_sampler=batches, collate_fn=collate, **settings)
        return self._train_loader

    def val_dataloader(self) -> ImageLoader | list[ImageLoader]:
        """Return this rank's share of the validation images: one loader, as Lightning asks before every epoch."""
        if not len(self.val_set):
            return []  # fold=all, and fast_dev_run asks in spite of the limit
        if self._made_for is not self.trainer:
            self._forget()
        if self._val_loader is None:
            self._val_loader = evaluation_loader(self.val_set, *self._share())
        return self._val_loader

    def truth(self, image_id: str, height: int, width: int) -> Target:
        """Return the answer of a validation image."""
        return self.val_set.target(self._position[image_id], height, width)

    def plan(self) -> list[EpochPlan]:
        """Return what each epoch of the run holds."""
        batches = self.batches()
        if self._plan is None:
            given = self.config.trainer
            ends = given.get("max_epochs"), given.get("max_steps", -1)
            self._plan = plan_epochs(
                batches, *((self.trainer.max_epochs, self.trainer.max_steps) if self.trainer else ends)
            )
        return self._plan

    def describe_epoch(self, epoch: int) -> dict[str, float]:
        """Return the images that all processes train on in an epoch and, if known, the share of positives in its
        draw."""
        known: dict[str, float] = {"images": self.plan()[epoch].images}
        counts = self.counts(epoch)
        return known if counts is None else {**known, "positive_share": round(counts.share, 4)}

    def counts(self, epoch: int) -> EpochCounts | None:
        """Return what an epoch draws of positives and negatives; None where `sampler:` tells none, or another draws."""
        sampler = self.batches().sampler
        is_told = self.config.sampler.tells_positives and isinstance(sampler, RatioSampler)
        return sampler.counts(epoch) if is_told else None

    def begin_batch(self, number: int) -> None:
        """Note which batch of the epoch is trained on: a checkpoint that is written from here on has it."""
        self._batches_done = number + 1

    def end_epoch(self) -> None:
        """Note that a checkpoint from here on is not of the middle of an epoch."""
        self._batches_done = 0

    def state_dict(self) -> dict[str, int]:
        """Note how far the epoch is, for a checkpoint in its middle."""
        return {"epoch": self._epoch(), "batches_done": self._batches_done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where the checkpoint was written."""
        self._resumed = state_dict
        self._batches_done = state_dict["batches_done"]

    def _share(self) -> tuple[int, int]:
        """Return the rank of this process and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0


def per_device_batch_size(config: Config, world_size: int, accumulate: int) -> int:
    """Split the global batch over devices and accumulated batches; raise CompetitionError if it does not divide."""
    parts = world_size * accumulate
    size, rest = divmod(config.data.batch_size, parts)
    if rest or not size:
        near = sorted({max(size, 1) * parts, (size + 1) * parts})
        raise CompetitionError(
            f"data.batch_size: {config.data.batch_size} is the global batch and does not divide by "
            f"{world_size} devices x {accumulate} accumulated batches; nearest: "
            f"{' or '.join(map(str, near))}"
        )
    return size


def mixing_warnings(config: Config, batch_size: int) -> list[str]:
    """Say in a line where `mix:` is asked for and a device's batch has no second image to mix one with."""
    mix = getattr(config, "mix", None)
    if batch_size > 1 or mix is None or mix == type(mix)():
        return []
    near = 2 * config.data.batch_size
    return [
        "mix: a device has batches of 1 image, which has none to be mixed with but itself; set "
        f"data.batch_size={near}, or use fewer devices or accumulated batches"
    ]
