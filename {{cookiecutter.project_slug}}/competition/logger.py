"""One row an epoch into metrics.csv and one line on the console, written by rank zero alone."""

import csv
import resource
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.rank_zero import rank_zero_only


class MetricsCsv(Callback):
    """Appends a row an epoch: epoch, step, learning rate, seconds, samples/s, memory and every logged metric."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started = 0.0
        self._trained = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started, self._trained = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images."""
        self._trained += len(batch["image_id"]) * trainer.world_size

    @rank_zero_only
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the row. Validation has run by now; Latest, which saves the state, comes after."""
        seconds = time.perf_counter() - self._started
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(seconds, 2),
            "samples_per_second": round(self._trained / seconds, 1),
            "memory_mb": round(peak_memory_mb()),
        }
        row |= {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(("train/", "val/")) and not name.endswith(("_step", "_epoch"))
        }
        self._append(row)
        scores = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if "/" in name)
        print(f"epoch {row['epoch'] + 1}/{trainer.max_epochs}  {scores}  {seconds:.0f} s", flush=True)

    def _append(self, row: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)


def peak_memory_mb() -> float:
    """Return the most memory used so far in MB: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
