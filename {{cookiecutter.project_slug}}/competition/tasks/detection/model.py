"""The network: FCOS (Tian et al. 2019) of torchvision on a feature pyramid over any timm encoder.

The other architectures lie in architectures/: Faster R-CNN, and the transformers.
"""

import importlib
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import timm
import torch
from timm.layers import Format
from timm.models import FeatureInfo
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, pad
from torchvision.models.detection import FCOS
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import FeaturePyramidNetwork, distance_box_iou_loss, generalized_box_iou_loss
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from competition.networks.encoder import note_encoder
from competition.networks.pretrained import check_encoder, load_pretrained, note_weights
from competition.networks.volume import channels_of, see_volume
from competition.support.errors import CompetitionError
from competition.tasks.detection.image_head import ImageHead, build_image_head
from competition.tasks.detection.settings import MOST_DETECTIONS, DetectionLoss, TaskConfig
from competition.tasks.focal import binary_focal_losses

LEAST_SIDE = 1.0  # pixel


class Head(FCOSHead):
    """The head of torchvision, whose focal loss and loss of boxes are those of `loss:`."""

    def __init__(self, channels: int, num_classes: int, settings: DetectionLoss, convolutions: int) -> None:
        super().__init__(channels, 1, num_classes, num_convs=convolutions)
        self.regression_head.bbox_reg = in_full_precision(self.regression_head.bbox_reg)
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
        return box_losses(self.box_coder.decode(regression, points), boxes, self.settings.box_kind)


def box_losses(found: Tensor, boxes: Tensor, kind: Literal["giou", "diou", "ciou"]) -> Tensor:
    """Return (k,) the losses of boxes (k, 4) against true ones (k, 4)."""
    match kind:
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


def in_full_precision(layer: nn.Conv2d) -> nn.Conv2d:
    """Return the layer that says coordinates, with the same weights: bfloat16 knows no pixel of a side over 256."""
    size = (layer.in_channels, layer.out_channels, layer.kernel_size)
    # Draws no number more.
    full = nn.utils.skip_init(_FullPrecisionConv, *size, padding=layer.padding, groups=layer.groups)
    full.weight, full.bias = layer.weight, layer.bias
    return full


STRIDES = (8, 16, 32)  # of the encoder's levels that are used
PYRAMID_STRIDES = (*STRIDES, 64, 128)
NORM_GROUPS = 16
Norm = Callable[[int], nn.Module]  # from a number of channels


def levels_of(encoder_name: str) -> tuple[list[int], list[int]]:
    """Return numbers and channels of an encoder's levels at STRIDES; raise CompetitionError where it lacks one."""
    try:
        probe = timm.create_model(encoder_name, features_only=True, pretrained=False)
    except (RuntimeError, AttributeError, ValueError):
        raise CompetitionError(
            f"model.encoder: {encoder_name} has no levels at strides {STRIDES}; take a convolutional encoder, as "
            "resnet34 or convnext_tiny"
        ) from None
    info = cast(FeatureInfo, probe.feature_info)
    # The last level of each stride is the one with most behind it. Numbers are those that timm takes: some networks do
    # not begin to count their levels with 0, as dla and tresnet.
    numbers = info.out_indices
    at_stride = {stride: place for place, stride in enumerate(info.reduction())}
    if not set(STRIDES) <= set(at_stride):
        raise CompetitionError(
            f"model.encoder: {encoder_name} has levels at strides {sorted(at_stride)}, a detector needs {STRIDES}; "
            "take a convolutional encoder, as resnet34 or convnext_tiny"
        )
    places = [at_stride[stride] for stride in STRIDES]
    return [numbers[place] for place in places], [info.channels()[place] for place in places]


def group_norm(channels: int) -> nn.GroupNorm:
    """Return the norm of a one-stage detector's layers behind the encoder: batches are small, levels share layers.

    What has it knows of the whole image; two stages look at places alone, and have none.
    """
    return nn.GroupNorm(NORM_GROUPS, channels)


class EncoderWithPyramid(nn.Module):
    """A timm encoder and a feature pyramid: five levels of `out_channels` at strides 8 to 128."""

    def __init__(self, encoder_name: str, in_channels: int, out_channels: int, norm: Norm | None = None) -> None:
        super().__init__()
        levels, widths = levels_of(encoder_name)
        self.encoder = timm.create_model(
            encoder_name, features_only=True, out_indices=levels, in_chans=in_channels, pretrained=False
        )
        self.out_channels = out_channels
        further = LastLevelP6P7(out_channels, out_channels)
        self.pyramid = FeaturePyramidNetwork(widths, out_channels, further, norm_layer=norm)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the levels, finest first: of a side of s pixels, s / stride points rounded up.

        Images are filled up to whole strides, as some encoders leave out what is over, and levels of whole strides lie
        exactly on each other when the pyramid adds them up.
        """
        height, width = images.shape[-2:]
        right, bottom = -width % STRIDES[-1], -height % STRIDES[-1]
        features = self.encoder(pad(images, (0, right, 0, bottom)) if right or bottom else images)
        if getattr(self.encoder, "output_fmt", None) == Format.NHWC:  # swin, mambaout
            features = [level.permute(0, 3, 1, 2) for level in features]
        whole = {
            str(stride): _at_size(level, ((height + bottom) // stride, (width + right) // stride))
            for stride, level in zip(STRIDES, features, strict=True)
        }
        return list(self.pyramid(OrderedDict(whole)).values())


def _at_size(level: Tensor, size: tuple[int, int]) -> Tensor:
    """Stretch the level of an encoder whose convolutions do not fill up at the border, as Inception's."""
    return level if level.shape[-2:] == size else interpolate(level, size, mode="bilinear")


def anchors_of(levels: Sequence[Tensor]) -> Tensor:
    """Return (A, 4) xyxy: a square around every point of the levels, each as large as its level's stride.

    In float32 whatever the levels are in: in half precision neighbours far from the first corner are one.
    torchvision's generator takes the levels' precision, and for a stride the image's side by the level's, rounded down.
    """
    squares = []
    for stride, level in zip(PYRAMID_STRIDES, levels, strict=True):
        rows, columns = (
            torch.arange(side, dtype=torch.float32, device=level.device) * stride for side in level.shape[-2:]
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        middles = torch.stack([x, y], dim=-1).reshape(-1, 2)
        squares.append(torch.cat([middles - stride / 2, middles + stride / 2], dim=1))
    return torch.cat(squares)


@dataclass(kw_only=True)
class BoxOutputs:
    """What the outputs of every architecture have."""

    presence: Tensor | None = None  # (B, classes) logits of the head of `loss.auxiliary`, once they are asked for


@dataclass
class DetectorOutputs(BoxOutputs):
    """What the head says of every anchor point, for images (B, channels, H, W)."""

    head: dict[str, Tensor]  # cls_logits (B, A, classes), bbox_regression (B, A, 4), bbox_ctrness (B, A, 1)
    anchors: list[Tensor]  # for each image (A, 4)
    points_per_level: list[int]
    image_size: tuple[int, int]


class BoxNetwork(nn.Module):
    """What the loss and the predictions need of a network, whatever its architecture."""

    def __init__(self) -> None:
        super().__init__()
        self.image_head: ImageHead | None = None

    def image_losses(self, outputs: Any, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return (B,) losses by name, see loss.py, each divided within its own image."""
        raise NotImplementedError

    def detections(self, outputs: Any) -> list[dict[str, Tensor]]:
        """Return `boxes`, `scores` and `labels` of each image in pixels of what the network saw, best first."""
        raise NotImplementedError

    def presence(self, outputs: Any) -> Tensor | None:
        """Return (B, classes) logits of which classes an image has, none without such a head.

        Asked for after losses or detections, as some networks look at their images only for these.
        """
        if self.image_head is not None and outputs.presence is None:
            outputs.presence = self.image_head.take()
        return outputs.presence


class Detector(BoxNetwork):
    """FCOS that returns the head's outputs, from which both the loss and the boxes are made.

    torchvision's own forward gives losses in training mode and boxes in evaluation mode, never both.
    """

    def __init__(self, fcos: FCOS) -> None:
        super().__init__()
        self.fcos = fcos

    def forward(self, images: Tensor) -> DetectorOutputs:
        """Run the network on images that are normalised and of one size already."""
        features = self.fcos.backbone(images)
        size = (images.shape[-2], images.shape[-1])
        anchors = [anchors_of(features)] * len(images)
        points = [level.shape[-2] * level.shape[-1] for level in features]
        head = {name: values.float() for name, values in self.fcos.head(features).items()}
        return DetectorOutputs(head, anchors, points, size)

    def image_losses(
        self, outputs: DetectorOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Return (B,) the three losses of images, each divided by the image's number of points inside boxes."""
        targets = [{"boxes": one, "labels": of_one} for one, of_one in zip(boxes, labels, strict=True)]
        return self.fcos.compute_loss(targets, outputs.head, outputs.anchors, outputs.points_per_level)

    def detections(self, outputs: DetectorOutputs) -> list[dict[str, Tensor]]:
        """Return `boxes`, `scores` and `labels` of each image in pixels of what the network saw."""
        levels = {name: list(v.split(outputs.points_per_level, dim=1)) for name, v in outputs.head.items()}
        anchors = [list(a.split(outputs.points_per_level)) for a in outputs.anchors]
        return self.fcos.postprocess_detections(levels, anchors, [outputs.image_size] * len(anchors))


def build_network(config: TaskConfig, num_classes: int) -> BoxNetwork:
    """Return a network of the architecture, with a weight for `loss.auxiliary` also with a head of the image."""
    network = _build_architecture(config, num_classes)
    if config.loss.auxiliary:
        network.image_head = build_image_head(network, config, num_classes)
    return network


def _build_architecture(config: TaskConfig, num_classes: int) -> BoxNetwork:
    """Return the network; nothing of torchvision's own resizing and normalising is used."""
    match config.model.architecture:
        case "fcos":
            return build_fcos(config, num_classes)
        case "faster_rcnn" | "tood" as name:
            pass
        case _:
            name = "detr"
    module = importlib.import_module(f"competition.tasks.detection.architectures.{name}")
    return module.build_network(config, num_classes)


def build_backbone(config: TaskConfig, norm: Norm | None = None) -> tuple[EncoderWithPyramid, str | None]:
    """Return the encoder of the config with its pyramid, whose layers may have a norm, and what is to be said of its
    weights."""
    model = config.model
    check_encoder(model.encoder)
    channels = channels_of(model, config.data)
    backbone = EncoderWithPyramid(model.encoder, channels, model.pyramid_channels, norm)
    see_volume(backbone.encoder, model, config.data)
    return backbone, load_pretrained(backbone.encoder, model, channels, "pyramid and head")


def build_fcos(config: TaskConfig, num_classes: int) -> Detector:
    """Return FCOS on the encoder of the config."""
    model = config.model
    backbone, loaded = build_backbone(config, group_norm)
    fcos = FCOS(
        backbone,
        num_classes,
        head=Head(model.pyramid_channels, num_classes, config.loss, model.head_convolutions),
        # Loose here: the cuts that count are `decode:`'s, which tuning may change without another forward pass.
        score_thresh=0.01,
        nms_thresh=0.8,
        detections_per_img=MOST_DETECTIONS,
    )
    network = Detector(fcos)
    note_encoder(network, "fcos.backbone.encoder", model.encoder)
    note_weights(network, loaded)
    return network
