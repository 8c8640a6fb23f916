"""What ends a training before its last epoch: signals, a time limit, no improvement, a loss that is no number."""

import multiprocessing
import signal
import threading
import time
from types import FrameType
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, EarlyStopping

from competition.config.settings import EarlyStopping as Settings
from competition.config.settings import Mode
from competition.data.loaders import ImageLoader
from competition.support.errors import STOP_SIGNALS, CompetitionError, StoppedError
from competition.support.time_limit import parse_max_time
from competition.training.checkpoint import LATEST, LatestAndBest, is_step_done
from competition.training.monitor import LOSS

# For which a loader may be waited for after a signal: SLURM kills 30 seconds after SIGTERM.
PATIENCE = 20.0


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
        self._gives_up = False
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals from Lightning's handlers."""
        for number in STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._note)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop between two optimizer steps; the epoch's last batch is followed by its end, which is a better place."""
        if trainer.is_last_batch or not is_step_done(trainer, batch_idx):
            return
        if self._is_asked(trainer):
            self.checkpoint.save_latest(trainer)
            self._stop(trainer, f"epoch {trainer.current_epoch + 1}, batch {batch_idx + 1}")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back; do not wait for readers where it is to end at once."""
        self._restore()
        if self._gives_up or isinstance(exception, KeyboardInterrupt):
            _end_workers()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if asked to; the epoch has been saved. After the last one there is nothing to go on with."""
        if trainer.current_epoch + 1 < (trainer.max_epochs or 0) and self._is_asked(trainer):
            self._stop(trainer, f"the end of epoch {trainer.current_epoch + 1}")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._gives_up:  # it is _watch_loader that sends it
            if ImageLoader.waits_since is not None:
                self._give_up()
            self._gives_up = False
            return
        if self._signal == signal.SIGINT == number:  # a second Ctrl-C means at once
            raise KeyboardInterrupt
        if self._signal is None:
            threading.Thread(target=self._watch_loader, args=(number,), daemon=True).start()
        self._signal = number

    def _watch_loader(self, number: int) -> None:
        """Send the signal again where the main process waits for a loader and no step comes."""
        asked = time.monotonic()
        while self._before:
            since = ImageLoader.waits_since
            if since is not None and time.monotonic() - max(since, asked) > PATIENCE:
                self._gives_up = True
                signal.pthread_kill(threading.main_thread().ident or 0, number)
            time.sleep(0.2)

    def _give_up(self) -> NoReturn:
        """Stop without a step to save after, and end what does not read its images."""
        assert self._signal is not None
        path = self.checkpoint.folder / LATEST
        saved = f"what {path} holds is whole: go on with --resume" if path.is_file() else "nothing was saved yet"
        raise StoppedError(
            f"stopped ({signal.Signals(self._signal).name}) without a further step: no images came for {PATIENCE:g} "
            f"seconds from those that read them (data.num_workers); {saved}",
            128 + self._signal,
        )

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


class EndAtSigterm(pl.Callback):
    """Ends a prediction, or a validation by itself, at SIGTERM: Lightning only takes note of it, and goes on."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signal as for a prediction."""
        self.on_predict_start(trainer, pl_module)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signal from Lightning's handler, which puts back the one before at the end."""

        def end(number: int, frame: FrameType | None) -> NoReturn:
            if (launcher := trainer.strategy.launcher) is not None:  # it has started the other processes
                launcher.kill(number)
            raise StoppedError(
                f"stopped ({signal.Signals(number).name}) before all images were predicted; the same line begins this "
                "anew, that of a training with --resume",
                128 + number,
            )

        signal.signal(signal.SIGTERM, end)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """End the processes that read images instead of waiting for them."""
        if isinstance(exception, StoppedError | KeyboardInterrupt):
            _end_workers()


def _end_workers() -> None:
    """Kill the processes that read images: one that is stuck does not end by itself, and Python would wait for it."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would throw
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(5)
    signal.signal(signal.SIGCHLD, before)


WAYS_ON = "lower optimizer.lr, or set trainer.gradient_clip_val or trainer.precision=32-true"


class StopOnNan(Callback):
    """Ends training at a loss or at weights that are NaN or infinite, before such a state is saved.

    It checks a loss one step late: by then the GPU has computed it, and nothing waits. It also checks the loss of
    validation: a step of a finite loss can leave weights that give no finite one.
    """

    def __init__(self) -> None:
        self._last: tuple[torch.Tensor, int, list[str]] | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the loss of the step before, and remember this one."""
        self._check_last_loss(trainer)
        self._last = (outputs["loss"].detach(), batch_idx, batch["image_id"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the last step's loss before the epoch is saved."""
        self._check_last_loss(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the last step's loss before it costs a validation."""
        self._check_last_loss(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the loss of validation before the epoch is saved; it is the same on every process."""
        loss = trainer.callback_metrics.get(LOSS)
        if loss is not None and not bool(torch.isfinite(loss)):
            raise CompetitionError(
                f"epoch {trainer.current_epoch + 1} (optimizer step {trainer.global_step}): {LOSS} is {float(loss)}, "
                f"so the epoch is not saved: {WAYS_ON}, and train anew; or look at the validation images"
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check the last step's loss and the weights, which a finite loss may have ruined, before anything is
        written: in mid-epoch, or where all images are trained on, no validation has seen them."""
        self._check_last_loss(trainer)
        finite = [torch.isfinite(weight).all() for weight in pl_module.parameters()]
        if not bool(torch.stack(finite).all()):
            raise CompetitionError(
                f"epoch {trainer.current_epoch + 1} (optimizer step {trainer.global_step}): the loss is finite, but it "
                f"left weights that are not, so they are not saved: {WAYS_ON}, and train anew"
            )

    def _check_last_loss(self, trainer: pl.Trainer) -> None:
        if self._last is None:
            return
        (loss, batch, image_ids), self._last = self._last, None
        if not bool(torch.isfinite(loss)):
            shown = ", ".join(image_ids[:8]) + (f" and {len(image_ids) - 8} more" if len(image_ids) > 8 else "")
            raise CompetitionError(
                f"epoch {trainer.current_epoch + 1}, batch {batch + 1} (optimizer step {trainer.global_step}): the "
                f"loss is {float(loss)}, on images {shown}, so the step is not saved: look at these images and go on "
                f"with --resume; or {WAYS_ON}, and train anew"
            )


class StopEarly(EarlyStopping):
    """Lightning's own, which stays stopped: resumed to predict after its last epoch, a run does not train on.

    It looks after each validation, as `patience` counts those, and at those only: Lightning's own fails at the end of
    an epoch that had none. A value that is no number is one that has not improved.
    """

    def __init__(self, monitor: str, settings: Settings, mode: Mode) -> None:
        super().__init__(
            monitor,
            settings.min_delta,
            settings.patience,
            mode=mode,
            check_finite=False,
            check_on_train_epoch_end=False,
        )
        self._has_stopped = False

    def state_dict(self) -> dict[str, Any]:
        """Keep that it has stopped: with `trainer.min_epochs` the counted validations alone do not tell."""
        return super().state_dict() | {"has_stopped": self._has_stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the validations counted so far."""
        super().load_state_dict(state_dict)
        self._has_stopped = state_dict["has_stopped"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop before the first epoch if the run that is resumed had stopped."""
        trainer.should_stop = trainer.should_stop or self._has_stopped

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count, and note for a resume whether that is the end."""
        super().on_validation_end(trainer, pl_module)
        self._has_stopped = trainer.should_stop
