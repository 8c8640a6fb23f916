"""The loaders of a training: who draws which images of a fold, on any number of processes."""

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loops.progress import _ProcessedTracker

from competition.config.settings import Config
from competition.data.dataset import ImageDataset, share_cache
from competition.data.folds import is_validated
from competition.data.loaders import ImageLoader, evaluation_loader, worker_settings
from competition.data.pseudo_labels import training_part
from competition.sampling.batches import TrainBatches, build_sampler
from competition.sampling.epoch_plan import EpochPlan, plan_epochs
from competition.sampling.sampler import RatioSampler
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table, Target


class FoldData(pl.LightningDataModule):
    """The loaders of one fold: training images, and the validation images of the fold."""

    def __init__(self, config: Config, table: Table, folds: np.ndarray) -> None:
        super().__init__()
        self.config = config
        self.table = table
        self.train_table, self.train_rows = training_part(config, table, folds)
        val_rows = np.flatnonzero(is_validated(config, folds))
        train_ids = self.train_table.image_ids[self.train_rows]
        self.train_set = ImageDataset(config, train_ids, table=self.train_table, train=True)
        self.val_set = ImageDataset(config, table.image_ids[val_rows], table=table)
        share_cache(config, [self.train_set, self.val_set])
        self._batches: TrainBatches | None = None
        self._plan: list[EpochPlan] | None = None
        self._train_loader: ImageLoader | None = None
        self._val_loader: ImageLoader | None = None
        self._position = {image_id: index for index, image_id in enumerate(self.val_set.image_ids)}
        self._resumed = {"epoch": 0, "batches_done": 0}

    def batches(self) -> TrainBatches:
        """Return the batches of this process."""
        trainer = self._trainer()
        if self._batches is None:
            rank, world_size = trainer.global_rank, trainer.world_size
            sampler = build_sampler(self.config, self.train_table, self.train_rows, rank=rank, world_size=world_size)
            self._batches = train_batches(self.config, sampler, trainer)
        return self._batches

    def train_dataloader(self) -> ImageLoader:
        """Return the loader of the coming epoch: one loader with its epoch set, so that workers live on.

        Lightning asks before every epoch (`reload_dataloaders_every_n_epochs=1`) and reads the length afresh.
        """
        batches, epoch = self.batches(), self._trainer().current_epoch
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
        if self._val_loader is None:
            trainer = self._trainer()
            self._val_loader = evaluation_loader(self.val_set, trainer.global_rank, trainer.world_size)
        return self._val_loader

    def truth(self, image_id: str, height: int, width: int) -> Target:
        """Return the answer of a validation image."""
        return self.val_set.target(self._position[image_id], height, width)

    def plan(self) -> list[EpochPlan]:
        """Return what each epoch of the run holds."""
        if self._plan is None:
            self._plan = plan_epochs(self.batches(), self._trainer())
        return self._plan

    def describe_epoch(self, epoch: int) -> dict[str, float]:
        """Return the images that all processes train on in an epoch, and the share of positives in its draw."""
        known = {"images": self.plan()[epoch].images}
        if not self.config.sampler.tells_positives:
            return known
        return {**known, "positive_share": round(self.batches().sampler.counts(epoch).share, 4)}

    def state_dict(self) -> dict[str, int]:
        """Note how far the epoch is, for a checkpoint in its middle."""
        loop = self._trainer().fit_loop
        progress = loop.epoch_progress.current
        assert isinstance(progress, _ProcessedTracker)
        in_mid_epoch = progress.processed < progress.started
        done = loop.epoch_loop.batch_idx + 1 if in_mid_epoch else 0
        return {"epoch": self._trainer().current_epoch, "batches_done": done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where the checkpoint was written."""
        self._resumed = state_dict

    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None, "only in a Trainer"
        return self.trainer


def train_batches(config: Config, sampler: RatioSampler, trainer: pl.Trainer) -> TrainBatches:
    """Return the batches of a process; `trainer.limit_train_batches` counts global ones, as the steps do."""
    limit = int(config.trainer.get("fast_dev_run") or 0) or config.trainer.get("limit_train_batches")
    accumulate = trainer.accumulate_grad_batches
    return TrainBatches(sampler, per_device_batch_size(config, trainer), accumulate=accumulate, limit=limit)


def per_device_batch_size(config: Config, trainer: pl.Trainer) -> int:
    """Split the global batch over devices and accumulated batches; raise CompetitionError if it does not divide."""
    parts = trainer.world_size * trainer.accumulate_grad_batches
    size, rest = divmod(config.data.batch_size, parts)
    if rest or not size:
        near = sorted({max(size, 1) * parts, (size + 1) * parts})
        raise CompetitionError(
            f"data.batch_size: {config.data.batch_size} is the global batch and does not divide by "
            f"{trainer.world_size} devices x {trainer.accumulate_grad_batches} accumulated batches; nearest: "
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
