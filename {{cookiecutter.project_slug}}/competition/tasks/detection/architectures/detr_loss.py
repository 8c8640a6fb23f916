"""What a DETR learns from: every query is matched with a true box or with none, one to one, and each image's losses are
divided by its own boxes, so that they depend neither on the batch nor on processes (transformers' are not: they divide
by the boxes of all images on all processes, and fail on an image without any).

The losses and their weights are those of the networks' authors, by the keys of the config in transformers: varifocal
(RT-DETR, D-FINE) or IoU-aware (LW-DETR, RF-DETR) classes, L1 and GIoU, and D-FINE's of corners' distributions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    kl_div,
    log_softmax,
    logsigmoid,
    pad,
)
from torchvision.ops import box_convert, generalized_box_iou_loss

TEMPERATURE = 5.0  # of D-FINE's self-distillation


@dataclass
class Truth:
    """The true boxes of B images, filled up to the same number T."""

    boxes: Tensor  # (B, T, 4) middle and size as shares of the image
    labels: Tensor  # (B, T)
    counts: list[int]  # how many each image has

    @classmethod
    def of(cls, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> "Truth":
        """Fill up the boxes (k, 4) and labels (k,) of images."""
        most = max((len(one) for one in boxes), default=0)
        filled = [pad(one, (0, 0, 0, most - len(one))) for one in boxes]
        numbers = [pad(one, (0, most - len(one))) for one in labels]
        return cls(torch.stack(filled), torch.stack(numbers), [len(one) for one in boxes])


@dataclass
class Layer:
    """What one layer of the decoder says: B images, Q queries."""

    logits: Tensor  # (B, Q, classes)
    boxes: Tensor  # (B, Q, 4) middle and size as shares of the image
    corners: Tensor | None = None  # (B, Q, 4 x bins) logits of where D-FINE's four sides are
    reference: Tensor | None = None  # (B, Q, 4) boxes that these start from
    teacher: "Layer | None" = None  # the last layer, towards whose corners this one learns
    known: "Pairs | None" = None  # where the truth was put in with noise: no matching
    groups: int = 1  # queries that are matched apart: each finds all boxes


@dataclass
class Pairs:
    """Queries and the true boxes that they are to say: three tensors (k,)."""

    image: Tensor
    query: Tensor
    target: Tensor


class DetrLoss:
    """The losses of one network, by the config of transformers that it was built of."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.is_varifocal = hasattr(config, "weight_loss_vfl")
        if self.is_varifocal:
            self.costs = (config.matcher_class_cost, config.matcher_bbox_cost, config.matcher_giou_cost)
            self.weights = (config.weight_loss_vfl, config.weight_loss_bbox, config.weight_loss_giou)
        else:
            self.costs = (config.class_cost, config.bbox_cost, config.giou_cost)
            named = ("class_loss_coefficient", "mask_loss_coefficient")  # the latter's name once
            # Of transformers 5.0, whose own loss has a 1 there, the config has neither.
            of_class = next((getattr(config, name) for name in named if hasattr(config, name)), 1)
            self.weights = (of_class, config.bbox_loss_coefficient, config.giou_loss_coefficient)

    def __call__(self, layers: Sequence[Layer], truth: Truth) -> dict[str, Tensor]:
        """Return (B,) losses of `classification` and `box`, added up over the layers."""
        counts = truth.boxes.new_tensor(truth.counts).clamp(min=1)
        waiting = [layer for layer in layers if layer.known is None]
        matched = iter(self._match(waiting, truth))
        classes, boxes = [], []
        for layer in layers:
            pairs = next(matched) if layer.known is None else layer.known
            in_class, in_box = self._losses(layer, pairs, truth, counts * layer.groups)
            classes.append(in_class)
            boxes.append(in_box)
        return {"classification": torch.stack(classes).sum(dim=0), "box": torch.stack(boxes).sum(dim=0)}

    @torch.no_grad()
    def _match(self, layers: Sequence[Layer], truth: Truth) -> list[Pairs]:
        """Match the queries of each layer one to one, at the least cost; one wait for the GPU for all layers."""
        if not max(truth.counts):
            none = truth.labels.new_zeros(0)
            return [Pairs(none, none, none)] * len(layers)
        costs = [self._cost(layer, truth).cpu().numpy() for layer in layers]
        matched = []
        for layer, cost in zip(layers, costs, strict=True):
            size = cost.shape[1] // layer.groups
            rows: list[tuple[int, int, int]] = []
            for image, count in enumerate(truth.counts):
                for start in range(0, cost.shape[1], size):
                    found = linear_sum_assignment(cost[image, start : start + size, :count])
                    rows += [(image, start + query, target) for query, target in zip(*found, strict=True)]
            numbers = torch.tensor(rows, dtype=torch.long, device=truth.labels.device).reshape(-1, 3)
            matched.append(Pairs(*numbers.unbind(dim=1)))
        return matched

    def _cost(self, layer: Layer, truth: Truth) -> Tensor:
        """Return (B, Q, T) what it costs that a query says a box: wrong class, wrong place, wrong size."""
        of_class, of_place, of_overlap = self.costs
        share = layer.logits.sigmoid().gather(2, truth.labels[:, None].expand(-1, layer.logits.shape[1], -1))
        is_class = 0.25 * (1 - share) ** 2 * -(share + 1e-8).log()
        is_none = 0.75 * share**2 * -(1 - share + 1e-8).log()
        found, true = layer.boxes[:, :, None], truth.boxes[:, None]
        apart = (found - true).abs().sum(dim=-1)
        each = torch.broadcast_tensors(found, true)
        overlap = 1 - generalized_box_iou_loss(_corners(each[0]), _corners(each[1]))
        cost = of_class * (is_class - is_none) + of_place * apart - of_overlap * overlap
        return cost.nan_to_num(nan=1e9, posinf=1e9, neginf=1e9)  # matched only where nothing else is left

    def _losses(self, layer: Layer, pairs: Pairs, truth: Truth, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B,) the losses of one layer: of its classes, of its boxes."""
        of_class, of_place, of_overlap = self.weights
        found, true = layer.boxes[pairs.image, pairs.query], truth.boxes[pairs.image, pairs.target]
        overlap = _iou(_corners(found.detach()), _corners(true))
        labels = truth.labels[pairs.image, pairs.target]
        classes = self._varifocal if self.is_varifocal else self._iou_aware
        apart = (found - true).abs().sum(dim=1)
        wrong = generalized_box_iou_loss(_corners(found), _corners(true))
        boxes = _by_image(of_place * apart + of_overlap * wrong, layer, pairs) / counts
        if layer.corners is not None:
            boxes = boxes + self._of_corners(layer, pairs, true, overlap, counts)
        return of_class * classes(layer.logits, pairs, labels, overlap) / counts, boxes

    def _varifocal(self, logits: Tensor, pairs: Pairs, labels: Tensor, overlap: Tensor) -> Tensor:
        is_class, score = torch.zeros_like(logits), torch.zeros_like(logits)
        is_class[pairs.image, pairs.query, labels] = 1
        score[pairs.image, pairs.query, labels] = overlap.to(logits.dtype)
        share = logits.detach().sigmoid()
        weight = self.config.focal_loss_alpha * share**self.config.focal_loss_gamma * (1 - is_class) + score
        return binary_cross_entropy_with_logits(logits, score, weight, reduction="none").sum(dim=(1, 2))

    def _iou_aware(self, logits: Tensor, pairs: Pairs, labels: Tensor, overlap: Tensor) -> Tensor:
        """As LW-DETR has it (Chen et al. 2024): a class is to be as sure as its box is right."""
        place, alpha, share = (pairs.image, pairs.query, labels), self.config.focal_alpha, logits.sigmoid()
        quality = (share[place] ** alpha * overlap.to(logits.dtype) ** (1 - alpha)).clamp(min=0.01).detach()
        is_class = torch.zeros_like(logits).index_put(place, quality)
        is_none = (share**2).index_put(place, 1 - quality)
        return -(is_class * logsigmoid(logits) + is_none * logsigmoid(-logits)).sum(dim=(1, 2))

    def _of_corners(self, layer: Layer, pairs: Pairs, true: Tensor, overlap: Tensor, counts: Tensor) -> Tensor:
        """Return (B,) D-FINE's losses of where sides are (Peng et al. 2024), and of what the last layer knows of it."""
        from transformers.loss.loss_d_fine import bbox2distance

        assert layer.corners is not None
        assert layer.reference is not None
        config, size = self.config, self.config.max_num_bins + 1
        reference = layer.reference[pairs.image, pairs.query].detach()
        up = reference.new_tensor([config.up], dtype=torch.float32)
        bins, right, left = bbox2distance(
            reference.float(), _corners(true).float(), config.max_num_bins, config.reg_scale, up
        )
        said = layer.corners[pairs.image, pairs.query].reshape(-1, size)
        first = bins.long()
        wrong = cross_entropy(said, first, reduction="none") * left.to(said)
        wrong = wrong + cross_entropy(said, first + 1, reduction="none") * right.to(said)
        sides = wrong.reshape(-1, 4).sum(dim=1) * overlap.to(said)
        loss = config.weight_loss_fgl * _by_image(sides, layer, pairs) / counts
        if layer.teacher is None:
            return loss
        return loss + config.weight_loss_ddf * _distilled(layer, layer.teacher, pairs, overlap, size)


def _distilled(layer: Layer, teacher: Layer, pairs: Pairs, overlap: Tensor, size: int) -> Tensor:
    """Return (B,) how far the corners of a layer are from those of the last one, those that found a box and the others
    weighted by the roots of their numbers."""
    assert layer.corners is not None
    assert teacher.corners is not None
    trust = teacher.logits.detach().sigmoid().amax(dim=-1)
    is_matched = torch.zeros_like(trust)
    trust[pairs.image, pairs.query] = overlap.to(trust)
    is_matched[pairs.image, pairs.query] = 1
    of_layer, of_teacher = (one.reshape(*trust.shape, 4, size) for one in (layer.corners, teacher.corners.detach()))
    apart = kl_div(
        log_softmax(of_layer / TEMPERATURE, dim=-1), (of_teacher / TEMPERATURE).softmax(dim=-1), reduction="none"
    )
    apart = trust * TEMPERATURE**2 * apart.sum(dim=(-1, -2))
    sums, roots = [], []
    for chosen in (is_matched, 1 - is_matched):
        number = 4 * chosen.sum(dim=1)
        sums.append((apart * chosen).sum(dim=1) / number.clamp(min=1) * number.sqrt())
        roots.append(number.sqrt())
    return (sums[0] + sums[1]) / (roots[0] + roots[1])


def noisy_pairs(positions: Sequence[Tensor], groups: int, counts: Sequence[int]) -> Pairs:
    """Return what the queries that were made of true boxes are to say: `positions` of each image's, group by group."""
    image = torch.cat([torch.full_like(one, number) for number, one in enumerate(positions)])
    target = torch.cat(
        [torch.arange(count, device=one.device).repeat(groups) for one, count in zip(positions, counts, strict=True)]
    )
    return Pairs(image, torch.cat(list(positions)), target)


def _by_image(values: Tensor, layer: Layer, pairs: Pairs) -> Tensor:
    """Return (B,) sums of values (k,) of pairs. Each has a place of its own, so that a GPU adds in the same order."""
    return values.new_zeros(layer.boxes.shape[:2]).index_put((pairs.image, pairs.query), values).sum(dim=1)


def _corners(boxes: Tensor) -> Tensor:
    return box_convert(boxes, "cxcywh", "xyxy")


def _iou(found: Tensor, true: Tensor) -> Tensor:
    """Return (k,) intersection over union of boxes (k, 4) with others (k, 4)."""
    sides = torch.minimum(found[:, 2:], true[:, 2:]) - torch.maximum(found[:, :2], true[:, :2])
    shared = sides.clamp(min=0).prod(dim=1)
    areas = (found[:, 2:] - found[:, :2]).prod(dim=1) + (true[:, 2:] - true[:, :2]).prod(dim=1)
    return shared / (areas - shared).clamp(min=1e-9)
