"""An epoch of `competition train` beside a plain PyTorch loop over the same dataset, batches, network and precision.

    python benchmarks/train_epoch.py [TASK]

Both run in this process, an epoch each in turn, so that a machine whose speed drifts slows both. Validation is off.
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
from pytorch_lightning.callbacks import Checkpoint
from torch.utils.data import DataLoader

PROJECT = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"
sys.path.insert(0, str(PROJECT))

from competition.config import load_config  # noqa: E402
from competition.data import FoldData  # noqa: E402
from competition.folds import make_folds, read_folds  # noqa: E402
from competition.logger import MetricsCsv  # noqa: E402
from competition.module import CompetitionModule, build_optimizer  # noqa: E402
from competition.sample import write_sample  # noqa: E402
from competition.settings import Config  # noqa: E402
from competition.task import Task  # noqa: E402
from competition.train import _callbacks  # noqa: E402
from competition.trainer import build_trainer  # noqa: E402

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


def plain_loop(config: Config, data: FoldData, classes: tuple[str, ...]) -> Callable[[], None]:
    """Return a function that trains one epoch with nothing but torch."""
    task = Task(config.task)
    network = task.model.build_network(config, len(classes)).train()
    optimizer = build_optimizer(network, config.optimizer)
    loader = DataLoader(
        data.train_set,
        batch_sampler=data.batches(),
        collate_fn=data.train_set.collate,
        num_workers=config.data.num_workers,
        persistent_workers=config.data.num_workers > 0,
    )

    def epoch() -> None:
        for batch in loader:
            loss = task.loss.image_losses(network, network(batch["image"]), batch, config).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()

    return epoch


def main(task: str, folder: Path) -> None:
    write_sample(task, folder / "data", 160)
    overrides = [f"data.dir={folder / 'data'}", f"trainer.max_epochs={EPOCHS}", "trainer.accelerator=cpu"]
    config = load_config([PROJECT / "configs" / f"{task}.yaml"], [*overrides, "trainer.limit_val_batches=0"])
    make_folds(config)
    table = Task(task).table.read_table(config)
    data = FoldData(config, table, read_folds(config, table))
    callbacks = _callbacks(config, folder, data)
    for callback in callbacks:
        if isinstance(callback, MetricsCsv):
            callback._plot = (
                None  # it is drawn by a process of its own, beside the plain epoch: that one would pay for it
            )
    trainer = build_trainer(config, callbacks)
    # All callbacks of `competition train` but the checkpoint, which a plain loop would have to write too. (Given none,
    # the Trainer would add one of its own.)
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, Checkpoint)]
    data.trainer = trainer
    times = EpochTimes(plain_loop(config, data, table.classes))
    trainer.callbacks.append(times)
    trainer.fit(CompetitionModule(config.model_dump(mode="json"), list(table.classes)), data)
    # The first epoch of each starts its workers.
    ratios = [ours / plain for ours, plain in zip(times.lightning[1:], times.plain[1:], strict=True)]
    seconds = [statistics.median(side[1:]) for side in (times.lightning, times.plain)]
    print(f"{task}: competition train {seconds[0]:.2f} s an epoch, plain loop {seconds[1]:.2f} s")
    print(f"ratio by epoch {' '.join(f'{ratio:.2f}' for ratio in ratios)}; median {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    workspace = Path(tempfile.mkdtemp())
    try:
        os.environ["PYTHONPATH"] = str(PROJECT)  # for the process that draws metrics.png
        os.chdir(workspace)  # Lightning leaves a checkpoint behind
        main(sys.argv[1] if len(sys.argv) > 1 else "classification", workspace)
    finally:
        shutil.rmtree(workspace)
