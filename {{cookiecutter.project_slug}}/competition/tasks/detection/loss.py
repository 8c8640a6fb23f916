"""The loss: FCOS's focal, GIoU and centerness losses, added up by the weights in `loss:`."""

from typing import Any

import torch
from torch import Tensor

from competition.tasks.detection.model import Detector, DetectorOutputs
from competition.tasks.detection.settings import TaskConfig


def image_losses(network: Detector, outputs: DetectorOutputs, batch: dict[str, Any], config: TaskConfig) -> Tensor:
    """Return (B,) losses, each normalised within its own image, so that they do not depend on the batch."""
    weights = config.loss
    losses = []
    for index, (boxes, labels) in enumerate(zip(batch["boxes"], batch["labels"], strict=True)):
        parts = network.image_loss(outputs, index, boxes, labels)
        losses.append(
            weights.classification * parts["classification"]
            + weights.box * parts["bbox_regression"]
            + weights.centerness * parts["bbox_ctrness"]
        )
    return torch.stack(losses)
