"""An epoch of `competition train` beside a plain PyTorch loop over the same dataset, batches, network and precision.

    IMAGES=160 python benchmarks/train_epoch.py [TASK [KEY=VALUE ...]]

On the CPU, or on a GPU by trainer.accelerator=gpu. Both run in this process, an epoch each in turn, so that a machine
whose speed drifts slows both. Validation is off. Beside it: the same step over and over on one batch that is there
already, which is how fast the network could be fed.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning.callbacks import Checkpoint
from torch.utils.data import DataLoader

PROJECT = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"
sys.path.insert(0, str(PROJECT))

from competition.config.loading import load_config  # noqa: E402
from competition.config.settings import Config  # noqa: E402
from competition.data.dataset import Batch, ready, share_cache  # noqa: E402
from competition.data.folds import make_folds, read_folds  # noqa: E402
from competition.data.loaders import worker_settings  # noqa: E402
from competition.prediction.ensemble import precision_context  # noqa: E402
from competition.tasks.contract import Task  # noqa: E402
from competition.tasks.made_up_images import write_sample  # noqa: E402
from competition.training.devices import inference_device  # noqa: E402
from competition.training.fit import _callbacks  # noqa: E402
from competition.training.fold_data import FoldData  # noqa: E402
from competition.training.logger import MetricsCsv  # noqa: E402
from competition.training.module import CompetitionModule, build_optimizer  # noqa: E402
from competition.training.trainer import build_trainer, describe_trainer  # noqa: E402

EPOCHS = 9


class EpochTimes(pl.Callback):
    """Lets a plain epoch run after each of Lightning's, and times both."""

    def __init__(self, plain_epoch: Callable[[], None]) -> None:
        self.plain_epoch = plain_epoch
        self.lightning: list[float] = []
        self.plain: list[float] = []
        self._started = 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # From the end of the plain epoch: Lightning's workers begin to read before it says that an epoch starts.
        self.lightning.append(time.perf_counter() - self._started)
        started = time.perf_counter()
        self.plain_epoch()
        self._started = time.perf_counter()
        self.plain.append(self._started - started)


class PlainLoop:
    """Trains with nothing but torch."""

    def __init__(self, config: Config, data: FoldData, classes: tuple[str, ...]) -> None:
        self.config, self.device = config, inference_device(config)
        self.task = Task(config.task)
        layout = torch.channels_last if config.model.channels_last else torch.preserve_format
        network = self.task.model.build_network(config, len(classes)).train()
        self.network = network.to(device=self.device, memory_format=layout)
        self.optimizer = build_optimizer(self.network, config.optimizer)
        self.images: list[int] = []  # by epoch: shares of positives change how many there are
        self.loader = DataLoader(
            data.train_set,
            batch_sampler=data.batches(),
            collate_fn=data.train_set.collate,
            **worker_settings(config),
        )

    def epoch(self) -> None:
        """Train on every batch of an epoch."""
        images = 0
        for batch in self.loader:
            self.step(ready(move_data_to_device(batch, self.device), self.config, torch.float32))
            images += len(batch["image"])
        self.wait()
        self.images.append(images)

    def step(self, batch: Batch) -> None:
        """Train on a batch."""
        with precision_context(self.config, self.device):
            losses = self.task.loss.image_losses(self.network, self.network(batch["image"]), batch, self.config)
        self.optimizer.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()

    def wait(self) -> None:
        """Let a GPU finish."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def images_per_second_when_fed(self, steps: int = 20) -> float:
        """Return how many images a second the steps alone can do."""
        batch = ready(move_data_to_device(next(iter(self.loader)), self.device), self.config, torch.float32)
        for number in range(steps + 3):
            if number == 3:  # what happens once is over
                self.wait()
                started = time.perf_counter()
            self.step(batch)
        self.wait()
        return steps * len(batch["image"]) / (time.perf_counter() - started)


def main(task: str, words: list[str], folder: Path) -> None:
    write_sample(task, folder / "data", int(os.environ.get("IMAGES", "160")))
    overrides = [f"data.dir={folder / 'data'}", f"trainer.max_epochs={EPOCHS}", "trainer.accelerator=cpu", *words]
    config = load_config([PROJECT / "configs" / f"{task}.yaml"], [*overrides, "trainer.limit_val_batches=0"])
    make_folds(config)
    table = Task(task).table.read_table(config)
    data = FoldData(config, table, read_folds(config, table))
    callbacks = _callbacks(config, folder, data)
    for callback in callbacks:
        if isinstance(callback, MetricsCsv):
            # It is drawn by a process of its own, beside the plain epoch: that one would pay for it.
            callback._plot = None
    trainer = build_trainer(config, callbacks)
    # All callbacks of `competition train` but the checkpoint, which a plain loop would have to write too. (Given none,
    # the Trainer would add one of its own.)
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, Checkpoint)]
    data.trainer = trainer
    share_cache(config, [data.train_set, data.val_set])
    plain = PlainLoop(config, data, table.classes)
    times = EpochTimes(plain.epoch)
    trainer.callbacks.append(times)
    trainer.fit(CompetitionModule(config.model_dump(mode="json"), list(table.classes)), data)
    # The first epoch of each starts its workers.
    ratios = [ours / plain for ours, plain in zip(times.lightning[1:], times.plain[1:], strict=True)]
    counted = zip(plain.images[1:], times.lightning[1:], times.plain[1:], strict=True)
    by_epoch = [(images / lightning, images / alone) for images, lightning, alone in counted]
    ours, theirs = (statistics.median(side) for side in zip(*by_epoch, strict=True))
    print(f"{task}, {describe_trainer(config, trainer, config.data.batch_size)}; {' '.join(words)}")
    print(f"ratio by epoch {' '.join(f'{ratio:.2f}' for ratio in ratios)}; median {statistics.median(ratios):.3f}")
    fed = plain.images_per_second_when_fed()
    print(f"images a second: competition train {ours:.0f}, plain loop {theirs:.0f}, steps alone {fed:.0f}")


if __name__ == "__main__":
    workspace = Path(tempfile.mkdtemp())
    try:
        os.environ["PYTHONPATH"] = str(PROJECT)  # for the process that draws metrics.png
        os.chdir(workspace)  # Lightning leaves a checkpoint behind
        main(sys.argv[1] if len(sys.argv) > 1 else "classification", sys.argv[2:], workspace)
    finally:
        shutil.rmtree(workspace)
