"""From logits to stored predictions: probabilities at model resolution, of an image or joined from its windows."""

from typing import Any

import numpy as np
from torch import nn

from competition.config.views import View
from competition.tasks.contract import Prediction
from competition.tasks.maps import resize_probabilities
from competition.tasks.presence import PRESENCE, join_presence
from competition.tasks.segmentation.model import outputs_of
from competition.tasks.windows import Blend, Place


def predictions(network: nn.Module, outputs: Any, batch: dict[str, Any]) -> list[Prediction]:
    """Return `probabilities` (classes, h, w) float16 for each image of logits (B, classes, h, w); of a network with a
    second head also `presence`."""
    said = outputs_of(outputs)
    each = {"probabilities": said.logits.float().sigmoid().half().cpu().numpy()}
    if said.labels is not None:
        each[PRESENCE] = said.labels.float().sigmoid().cpu().numpy()
    return [dict(zip(each, image, strict=True)) for image in zip(*each.values(), strict=True)]


def undo_view(prediction: Prediction, view: View, height: int, width: int) -> Prediction:
    """Flip and turn `probabilities` (classes, h, w) back; a scaled view keeps its resolution until it is averaged."""
    return {**prediction, "probabilities": view.undo_map(prediction["probabilities"])}


class BlendedMasks:
    """`probabilities` (classes, h, w) of windows, blended into (classes, height, width) float16 at full resolution; an
    image has a class as likely as the window that most likely has it."""

    def __init__(self, height: int, width: int) -> None:
        self._blend = Blend(height, width)
        self._presence = Prediction()

    def add(self, prediction: Prediction, place: Place) -> None:
        """Take the prediction of a window."""
        maps = [resize_probabilities(one, place.height, place.width) for one in prediction["probabilities"]]
        self._blend.add(np.stack(maps), place)
        self._presence = join_presence([self._presence, prediction])

    def joined(self) -> Prediction:
        """Return that of the image."""
        return {"probabilities": self._blend.mean().astype(np.float16), **self._presence}


def joining(height: int, width: int) -> BlendedMasks:
    """Begin an image."""
    return BlendedMasks(height, width)
