"""Stopping in good order: signals and a time limit save latest.pt at the next step, then end the training."""

import signal
import time
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from competition.checkpoint import LATEST, LatestAndBest
from competition.errors import STOP_SIGNALS, StoppedError
from competition.time_limit import parse_max_time


class StopInGoodOrder(Checkpoint):
    """Saves and stops at the next optimizer step after a signal or when `max_time` is over.

    It is a Checkpoint only because Lightning calls those last: give it after LatestAndBest.

    Lightning's own `max_time` and signal handling end an epoch in its middle as if it were whole: a resumed run would
    skip the rest of it.
    """

    def __init__(self, checkpoint: LatestAndBest, max_time: Any = None) -> None:
        self.checkpoint = checkpoint
        self.limit = parse_max_time(max_time)
        self._started = time.monotonic()
        self._signal: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, in place of Lightning's handlers."""
        for number in STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._note)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop between two optimizer steps; the epoch's last batch is followed by its end, which is a better place."""
        if trainer.is_last_batch or trainer.fit_loop._should_accumulate():
            return
        if self._is_asked(trainer):
            self.checkpoint.save_latest(trainer)
            self._stop(trainer, f"epoch {trainer.current_epoch + 1}, batch {batch_idx + 1}")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen no more."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        self._restore()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if asked to; the epoch has been saved. After the last one there is nothing to go on with."""
        if trainer.current_epoch + 1 < (trainer.max_epochs or 0) and self._is_asked(trainer):
            self._stop(trainer, f"the end of epoch {trainer.current_epoch + 1}")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal == signal.SIGINT == number:  # a second Ctrl-C means at once
            raise KeyboardInterrupt
        self._signal = number

    def _is_asked(self, trainer: pl.Trainer) -> bool:
        asked = self._signal is not None or time.monotonic() - self._started > self.limit
        # All ranks stop at the same step, whichever of them got the signal.
        return trainer.strategy.reduce_boolean_decision(asked, all=False)

    def _stop(self, trainer: pl.Trainer, where: str) -> None:
        if self._signal is not None:
            reason, status = signal.Signals(self._signal).name, 128 + self._signal
        elif time.monotonic() - self._started > self.limit:
            reason, status = "trainer.max_time is over", StoppedError.TIME_LIMIT
        else:
            reason, status = "another process was told to", StoppedError.TIME_LIMIT
        path = self.checkpoint.folder / LATEST
        raise StoppedError(f"stopped at {where} ({reason}); saved in {path}; go on with --resume", status)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
