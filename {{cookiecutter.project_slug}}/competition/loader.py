"""The loader of images that are predicted or validated on: each once, over all processes. No Lightning."""

import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from competition.dataset import ImageDataset, Sample
from competition.errors import STOP_SIGNALS, CompetitionError
from competition.settings import Config
from competition.window_data import WindowDataset


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


def evaluation_loader(dataset: ImageDataset, rank: int = 0, world_size: int = 1) -> DataLoader[Sample]:
    """Return a rank's share of a dataset, in order; with `data.window` its images come as their windows."""
    share = ShareOfRank(len(dataset), rank, world_size)
    # Accumulated batches do not make these smaller: nothing is kept for a backward pass.
    batch_size = max(dataset.config.data.batch_size // world_size, 1)
    settings = worker_settings(dataset.config)
    if dataset.config.data.window is not None:
        windows = WindowDataset(dataset, list(share))
        return DataLoader(windows, batch_size, collate_fn=windows.collate, **settings)
    return DataLoader(dataset, batch_size, sampler=share, collate_fn=dataset.collate, **settings)


def worker_settings(config: Config) -> dict[str, Any]:
    """Return the arguments of a DataLoader that say how its workers live."""
    workers = config.data.num_workers
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "worker_init_fn": _leave_signals_to_main_process,
        "pin_memory": torch.cuda.is_available(),
    }


def _leave_signals_to_main_process(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach every process of the group; the main one decides when to stop."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
