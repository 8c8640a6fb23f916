"""A one-stage detector that learns by task-aligned assignment (TOOD, Feng et al. 2021), on any timm encoder.

Which points learn to say a box is not told by the box alone, as for FCOS, but by which say it best at the time: by
class and by place. How well they say the place is what their score learns, so that of two boxes the tighter one stays;
there is no centerness. The head is a plain one, without the paper's layer attention; moved_sides.py moves what it says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.ops import batched_nms, clip_boxes_to_image

from competition.networks.encoder import note_encoder
from competition.networks.pretrained import note_weights
from competition.tasks.detection.architectures.moved_sides import MovedSides
from competition.tasks.detection.model import (
    PYRAMID_STRIDES,
    BoxNetwork,
    BoxOutputs,
    EncoderWithPyramid,
    anchors_of,
    box_losses,
    build_backbone,
    group_norm,
    in_full_precision,
)
from competition.tasks.detection.settings import MOST_DETECTIONS, DetectionLoss, TaskConfig
from competition.tasks.focal import soft_focal_losses

RARE = 0.01  # probability of a class at a point before anything is learnt
FIRST_REACH = 2.0  # strides from a point to each side of its box, likewise
LONGEST = 6.0  # logarithm of the furthest, in FIRST_REACH: no overflow
MOST_POINTS = 13  # that learn a box
FIRST_SHARE = 0.5  # of the loss of boxes before their sides are moved, beside that of the moved ones
CLASS_POWER, PLACE_POWER = 1.0, 6.0  # of the score and of the IoU in how well a point says a box
LEAST_SCORE, MOST_OVERLAP, MOST_CANDIDATES = 0.01, 0.8, 2000  # loose: the cuts that count are `decode:`'s


@dataclass
class PointOutputs(BoxOutputs):
    """What the head says of every point, for images (B, channels, H, W)."""

    logits: Tensor  # (B, A, classes)
    first_boxes: Tensor  # (B, A, 4) xyxy in pixels of what the network sees
    boxes: Tensor  # the same with their sides moved
    points: Tensor  # (A, 2) x and y
    image_size: tuple[int, int]


@dataclass
class Assigned:
    """The points that learn to say a box (k,), and how well they are to say it: image, point, box and quality."""

    image: Tensor
    point: Tensor
    box: Tensor
    quality: Tensor


class Head(nn.Module):
    """Two towers of convolutions, the same for all levels: one says classes, the other how far the box reaches."""

    def __init__(self, channels: int, num_classes: int, convolutions: int) -> None:
        super().__init__()
        self.class_tower, self.place_tower = _tower(channels, convolutions), _tower(channels, convolutions)
        self.classes = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.reaches = in_full_precision(nn.Conv2d(channels, 4, 3, padding=1))
        self.scales = nn.Parameter(torch.ones(len(PYRAMID_STRIDES)))
        for layer, bias in ((self.classes, -math.log((1 - RARE) / RARE)), (self.reaches, 0.0)):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, bias)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return (B, A, classes) logits, (B, A, 4) reaches to left, top, right and bottom in strides, and what each
        level's points (B, channels, h, w) know of places."""
        logits, reaches, known = [], [], []
        for level, scale in zip(levels, self.scales, strict=True):
            logits.append(_by_point(self.classes(self.class_tower(level))))
            place = self.place_tower(level)
            said = _by_point(self.reaches(place))
            reaches.append(FIRST_REACH * (said * scale).clamp(max=LONGEST).exp())
            known.append(place)
        return torch.cat(logits, dim=1).float(), torch.cat(reaches, dim=1).float(), known


def _tower(channels: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), group_norm(channels)]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _by_point(level: Tensor) -> Tensor:
    """Turn (B, values, H, W) into (B, H * W, values)."""
    return level.flatten(2).transpose(1, 2)


class AlignedDetector(BoxNetwork):
    """Encoder, pyramid and head, with the loss of what they say."""

    def __init__(
        self, backbone: EncoderWithPyramid, num_classes: int, settings: DetectionLoss, head_convolutions: int
    ) -> None:
        super().__init__()
        self.backbone, self.settings = backbone, settings
        self.head = Head(backbone.out_channels, num_classes, head_convolutions)
        self.moved_sides = MovedSides(backbone.out_channels)

    def forward(self, images: Tensor) -> PointOutputs:
        """Run the network on images that are normalised and of one size already."""
        levels = self.backbone(images)
        logits, reaches, known = self.head(levels)
        anchors = anchors_of(levels)
        points, strides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
        boxes = torch.cat([points - reaches[..., :2] * strides, points + reaches[..., 2:] * strides], dim=2)
        moved = self.moved_sides(levels[0], PYRAMID_STRIDES[0], known, boxes)
        return PointOutputs(logits, boxes, moved, points, (images.shape[-2], images.shape[-1]))

    def image_losses(
        self, outputs: PointOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Return (B,) losses of images, each divided by the qualities that the image's points are to reach, or 1."""
        true, classes, is_real = _filled(boxes, labels)
        found = assign(outputs, true, classes, is_real)
        counts = torch.bincount(found.image, minlength=len(boxes)).tolist()
        quality = torch.zeros_like(outputs.logits)
        quality[found.image, found.point, classes[found.image, found.box]] = found.quality
        wanted, kind = true[found.image, found.box], self.settings.box_kind
        first, moved = (
            box_losses(said[found.image, found.point], wanted, kind) for said in (outputs.first_boxes, outputs.boxes)
        )
        of_boxes = (moved + FIRST_SHARE * first) * found.quality
        number = torch.stack([one.sum() for one in found.quality.split(counts)]).clamp(min=1)
        of_classes = soft_focal_losses(outputs.logits, quality, self.settings.focal_gamma).sum(dim=(1, 2))
        return {
            "classification": of_classes / number,
            "box": torch.stack([one.sum() for one in of_boxes.split(counts)]) / number,
        }

    def detections(self, outputs: PointOutputs) -> list[dict[str, Tensor]]:
        """Return `boxes`, `scores` and `labels` of each image in pixels of what the network saw, best first."""
        found = []
        for logits, boxes in zip(outputs.logits, outputs.boxes, strict=True):
            scores, places = logits.sigmoid().flatten().topk(min(logits.numel(), MOST_CANDIDATES))
            scores, places = scores[scores > LEAST_SCORE], places[scores > LEAST_SCORE]
            points, classes = places // logits.shape[1], places % logits.shape[1]
            clipped = clip_boxes_to_image(boxes[points], outputs.image_size)
            keep = batched_nms(clipped, scores, classes, MOST_OVERLAP)[:MOST_DETECTIONS]
            found.append({"boxes": clipped[keep], "scores": scores[keep], "labels": classes[keep]})
        return found


def _filled(boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return true boxes (B, T, 4), their classes (B, T), and which there are: all images filled up to one number."""
    most = max(1, *(len(one) for one in boxes))
    counts = torch.tensor([len(one) for one in boxes], device=boxes[0].device)
    return (
        torch.stack([pad(one, (0, 0, 0, most - len(one))) for one in boxes]),
        torch.stack([pad(one, (0, most - len(one))) for one in labels]),
        torch.arange(most, device=counts.device) < counts[:, None],
    )


@torch.no_grad()
def assign(outputs: PointOutputs, true: Tensor, classes: Tensor, is_real: Tensor) -> Assigned:
    """Find the points that learn each true box (B, T, 4) of `classes` (B, T): of those inside it the MOST_POINTS that
    are aligned best, by score^CLASS_POWER * IoU^PLACE_POWER.

    A point of several boxes learns the one that it says with the higher IoU. The best aligned point of a box is to
    reach the highest IoU that its points have, the others less, as they are aligned less.
    """
    overlap = _overlaps(true, outputs.boxes)  # (B, T, A)
    index = classes[:, None].expand(-1, outputs.logits.shape[1], -1)
    scores = outputs.logits.sigmoid().gather(2, index).transpose(1, 2)
    may_learn = _is_inside(outputs.points, true) & is_real[..., None]
    aligned = scores**CLASS_POWER * overlap**PLACE_POWER * may_learn
    best = aligned.topk(min(MOST_POINTS, aligned.shape[2]), dim=2).indices
    learns = torch.zeros_like(may_learn).scatter_(2, best, True) & (aligned > 0)
    fits_best = torch.where(learns, overlap, -1.0).argmax(dim=1, keepdim=True)
    learns &= torch.zeros_like(learns).scatter_(1, fits_best, True)
    aligned, overlap = aligned * learns, overlap * learns
    share = aligned / aligned.amax(dim=2, keepdim=True).clamp(min=torch.finfo(aligned.dtype).tiny)
    quality = share * overlap.amax(dim=2, keepdim=True)
    image, point, box = learns.transpose(1, 2).nonzero(as_tuple=True)
    return Assigned(image, point, box, quality[image, box, point])


def _is_inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Return (B, T, A), whether points (A, 2) lie in boxes (B, T, 4).

    A box thinner than the finest stride counts as wide as that: it might have no point else.
    """
    middles, sides = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    reach = sides.clamp(min=PYRAMID_STRIDES[0]) / 2
    away = (points - middles[:, :, None]).abs()
    return (away < reach[:, :, None]).all(dim=3)


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Return (B, n, m) intersection over union of xyxy boxes (B, n, 4) and (B, m, 4)."""
    one, two = first[:, :, None], second[:, None]
    overlap = (torch.minimum(one[..., 2:], two[..., 2:]) - torch.maximum(one[..., :2], two[..., :2])).clamp(min=0)
    shared = overlap.prod(dim=3)
    areas = [(each[..., 2:] - each[..., :2]).prod(dim=3) for each in (one, two)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)


def build_network(config: TaskConfig, num_classes: int) -> AlignedDetector:
    """Return the detector on the encoder of the config."""
    backbone, loaded = build_backbone(config, group_norm)
    network = AlignedDetector(backbone, num_classes, config.loss, config.model.head_convolutions)
    note_encoder(network, "backbone.encoder", config.model.encoder)
    note_weights(network, loaded)
    return network
