"""FCOS's head with a choice of losses: torchvision's own are fixed."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import distance_box_iou_loss, generalized_box_iou_loss

from competition.focal import binary_focal_losses
from competition.tasks.detection.settings import DetectionLoss

LEAST_SIDE = 1.0  # pixel


class Head(FCOSHead):
    """The head of torchvision, whose focal loss and loss of boxes are those of `loss:`."""

    def __init__(self, channels: int, num_classes: int, settings: DetectionLoss) -> None:
        super().__init__(channels, 1, num_classes)
        self.regression_head.bbox_reg = _in_full_precision(self.regression_head.bbox_reg)
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
        each = binary_focal_losses(logits, is_class, settings.focal_gamma, settings.focal_alpha)
        return each.sum(dim=(1, 2))

    def _box_losses(self, regression: Tensor, points: Tensor, boxes: Tensor) -> Tensor:
        """Return (k,) the losses of the boxes that points (k, 4) say by `regression` (k, 4)."""
        found = self.box_coder.decode(regression, points)
        match self.settings.box_kind:
            case "giou":
                return generalized_box_iou_loss(found, boxes)
            case "diou":
                return distance_box_iou_loss(found, boxes)
            case "ciou":
                return _complete_iou_losses(found, boxes)


def _complete_iou_losses(found: Tensor, boxes: Tensor) -> Tensor:
    """Return (k,) the CIoU losses (Zheng et al. 2020) of boxes (k, 4) against true ones (k, 4).

    Sides under a pixel count as one in their ratio: torchvision's is NaN for a box of no width and no height, as fresh
    networks say them, and its slope has no bound where a box vanishes.
    """
    sides, true = (one[:, 2:] - one[:, :2] for one in (found, boxes))
    angle, true_angle = (torch.atan2(*one.clamp(min=LEAST_SIDE).unbind(1)) for one in (sides, true))
    unlike = 4 / math.pi**2 * (angle - true_angle) ** 2
    with torch.no_grad():
        overlap = torch.minimum(found[:, 2:], boxes[:, 2:]) - torch.maximum(found[:, :2], boxes[:, :2])
        overlap = overlap.clamp(min=0).prod(dim=1)
        iou = overlap / (sides.prod(dim=1) + true.prod(dim=1) - overlap + 1e-7)
        share = unlike / (1 - iou + unlike + 1e-7)
    return distance_box_iou_loss(found, boxes) + share * unlike


def _centrality(distances: Tensor) -> Tensor:
    """Return (points,): 1 in the middle of a box, 0 at its edge; distances (points, 4) to left, top, right, bottom."""
    across, along = distances[:, [0, 2]], distances[:, [1, 3]]
    return torch.sqrt(across.amin(1) / across.amax(1) * along.amin(1) / along.amax(1))


class _FullPrecisionConv(nn.Conv2d):
    """A convolution in float32 in the midst of a network in half precision."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B, channels, H, W)."""
        with torch.autocast(input.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return self._conv_forward(input.float(), self.weight.float(), bias)


def _in_full_precision(layer: nn.Conv2d) -> nn.Conv2d:
    """Return the layer that says coordinates, with the same weights: bfloat16 knows no pixel of a side over 256."""
    size = (layer.in_channels, layer.out_channels, layer.kernel_size)
    full = nn.utils.skip_init(_FullPrecisionConv, *size, padding=layer.padding)  # draws no number more
    full.weight, full.bias = layer.weight, layer.bias
    return full
