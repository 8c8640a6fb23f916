"""From a csv row to a batch: one dataset for training, validation and test images, and who draws which of them."""

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.progress import _ProcessedTracker
from torch.utils.data import DataLoader, Dataset, Sampler

from competition.augmentation import ImageAugmentation
from competition.errors import STOP_SIGNALS, CompetitionError
from competition.folds import is_validated
from competition.image_folder import row_in_words, test_image, train_image
from competition.images import read_image, read_image_size
from competition.pseudo import JoinedTable, training_part
from competition.sampling import Draw, TrainBatches, batches_by_epoch, build_sampler, steps_by_epoch
from competition.settings import Config
from competition.task import Table, Target, Task

Sample = dict[str, Any]
Batch = dict[str, Any]
Found = TypeVar("Found")


class ImageDataset(Dataset[Sample]):
    """Images by id: with a table training images, which have targets, without one test images, which have none."""

    def __init__(
        self, config: Config, image_ids: np.ndarray, *, table: Table | None = None, train: bool = False
    ) -> None:
        self.config = config
        self.image_ids = image_ids
        self.table = table
        self.rows = _rows_of(image_ids, table) if table else None
        self.augmentation = ImageAugmentation(config.data, train=train)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: Draw | int) -> Sample:
        """Return `image_id`, `image` (channels, H, W) float32, the original `height` and `width`, and the target.

        Raises CompetitionError that names the image's file and its csv line.
        """
        row, seed = index if isinstance(index, Draw) else Draw(index, 0)
        if self.augmentation.train:
            seed_everywhere(seed)
        image = self.read(row)
        return self.sample(row, image, self.target(row, *image.shape[:2]), seed)

    def sample(self, index: int, image: np.ndarray, target: Target, seed: int = 0) -> Sample:
        """Return the sample of an image (H, W, channels), or a part of it, and its target."""
        height, width = image.shape[:2]
        image, target = self.augmentation(image, target, seed)
        sample = {
            "image_id": str(self.image_ids[index]),
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "height": height,
            "width": width,
        }
        return sample | (Task(self.config.task).dataset.target_tensors(target) if self.table else {})

    def read(self, index: int) -> np.ndarray:
        """Read one image (H, W, channels)."""
        return self._named(index, read_image)

    def read_size(self, index: int) -> tuple[int, int]:
        """Read height and width of one image."""
        return self._named(index, read_image_size)

    def _named(self, index: int, read: Callable[[Path, int], Found]) -> Found:
        """Read from an image's file; what is wrong with it is told with its csv line."""
        data, image_id = self.config.data, self.image_ids[index]
        is_pseudo = isinstance(self.table, JoinedTable) and self.table.is_pseudo(self._table_row(index))
        path = test_image(data, image_id) if self.table is None or is_pseudo else train_image(data, image_id)
        try:
            return read(path, data.channels)
        except CompetitionError as error:
            if is_pseudo:
                raise CompetitionError(f"{error} (of {data.pseudo})") from None
            if self.table is None:
                raise CompetitionError(f"{error} (image {index + 1} of {data.sample_submission})") from None
            line = self.table.lines[self._table_row(index)]
            raise CompetitionError(f"{error} ({row_in_words(data, line)})") from None

    def target(self, index: int, height: int, width: int) -> Target:
        """Return the answer in pixels of the original image; nothing for a test image."""
        return {} if self.table is None else self.table.target(self._table_row(index), height, width)

    def _table_row(self, index: int) -> int:
        assert self.rows is not None
        return int(self.rows[index])

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join samples: `image_id` list, `image` (B, channels, H, W), `height` and `width` (B,), and the targets."""
        batch: Batch = {
            "image_id": [sample["image_id"] for sample in samples],
            "image": torch.stack([sample["image"] for sample in samples]),
            "height": torch.tensor([sample["height"] for sample in samples]),
            "width": torch.tensor([sample["width"] for sample in samples]),
        }
        return batch | (Task(self.config.task).dataset.collate_targets(samples) if self.table else {})


def _rows_of(image_ids: np.ndarray, table: Table) -> np.ndarray:
    position = {image_id: row for row, image_id in enumerate(table.image_ids)}
    return np.array([position[image_id] for image_id in image_ids], dtype=np.int64)


class ShareOfRank(Sampler[int]):
    """Every image once over all processes, in order, no padding: rank r reads r, r + world size, ...

    With fewer images than processes the last ranks read an image that another reads too, as each needs one batch;
    scores are gathered by image id, so it counts once.
    """

    def __init__(self, num_images: int, rank: int, world_size: int) -> None:
        if num_images < 1:
            raise CompetitionError("there is no image to predict or validate on")
        self.indices = (
            range(rank, num_images, world_size) if rank < num_images else range(rank % num_images, num_images)[:1]
        )

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class LazyLoader(DataLoader[Sample]):
    """Begins to read when its first batch is asked for.

    Lightning makes two iterators an epoch and uses one: an eager one would have every worker decode two batches that
    nobody asks for, and wait for them.
    """

    def __iter__(self) -> Iterator[Any]:  # ty: ignore[invalid-method-override]
        """Yield the batches."""
        yield from super().__iter__()


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
        self._batches: TrainBatches | None = None
        self._train_loader: DataLoader[Sample] | None = None
        self._val_loader: DataLoader[Sample] | None = None
        self._position = {image_id: index for index, image_id in enumerate(self.val_set.image_ids)}
        self._resumed = {"epoch": 0, "batches_done": 0}

    def batches(self) -> TrainBatches:
        """Return the batches of this process."""
        trainer = self._trainer()
        if self._batches is None:
            rank, world_size = trainer.global_rank, trainer.world_size
            sampler = build_sampler(self.config, self.train_table, self.train_rows, rank=rank, world_size=world_size)
            self._batches = TrainBatches(sampler, per_device_batch_size(self.config, trainer))
        return self._batches

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of the coming epoch: one loader with its epoch set, so that workers live on.

        Lightning asks before every epoch (`reload_dataloaders_every_n_epochs=1`) and reads the length afresh.
        """
        batches, epoch = self.batches(), self._trainer().current_epoch
        is_resumed = epoch == self._resumed["epoch"]
        batches.set_epoch(epoch, start_batch=self._resumed["batches_done"] if is_resumed else 0)
        if self._train_loader is None:
            collate = self.train_set.collate
            settings = _worker_settings(self.config)
            self._train_loader = LazyLoader(self.train_set, batch_sampler=batches, collate_fn=collate, **settings)
        return self._train_loader

    def val_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """Return this rank's share of the validation images: one loader, as Lightning asks before every epoch."""
        if not len(self.val_set):
            return []  # fold=all
        if self._val_loader is None:
            self._val_loader = evaluation_loader(self.val_set, self._trainer())
        return self._val_loader

    def truth(self, image_id: str, height: int, width: int) -> Target:
        """Return the answer of a validation image."""
        return self.val_set.target(self._position[image_id], height, width)

    def batches_by_epoch(self) -> list[int]:
        """Return the batches of this process in each epoch of the run."""
        batches, limit = self.batches(), self.config.trainer.get("limit_train_batches")
        return batches_by_epoch(batches.sampler, max(self._trainer().max_epochs or 0, 0), batches.batch_size, limit)

    def describe_epoch(self, epoch: int) -> dict[str, float]:
        """Return the images that all processes train on in an epoch, and the share of positives in its draw."""
        batches, limit = self.batches(), self.config.trainer.get("limit_train_batches")
        counts = batches.sampler.counts(epoch)
        number = batches_by_epoch(batches.sampler, epoch + 1, batches.batch_size, limit)[epoch]
        known = {"images": min(number * batches.batch_size, counts.per_rank) * counts.world_size}
        # Without a rule what counts as positive there is no share to speak of.
        return known | ({"positive_share": round(counts.share, 4)} if self.config.sampler.positive else {})

    def num_steps(self) -> int:
        """Return the optimizer steps of the run."""
        return sum(steps_by_epoch(self.batches_by_epoch(), self._trainer().accumulate_grad_batches))

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


def evaluation_loader(dataset: ImageDataset, trainer: pl.Trainer) -> DataLoader[Sample]:
    """Return this rank's share of a dataset, in order; with `data.window` its images come as their windows."""
    share = ShareOfRank(len(dataset), trainer.global_rank, trainer.world_size)
    # Accumulated batches do not make these smaller: nothing is kept for a backward pass.
    batch_size = max(dataset.config.data.batch_size // trainer.world_size, 1)
    settings = _worker_settings(dataset.config)
    if dataset.config.data.window is not None:
        from competition.window_data import WindowDataset  # which is made of what stands here

        windows = WindowDataset(dataset, list(share))
        return DataLoader(windows, batch_size, collate_fn=windows.collate, **settings)
    return DataLoader(dataset, batch_size, sampler=share, collate_fn=dataset.collate, **settings)


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


def _worker_settings(config: Config) -> dict[str, Any]:
    workers = config.data.num_workers
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "worker_init_fn": _leave_signals_to_main_process,
        "pin_memory": torch.cuda.is_available(),
    }


def seed_everywhere(seed: int) -> None:
    """Seed the generators that code of the user's own may draw on, so that a resumed run draws the same."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _leave_signals_to_main_process(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach every process of the group; the main one decides when to stop."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
