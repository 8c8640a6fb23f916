"""Stopping when what is monitored improves no more."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from competition.settings import EarlyStopping as Settings
from competition.settings import Mode


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
