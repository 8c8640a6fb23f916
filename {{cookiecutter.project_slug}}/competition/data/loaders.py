"""DataLoaders and their workers, and who of several processes validates or predicts which images. No Lightning."""

import multiprocessing
import os
import re
import shutil
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import parent_process, resource_tracker
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import torch
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import DataLoader, Sampler

from competition.config.settings import Config
from competition.data.dataset import ImageDataset, Sample
from competition.data.series_dataset import SeriesBatches, SeriesDataset
from competition.data.window_dataset import WindowDataset
from competition.support.distributed import num_processes
from competition.support.errors import STOP_SIGNALS, CompetitionError
from competition.support.machine import cores_here

# Of shared memory, for what else needs it, as NCCL: a container has 64 MB of it unless it is told otherwise.
RESERVE = 32 * 2**20
MOST_WORKERS = 8  # for one device; each has batches in memory
# A worker that is forked while another thread ends, which holds a lock of OpenCV's then, waits for ever for that lock
# (1 of 2000 forks just behind threads that had read images); so does, before Python 3.11.10, one that is forked while a
# thread of torch's becomes known to Python (github.com/python/cpython, issue 112275). So for a moment the threads are
# let be, as they have nothing to do then.
REST = 0.01  # seconds


class ImageLoader(DataLoader[Sample]):
    """A DataLoader that begins to read when its first batch is asked for, and tells how long it has been waited for.

    Lightning makes two iterators an epoch and uses one: an eager one would have every worker decode two batches that
    nobody asks for, and wait for them. What happens in the main process while it waits in vain is up to
    StopInGoodOrder.
    """

    waits_since: ClassVar[float | None] = None  # of whichever loader; time.monotonic()

    def __iter__(self) -> Iterator[Any]:  # ty: ignore[incompatible-method-override]
        """Yield the batches."""
        starts_workers = self.num_workers > 0 and self._iterator is None
        with self._starting_workers() if starts_workers else nullcontext():
            batches = super().__iter__()
        while True:
            ImageLoader.waits_since = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (ConnectionError, EOFError, FileNotFoundError) as error:
                if not self.num_workers or "DataLoader worker" in str(error):
                    raise
                raise lost_reader(f"its batch cannot be had: {error!r}") from None
            finally:
                ImageLoader.waits_since = None
            yield batch

    @contextmanager
    def _starting_workers(self) -> Generator[None]:
        """Let threads come to rest; let workers that are started inside begin with SIGTERM blocked, which comes to this
        process behind it.

        Where they import numpy anew (spawn, forkserver) its threads would take the signal, and end them, whatever their
        main thread blocks later: _leave_signals_to_main_process.
        """
        time.sleep(REST)
        if not hasattr(signal, "sigwaitinfo"):  # or nothing would take it there
            yield
            return
        if (self.multiprocessing_context or multiprocessing.get_context()).get_start_method() != "fork":
            resource_tracker.ensure_running()  # which would unblock it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def explaining_lost_reader() -> Generator[None]:
    """Turn what torch throws when a process that reads images is gone into one line."""
    try:
        yield
    except RuntimeError as error:
        if not (lost := re.search(r"DataLoader worker \(pid.*? (is killed.*|exited unexpectedly)", str(error))):
            raise
        raise lost_reader(lost[1].strip(" .")) from None


def lost_reader(how: str) -> CompetitionError:
    """Return the error of a worker that is gone."""
    return CompetitionError(
        f"a process that reads images has ended ({how}): out of memory? Lower data.num_workers or data.batch_size"
    )


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


def evaluation_loader(dataset: ImageDataset, rank: int = 0, world_size: int = 1) -> ImageLoader:
    """Return a rank's share of a dataset, in order; with `data.window` its images come as their windows."""
    share = ShareOfRank(len(dataset), rank, world_size)
    # Accumulated batches do not make these smaller: nothing is kept for a backward pass.
    batch_size = max(dataset.config.data.batch_size // world_size, 1)
    settings = worker_settings(dataset.config)
    if isinstance(dataset, SeriesDataset):
        batches = SeriesBatches(dataset, list(share), batch_size)
        return ImageLoader(batches, 1, collate_fn=batches.collate, **settings)
    if dataset.config.data.window is not None:
        windows = WindowDataset(dataset, list(share))
        return ImageLoader(windows, batch_size, collate_fn=windows.collate, **settings)
    return ImageLoader(dataset, batch_size, sampler=share, collate_fn=dataset.collate, **settings)


def worker_settings(config: Config) -> dict[str, Any]:
    """Return the arguments of a DataLoader that say how its workers live."""
    workers = num_workers(config)
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "worker_init_fn": _begin_worker,
        "pin_memory": torch.cuda.is_available(),
    }


def num_workers(config: Config) -> int:
    """Return how many processes read images for this one: `data.num_workers`, or a share of the machine's cores.

    The images are the same with any number of them.
    """
    if config.data.num_workers is not None:
        return config.data.num_workers
    processes_here = -(-num_processes() // int(config.trainer.get("num_nodes", 1)))
    return min(max(cores_here() // processes_here, 1), MOST_WORKERS)


def _begin_worker(worker: int) -> None:
    _leave_signals_to_main_process()
    ForkingPickler.register(torch.Tensor, hand_over)


def hand_over(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Reduce a tensor of a worker for the way to the main process: in shared memory or, where that is full, by value.

    Where a worker found no room for a batch, torch would lose the batch, and the main process wait for it for ever.
    """
    size, shared = tensor.nbytes, Path("/dev/shm")
    try:
        if not shared.is_dir() or shutil.disk_usage(shared).free > size + RESERVE:
            return reduce_tensor(tensor.share_memory_())
    except RuntimeError:  # others have taken it meanwhile, or there is another limit
        pass
    return torch.from_numpy, (tensor.numpy(),)


def _leave_signals_to_main_process() -> None:
    """Ctrl-C and a scheduler's SIGTERM reach every process of the group; the main one decides when to stop.

    It ends its workers by SIGTERM, too, and waits for them: only its own counts.
    """
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux: tells who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        Thread(target=_end_when_told_by_main_process, daemon=True).start()


def _end_when_told_by_main_process() -> None:
    main_process = parent_process()  # os.getppid() is another where a server forks the workers
    assert main_process is not None
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != main_process.pid:
        pass
    os._exit(0)
