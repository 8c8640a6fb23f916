"""Stopping when a loss or a weight is no number, of a loss in training with the images that did it."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from competition.errors import CompetitionError
from competition.monitor import LOSS

WAYS_ON = "lower optimizer.lr, or set trainer.gradient_clip_val or trainer.precision=32-true"


class StopOnNan(Callback):
    """Ends training at a loss or at weights that are NaN or infinite, before such a state is saved.

    A loss is looked at one step late: by then the GPU has it, and nothing waits. The loss of validation is looked at,
    too: a step of a finite loss can leave weights that give no finite one.
    """

    def __init__(self) -> None:
        self._last: tuple[torch.Tensor, int, list[str]] | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the loss of the step before, and remember this one."""
        self._look(trainer)
        self._last = (outputs["loss"].detach(), batch_idx, batch["image_id"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the last step's loss before the epoch is saved."""
        self._look(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the last step's loss before it costs a validation."""
        self._look(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the loss of validation before the epoch is saved; it is the same on every process."""
        loss = trainer.callback_metrics.get(LOSS)
        if loss is not None and not bool(torch.isfinite(loss)):
            raise CompetitionError(
                f"epoch {trainer.current_epoch + 1} (optimizer step {trainer.global_step}): {LOSS} is {float(loss)}, "
                f"so the epoch is not saved: {WAYS_ON}, and train anew; or look at the validation images"
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look at the last step's loss and at the weights, which a finite loss may have ruined, before anything is
        written: in mid-epoch, or where all images are trained on, no validation has seen them."""
        self._look(trainer)
        finite = [torch.isfinite(weight).all() for weight in pl_module.parameters()]
        if not bool(torch.stack(finite).all()):
            raise CompetitionError(
                f"epoch {trainer.current_epoch + 1} (optimizer step {trainer.global_step}): the loss is finite, but it "
                f"left weights that are not, so they are not saved: {WAYS_ON}, and train anew"
            )

    def _look(self, trainer: pl.Trainer) -> None:
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
