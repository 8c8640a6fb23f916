"""The loss: binary cross entropy and Dice, added up by the weights in `loss:`."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from competition.tasks.segmentation.settings import TaskConfig


def image_losses(network: nn.Module, outputs: Tensor, batch: dict[str, Any], config: TaskConfig) -> Tensor:
    """Return (B,) losses of logits (B, classes, H, W) against `mask` of the same shape."""
    logits, mask = outputs.float(), batch["mask"].float()
    weights = config.loss
    bce = binary_cross_entropy_with_logits(logits, mask, reduction="none").mean(dim=(1, 2, 3))
    return weights.bce * bce + weights.dice * dice_losses(logits, mask)


def dice_losses(logits: Tensor, mask: Tensor) -> Tensor:
    """Return (B,): 1 - soft Dice per image and class, averaged over classes (V-Net, Milletari et al. 2016).

    The 1 in numerator and denominator makes an empty mask predicted empty cost nothing.
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * mask).sum(dim=(2, 3))
    total = probabilities.sum(dim=(2, 3)) + mask.sum(dim=(2, 3))
    return (1 - (2 * overlap + 1) / (total + 1)).mean(dim=1)
