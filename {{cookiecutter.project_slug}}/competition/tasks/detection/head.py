"""FCOS's head with a choice of losses: torchvision's own are fixed."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from competition.tasks.detection.settings import DetectionLoss

BOX_LOSSES = {"giou": generalized_box_iou_loss, "diou": distance_box_iou_loss, "ciou": complete_box_iou_loss}


class Head(FCOSHead):
    """The head of torchvision, whose focal loss and loss of boxes are those of `loss:`."""

    def __init__(self, channels: int, num_classes: int, settings: DetectionLoss) -> None:
        super().__init__(channels, 1, num_classes)
        self.settings = settings

    def compute_loss(
        self,
        targets: Sequence[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: Sequence[Tensor],
        matched_idxs: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Return the means over images of the three losses, each divided by the image's points inside boxes.

        `matched_idxs` (A,) names the box each point is to find, -1 for none.
        """
        each = [
            self._image_loss(target, {name: values[i] for name, values in head_outputs.items()}, points, matched)
            for i, (target, points, matched) in enumerate(zip(targets, anchors, matched_idxs, strict=True))
        ]
        return {name: torch.stack([one[name] for one in each]).mean() for name in each[0]}

    def _image_loss(
        self, target: dict[str, Tensor], head: dict[str, Tensor], anchors: Tensor, matched: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of one image, by Tian et al. 2019."""
        inside = matched >= 0
        number = max(1, int(inside.sum()))
        boxes, anchors = target["boxes"][matched[inside]], anchors[inside]
        is_class = torch.zeros_like(head["cls_logits"])
        is_class[inside, target["labels"][matched[inside]]] = 1
        settings = self.settings
        focal = sigmoid_focal_loss(
            head["cls_logits"], is_class, settings.focal_alpha, settings.focal_gamma, reduction="sum"
        )
        found = self.box_coder.decode(head["bbox_regression"][inside], anchors)
        box = BOX_LOSSES[settings.box_kind](found, boxes, reduction="sum")
        logits, centrality = head["bbox_ctrness"][inside, 0], _centrality(self.box_coder.encode(anchors, boxes))
        centerness = binary_cross_entropy_with_logits(logits, centrality, reduction="sum")
        parts = {"classification": focal, "bbox_regression": box, "bbox_ctrness": centerness}
        return {name: part / number for name, part in parts.items()}


def _centrality(distances: Tensor) -> Tensor:
    """Return (points,): 1 in the middle of a box, 0 at its edge; distances (points, 4) to left, top, right, bottom."""
    across, along = distances[:, [0, 2]], distances[:, [1, 3]]
    return torch.sqrt(across.amin(1) / across.amax(1) * along.amin(1) / along.amax(1))
