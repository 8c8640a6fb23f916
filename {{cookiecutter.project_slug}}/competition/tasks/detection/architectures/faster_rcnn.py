"""Faster R-CNN (Ren et al. 2015) of torchvision: on any timm encoder, or as published with its COCO weights."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, pad, smooth_l1_loss
from torchvision.models import detection
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign

from competition.networks.encoder import note_encoder
from competition.networks.pretrained import (
    GO_ON,
    State,
    explaining_weights,
    note_weights,
    read_state,
    weights_file,
)
from competition.support.errors import CompetitionError
from competition.tasks.detection.architectures.kept_weights import keep
from competition.tasks.detection.model import PYRAMID_STRIDES, BoxNetwork, BoxOutputs, build_backbone
from competition.tasks.detection.settings import MOST_DETECTIONS, DetectionModel, TaskConfig

# By `model.size`: how torchvision makes it, its weights, and the strides of its levels.
PUBLISHED = {
    "s": (
        detection.fasterrcnn_mobilenet_v3_large_fpn,
        detection.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1,
        (32, 32, 64),
    ),
    "m": (
        detection.fasterrcnn_resnet50_fpn_v2,
        detection.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
        (4, 8, 16, 32, 64),
    ),
}
WHOLE_STRIDE = 32  # images are filled up to whole ones
POOLED = 7  # places on a side of what the second stage sees of a box
SMOOTH = 1 / 9  # of the region proposals' loss of boxes


@dataclass
class RegionOutputs(BoxOutputs):
    """What the first stage says of images (B, channels, H, W): the second looks at places that this one names."""

    features: "OrderedDict[str, Tensor]"
    anchors: list[Tensor]  # for each image (A, 4)
    objectness: Tensor  # (B, A) logits
    deltas: Tensor  # (B, A, 4)
    proposals: list[Tensor]  # for each image (k, 4)
    image_size: tuple[int, int]


class _Sampler:
    """Which places an image learns from: by chance while training, else evenly spread, the same whatever the batch."""

    def __init__(self, size: int, positive_share: float) -> None:
        self.size, self.positive_share, self.by_chance = size, positive_share, True

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return masks of the places with a box, and of those without (label 0; -1 is neither), image by image."""
        with_box, without = [], []
        for one in labels:
            some, none = (one >= 1).nonzero()[:, 0], (one == 0).nonzero()[:, 0]
            number = min(len(some), int(self.size * self.positive_share))
            with_box.append(self._mask(one, some, number))
            without.append(self._mask(one, none, min(len(none), self.size - number)))
        return with_box, without

    def _mask(self, labels: Tensor, places: Tensor, number: int) -> Tensor:
        if self.by_chance:
            chosen = torch.randperm(len(places), device=places.device)[:number]
        else:
            chosen = torch.arange(number, device=places.device) * len(places) // max(number, 1)
        mask = torch.zeros_like(labels, dtype=torch.bool)
        mask[places[chosen]] = True
        return mask


class TwoStages(BoxNetwork):
    """Faster R-CNN that returns what its first stage says, from which both the loss and the boxes are made.

    Both stages compute in full precision: a box is said as a share of another's side.
    """

    def __init__(self, rcnn: FasterRCNN, strides: Sequence[int]) -> None:
        super().__init__()
        self.rcnn, self.strides = rcnn, strides
        self.proposer.fg_bg_sampler = cast(Any, _Sampler(256, 0.5))
        self.heads.fg_bg_sampler = cast(Any, _Sampler(512, 0.25))

    @property
    def proposer(self) -> RegionProposalNetwork:
        """Return the first stage."""
        return cast(RegionProposalNetwork, self.rcnn.rpn)

    @property
    def heads(self) -> RoIHeads:
        """Return the second stage."""
        return cast(RoIHeads, self.rcnn.roi_heads)

    def forward(self, images: Tensor) -> RegionOutputs:
        """Run the first stage on images that are normalised and of one size already."""
        size = (images.shape[-2], images.shape[-1])
        right, bottom = -size[1] % WHOLE_STRIDE, -size[0] % WHOLE_STRIDE
        given = self.rcnn.backbone(pad(images, (0, right, 0, bottom)) if right or bottom else images)
        levels = list(given.values()) if isinstance(given, dict) else given
        with torch.autocast(images.device.type, enabled=False):
            features = OrderedDict((str(number), _full(level)) for number, level in enumerate(levels))
            return self._propose(features, size, len(images))

    def _propose(self, features: "OrderedDict[str, Tensor]", size: tuple[int, int], number: int) -> RegionOutputs:
        levels, proposer = list(features.values()), self.proposer
        said, deltas = proposer.head(levels)
        counts = [one.shape[1] * one.shape[2] * one.shape[3] for one in said]
        objectness, deltas = concat_box_prediction_layers(said, deltas)
        anchors = [self._anchors(levels)] * number
        boxes = proposer.box_coder.decode(deltas.detach(), anchors).view(number, -1, 4)
        # As for FCOS, more is kept than is handed in; which of the two numbers is meant hangs on torchvision's mode.
        proposals, _ = proposer.filter_proposals(boxes, objectness, [size] * number, counts)
        return RegionOutputs(
            features, anchors, objectness.view(number, -1), deltas.view(number, -1, 4), proposals, size
        )

    def _anchors(self, levels: Sequence[Tensor]) -> Tensor:
        """Return (A, 4) in float32. torchvision takes the levels' precision, and strides from a division of sizes."""
        makes, like = self.proposer.anchor_generator, levels[0]
        makes.set_cell_anchors(torch.float32, like.device)
        strides = [[torch.tensor(stride, device=like.device)] * 2 for stride in self.strides]
        sizes = [list(level.shape[-2:]) for level in levels]
        return torch.cat(makes.grid_anchors(sizes, strides)).to(like.dtype)

    def image_losses(
        self, outputs: RegionOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Return (B,) losses of images, `classification` and `box`, of both stages."""
        for sampler in (self.proposer.fg_bg_sampler, self.heads.fg_bg_sampler):
            cast(_Sampler, sampler).by_chance = self.training
        kind = outputs.deltas.dtype
        targets = [{"boxes": one.to(kind), "labels": of + 1} for one, of in zip(boxes, labels, strict=True)]
        with torch.autocast(outputs.deltas.device.type, enabled=False):
            first, second = self._first_losses(outputs, targets), self._second_losses(outputs, targets)
        return {name: first[name] + second[name] for name in first}

    def _first_losses(self, outputs: RegionOutputs, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        proposer = self.proposer
        labels, matched = proposer.assign_targets_to_anchors(outputs.anchors, targets)
        wanted = proposer.box_coder.encode(matched, outputs.anchors)
        classes, boxes = [], []
        for number, (some, none) in enumerate(zip(*proposer.fg_bg_sampler(labels), strict=True)):
            chosen = some | none
            apart = smooth_l1_loss(outputs.deltas[number][some], wanted[number][some], beta=SMOOTH, reduction="sum")
            boxes.append(apart / chosen.sum().clamp(min=1))
            wrong = binary_cross_entropy_with_logits(
                outputs.objectness[number][chosen], labels[number][chosen], reduction="sum"
            )
            classes.append(wrong / chosen.sum().clamp(min=1))
        return {"classification": torch.stack(classes), "box": torch.stack(boxes)}

    def _second_losses(self, outputs: RegionOutputs, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        proposals, _, labels, wanted = self.heads.select_training_samples(list(outputs.proposals), targets)
        logits, deltas = self._look(outputs, proposals)
        counts = [len(one) for one in labels]
        classes, boxes = [], []
        each = zip(logits.split(counts), deltas.split(counts), labels, wanted, strict=True)
        for of_class, of_box, label, to in each:
            classes.append(cross_entropy(of_class, label, reduction="sum") / max(len(label), 1))
            some = (label > 0).nonzero()[:, 0]
            found = of_box.reshape(len(label), -1, 4)[some, label[some]]
            boxes.append(smooth_l1_loss(found, to[some], beta=SMOOTH, reduction="sum") / max(len(label), 1))
        return {"classification": torch.stack(classes), "box": torch.stack(boxes)}

    def _look(self, outputs: RegionOutputs, places: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the second stage's logits of classes and what it would move at places, image after image."""
        pooled = self.heads.box_roi_pool(outputs.features, places, [outputs.image_size] * len(places))
        return self.heads.box_predictor(self.heads.box_head(pooled))

    def detections(self, outputs: RegionOutputs) -> list[dict[str, Tensor]]:
        """Return `boxes`, `scores` and `labels` of each image in pixels of what the network saw."""
        sizes = [outputs.image_size] * len(outputs.proposals)
        with torch.autocast(outputs.deltas.device.type, enabled=False):
            logits, deltas = self._look(outputs, outputs.proposals)
            each = zip(*self.heads.postprocess_detections(logits, deltas, outputs.proposals, sizes), strict=True)
        return [{"boxes": boxes, "scores": scores, "labels": labels - 1} for boxes, scores, labels in each]


def _full(level: Tensor) -> Tensor:
    return level.float() if level.dtype in (torch.float16, torch.bfloat16) else level


# Loose here: the cuts that count are `decode:`'s, which tuning may change without another forward pass.
LOOSE: dict[str, Any] = {"box_score_thresh": 0.01, "box_nms_thresh": 0.8, "box_detections_per_img": MOST_DETECTIONS}


def build_network(config: TaskConfig, num_classes: int) -> TwoStages:
    """Return the Faster R-CNN that `model:` asks for. Raises CompetitionError where it cannot be had."""
    model = config.model
    network, line = (_on_encoder if model.size is None else _published)(config, num_classes)
    place = "rcnn.backbone.encoder" if model.size is None else "rcnn.backbone.body"
    note_encoder(network, place, model.encoder if model.size is None else model.network_name)
    note_weights(network, line)
    return network


def _on_encoder(config: TaskConfig, num_classes: int) -> tuple[TwoStages, str | None]:
    backbone, line = build_backbone(config)
    channels = backbone.out_channels
    anchors = AnchorGenerator(tuple((4 * stride,) for stride in PYRAMID_STRIDES), ((0.5, 1.0, 2.0),) * 5)
    levels = [str(number) for number in range(4)]
    pool = MultiScaleRoIAlign(featmap_names=levels, output_size=POOLED, sampling_ratio=2)
    width = 4 * channels
    rcnn = FasterRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        box_roi_pool=pool,
        box_head=TwoMLPHead(channels * POOLED**2, width),
        box_predictor=FastRCNNPredictor(width, num_classes + 1),
        **LOOSE,
    )
    return TwoStages(rcnn, PYRAMID_STRIDES), line


def _published(config: TaskConfig, num_classes: int) -> tuple[TwoStages, str | None]:
    model, channels = config.model, config.data.channels
    if model.size not in PUBLISHED:
        raise CompetitionError(
            f"model.size: found {model.size}; torchvision has faster_rcnn as {' and '.join(PUBLISHED)}"
        )
    make, weights, strides = PUBLISHED[model.size]
    rcnn = make(weights=None, weights_backbone=None, num_classes=num_classes + 1, **LOOSE)
    _look_at(rcnn.backbone, channels)
    network = TwoStages(rcnn, strides)
    if not model.pretrained:
        return network, None
    with explaining_weights(model):
        fetch = partial(weights.get_state_dict, progress=False, check_hash=True)
        state = cast(State, fetch()) if model.pretrained is True else read_state(_file(model))
    return network, keep(rcnn, state, model, channels)


def _file(model: DetectionModel) -> Path:
    """Return the file of weights, which may be the only one of a folder."""
    folder = Path(str(model.pretrained)).expanduser()
    if not folder.is_dir():
        return weights_file(model)
    found = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".pth", ".pt")]
    if len(found) != 1:
        raise CompetitionError(
            f"model.pretrained: {folder}: found {len(found)} files of weights, expected one; {GO_ON}"
        )
    return found[0]


def _look_at(backbone: nn.Module, channels: int) -> None:
    """Let the first convolution look at another number of channels."""
    name, first = next((name, one) for name, one in backbone.named_modules() if isinstance(one, nn.Conv2d))
    if channels == first.in_channels:
        return
    size = cast(Any, (first.kernel_size, first.stride, first.padding))
    other = nn.Conv2d(channels, first.out_channels, *size, bias=first.bias is not None)
    parent, _, last = name.rpartition(".")
    setattr(backbone.get_submodule(parent), last, other)
