"""The exponential moving average of the weights, which is validated, saved and used for prediction."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EMAWeightAveraging


class AverageWeights(EMAWeightAveraging):
    """Lightning's average, which up to `start_step` is the weights themselves.

    Lightning's own would stay at the weights that training began with, and these would be validated and saved.
    """

    def __init__(self, decay: float, start_step: int = 0) -> None:
        super().__init__(decay=decay)
        self.start_step = start_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average, or copy: what has averaged nothing takes the next weights as they are."""
        if trainer.global_step <= self.start_step:
            assert self._average_model is not None
            self._average_model.n_averaged.zero_()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
