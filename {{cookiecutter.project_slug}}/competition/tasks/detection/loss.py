"""The loss: FCOS's focal, GIoU and centerness losses, added up by the weights in `loss:`."""

from typing import Any

from torch import Tensor

from competition.tasks.detection.model import Detector, DetectorOutputs
from competition.tasks.detection.settings import TaskConfig


def image_losses(network: Detector, outputs: DetectorOutputs, batch: dict[str, Any], config: TaskConfig) -> Tensor:
    """Return (B,) losses, each normalised within its own image, so that they do not depend on the batch."""
    boxes = [one.float() for one in batch["boxes"]]  # as the outputs are, whatever the network computes in
    settings, parts = config.loss, network.image_losses(outputs, boxes, batch["labels"])
    return (
        settings.classification * parts["classification"]
        + settings.box * parts["bbox_regression"]
        + settings.centerness * parts["bbox_ctrness"]
    )


def weights(config: TaskConfig) -> dict[str, float]:
    """Return the weights of FCOS's three losses."""
    return {name: getattr(config.loss, name) for name in ("classification", "box", "centerness")}
