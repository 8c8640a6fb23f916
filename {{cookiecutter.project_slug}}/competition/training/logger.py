"""One row an epoch into metrics.csv and one line on the console, written by rank zero alone."""

import csv
import importlib.util
import io
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from competition.config.settings import Logger as LoggerSettings
from competition.support.atomic_files import replacing
from competition.support.distributed import num_processes, of_all_processes, rank
from competition.support.errors import CompetitionError

FIRST_COLUMNS = (
    *("epoch", "step", "learning_rate", "images", "positive_share"),
    *("seconds", "samples_per_second", "memory_mb", "train/loss"),
)


class MetricsCsv(Callback):
    """Appends a row an epoch to metrics.csv and redraws metrics.png from it, but not for epochs of a few seconds.

    A row is written before the epoch is saved, so a killed run loses no finished epoch; a resumed one drops the rows of
    epochs that it trains again. Every rank must have it, as the loss is averaged over them; rank zero writes.
    """

    def __init__(
        self,
        path: Path,
        metrics: Sequence[str],
        *,
        describe_epoch: Callable[[int], Mapping[str, float]] = lambda epoch: {},
        plot: bool = True,
    ) -> None:
        """Write to `path`, with columns for `metrics`; `describe_epoch` may know more of an epoch, as its images."""
        self.path = path
        self.describe_epoch = describe_epoch
        self.columns = [*FIRST_COLUMNS, "val/loss", *(f"val/{name}" for name in metrics)]
        self._plot = MetricsPlot(path) if plot else None
        self._start_clock()
        self._loss_sum: torch.Tensor | float = 0.0
        self._num_batches = 0
        self._is_validated = False  # whether what is logged of validation is of this epoch

    def _start_clock(self) -> None:
        self._started = self._validation_started = time.perf_counter()
        self._validation_seconds = 0.0
        self._images = 0

    def state_dict(self) -> dict[str, Any]:
        """Keep the epoch's running loss of every process, for a checkpoint in its middle."""
        own = float(torch.as_tensor(self._loss_sum, dtype=torch.float64))
        return {"loss_sums": of_all_processes(own), "num_batches": self._num_batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the running loss; on another number of processes each with the mean of all, which stays so."""
        sums = state_dict["loss_sums"] if "loss_sums" in state_dict else [state_dict["loss_sum"]]  # as it once was
        is_same_number = len(sums) == num_processes()
        self._loss_sum = sums[rank()] if is_same_number else sum(sums) / len(sums)
        self._num_batches = state_dict["num_batches"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop rows of epochs that are trained again."""
        self._start_clock()
        if trainer.is_global_zero and self.path.is_file():
            self._rewrite([row for row in self._rows() if int(row["epoch"]) <= trainer.current_epoch])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock. An epoch that is resumed in its middle does not come here."""
        self._start_clock()
        self._loss_sum, self._num_batches = 0.0, 0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note when training paused: StopOnNan, called before this, has waited for the GPU's last step."""
        self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that this epoch has been validated, and how long that took."""
        self._is_validated = True
        self._validation_seconds += time.perf_counter() - self._validation_started

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images and add up the loss, on the device: reading it here would wait for the GPU at every step."""
        self._images += len(batch["image_id"]) * trainer.world_size
        # Lightning hands over the batch's part of the loss of a step.
        self._loss_sum = self._loss_sum + outputs["loss"].detach().double()
        self._num_batches += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the row. Validation has run by now; LatestAndBest, which saves the state, comes after."""
        steps = max(math.ceil(self._num_batches / trainer.accumulate_grad_batches), 1)
        mean = torch.as_tensor(self._loss_sum, device=pl_module.device) / steps
        train_loss = float(trainer.strategy.reduce(mean, reduce_op="mean"))
        self._loss_sum, self._num_batches = 0.0, 0
        # Lightning keeps the values of the last validation, of whichever epoch it was.
        kinds = ("train/", "val/") if self._is_validated else ("train/",)
        self._is_validated = False
        if not trainer.is_global_zero:
            return
        seconds = time.perf_counter() - self._started
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(kinds)}
        memory = peak_memory_mb()
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            **self.describe_epoch(trainer.current_epoch),
            "seconds": round(seconds, 2),
            "samples_per_second": round(self._images / (seconds - self._validation_seconds), 1),
            "memory_mb": round(memory) if math.isfinite(memory) else memory,
            **logged,
            "train/loss": train_loss,
        }
        self._append(row)
        scores = "  ".join(f"{name} {row[name]:.4f}" for name in self.columns if "/" in name and name in row)
        print(f"epoch {row['epoch']}/{trainer.max_epochs}  {scores}  {seconds:.0f} s", flush=True)
        if self._plot:
            self._plot.refresh()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let the last drawing finish."""
        if self._plot and trainer.is_global_zero:
            self._plot.finish()

    def _append(self, row: dict[str, Any]) -> None:
        late = [name for name in row if name not in self.columns]
        if late:  # a metric of the user's own: the rows so far leave it empty
            self.columns += late
            if self.path.is_file():
                self._rewrite(self._rows())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)

    def _rows(self) -> list[dict[str, str]]:
        whole, _, _ = self.path.read_text(encoding="utf-8").rpartition("\n")  # a full disk can tear the last line
        rows = [row for row in csv.DictReader(whole.splitlines()) if row["epoch"]]
        self.columns += [name for name in (rows[0] if rows else []) if name not in self.columns]
        return rows

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with replacing(self.path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")


SECONDS_BETWEEN_PLOTS = 10  # a drawing takes a process more than a second


class MetricsPlot:
    """Draws metrics.png in a process of its own, so that training never waits for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._drawing: subprocess.Popen[bytes] | None = None
        self._begun = time.monotonic()  # the last drawing
        self._is_behind = False  # whether a row came that is not drawn

    def refresh(self) -> None:
        """Start a drawing, unless the last one still goes on or was begun just now."""
        goes_on = self._drawing is not None and self._drawing.poll() is None
        self._is_behind = goes_on or time.monotonic() < self._begun + SECONDS_BETWEEN_PLOTS
        if not self._is_behind:
            self._draw()

    def _draw(self) -> None:
        command = [sys.executable, "-m", "competition.training.metrics_plot", str(self.path)]
        self._drawing = subprocess.Popen(command, start_new_session=True)  # Ctrl-C is not for it
        self._begun = time.monotonic()

    def finish(self) -> None:
        """Draw the last epoch, if it is not drawn yet, and wait for it."""
        if self._drawing is not None:
            self._drawing.wait()
        # Without a drawing there may be rows all the same: of a training that was killed after its last epoch.
        if self._is_behind or (self._drawing is None and self.path.is_file()):
            self._draw()
        if self._drawing is not None:
            self._drawing.wait()
            self._drawing, self._is_behind = None, False


def build_loggers(settings: LoggerSettings, folder: Path, name: str) -> list[Logger]:
    """Return the loggers that the config asks for, on rank zero; others write nothing.

    Raises CompetitionError that says what to install for one.
    """
    wanted = [package for package, is_wanted in settings.model_dump().items() if is_wanted]
    for package in wanted:
        _require(package)
    if getattr(rank_zero_only, "rank", 0):
        return []
    loggers: list[Logger] = []
    if settings.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    if settings.wandb:
        loggers.append(WandbLogger(name=name, save_dir=folder))
    if settings.mlflow:
        # Its store of plain files is being given up.
        where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve()}/mlflow.db"
        artifacts = f"file:{folder.resolve()}/mlruns" if where.startswith("sqlite") else None
        loggers.append(MLFlowLogger(run_name=name, tracking_uri=where, artifact_location=artifacts))
    return loggers


def peak_memory_mb() -> float:
    """Return the most memory used so far in MB: of the GPU where there is one, else of this process; nan if unknown."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise CompetitionError(
            f"logger.{package}: the package is not installed; install it (`uv sync --extra {package}` or "
            f"`pip install {package}`) or set logger.{package} to false"
        )
