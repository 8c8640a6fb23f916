"""The loss: cross entropy."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from competition.tasks.classification.settings import TaskConfig


def image_losses(network: nn.Module, outputs: Tensor, batch: dict[str, Any], config: TaskConfig) -> Tensor:
    """Return (B,) losses of logits (B, classes) against `label` (B,)."""
    smoothing = config.loss.label_smoothing
    return cross_entropy(outputs.float(), batch["label"], label_smoothing=smoothing, reduction="none")
