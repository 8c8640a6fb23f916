"""The loss: that of classes, of boxes, of FCOS that of centerness, and of a head of the image its own, added up by the
weights in `loss:`."""

from typing import Any

from torch import Tensor

from competition.tasks.detection.image_head import presence_losses
from competition.tasks.detection.model import BoxNetwork
from competition.tasks.detection.settings import TaskConfig

OF_FCOS = {"box": "bbox_regression", "centerness": "bbox_ctrness"}  # as torchvision calls them


def image_losses(network: BoxNetwork, outputs: Any, batch: dict[str, Any], config: TaskConfig) -> Tensor:
    """Return (B,) losses, each normalised within its own image, so that they do not depend on the batch."""
    boxes = [one.float() for one in batch["boxes"]]  # as the outputs are, whatever the network computes in
    parts = network.image_losses(outputs, boxes, batch["labels"])
    if (said := network.presence(outputs)) is not None:
        parts = {**parts, "auxiliary": presence_losses(said, batch["labels"])}
    first, *others = (
        weight * parts[OF_FCOS.get(name, name) if name not in parts else name]
        for name, weight in weights(config).items()
    )
    return sum(others, start=first)


def weights(config: TaskConfig) -> dict[str, float]:
    """Return the weights of the architecture's losses, and of its head of the image where it has one."""
    of_fcos = ["centerness"] if config.model.architecture == "fcos" else []
    names = ["classification", "box", *of_fcos, *(["auxiliary"] if config.loss.auxiliary else [])]
    return {name: getattr(config.loss, name) for name in names}
