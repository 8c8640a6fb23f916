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
        """Return (B,) the three losses of each image, divided by its points inside boxes (Tian et al. 2019).

        `matched_idxs` (A,) names the box each point is to find, -1 for none. The images' points are computed in one
        go: image by image a GPU would wait for the many small steps to be started.
        """
        matched = torch.stack(list(matched_idxs))
        image, point = (matched >= 0).nonzero(as_tuple=True)  # the points inside boxes, image after image
        counts = torch.bincount(image, minlength=len(targets)).tolist()
        chosen = matched[image, point].split(counts)
        boxes, labels = (
            torch.cat([target[key][index] for target, index in zip(targets, chosen, strict=True)])
            for key in ("boxes", "labels")
        )
        points = torch.stack(list(anchors))[image, point]
        each = {
            "bbox_regression": self._box_losses(head_outputs["bbox_regression"][image, point], points, boxes),
            "bbox_ctrness": binary_cross_entropy_with_logits(
                head_outputs["bbox_ctrness"][image, point, 0],
                _centrality(self.box_coder.encode(points, boxes)),
                reduction="none",
            ),
        }
        sums = {name: torch.stack([one.sum() for one in values.split(counts)]) for name, values in each.items()}
        sums["classification"] = self._focal_losses(head_outputs["cls_logits"], image, point, labels)
        number = sums["classification"].new_tensor(counts).clamp(min=1)
        return {name: values / number for name, values in sums.items()}

    def _focal_losses(self, logits: Tensor, image: Tensor, point: Tensor, labels: Tensor) -> Tensor:
        """Return (B,) the focal losses of logits (B, A, classes), where some points have a label."""
        is_class = torch.zeros_like(logits)
        is_class[image, point, labels] = 1
        settings = self.settings
        each = sigmoid_focal_loss(logits, is_class, settings.focal_alpha, settings.focal_gamma, reduction="none")
        return each.sum(dim=(1, 2))

    def _box_losses(self, regression: Tensor, points: Tensor, boxes: Tensor) -> Tensor:
        """Return (k,) the losses of the boxes that points (k, 4) say by `regression` (k, 4)."""
        found = self.box_coder.decode(regression, points)
        return BOX_LOSSES[self.settings.box_kind](found, boxes, reduction="none")


def _centrality(distances: Tensor) -> Tensor:
    """Return (points,): 1 in the middle of a box, 0 at its edge; distances (points, 4) to left, top, right, bottom."""
    across, along = distances[:, [0, 2]], distances[:, [1, 3]]
    return torch.sqrt(across.amin(1) / across.amax(1) * along.amin(1) / along.amax(1))
