"""The exponential moving average of the weights, which is validated, saved and used for prediction."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_avg_fn


class AverageWeights(WeightAveraging):
    """Lightning's average, which up to `start_step` is the weights themselves.

    Lightning's own moving average would stay at the weights that training began with, and these would be validated and
    saved.
    """

    def __init__(self, decay: float, start_step: int = 0) -> None:
        super().__init__(avg_fn=self._average)
        self.start_step = start_step
        self._move = get_ema_avg_fn(decay)
        self._has_started = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average, or copy up to the start."""
        self._has_started = trainer.global_step > self.start_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _average(self, average: Tensor, weights: Tensor, number: Tensor | int) -> Tensor:
        return self._move(average, weights, number) if self._has_started else weights
