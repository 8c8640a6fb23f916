"""The losses against heatmaps with a bump at every point, by name, added up with their weights in `loss:`."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from competition.tasks.focal import easing
from competition.tasks.points.settings import TaskConfig

REACH = 3  # sigmas, to which a bump is drawn


class Heat(NamedTuple):
    """What is to be learnt, both (B, classes, h, w)."""

    bumps: Tensor  # of height 1 where a point is in the middle of a cell, a little less elsewhere in it
    centres: Tensor  # bool: the cells that hold a point


def heat_of(points: Sequence[Tensor], labels: Sequence[Tensor], like: Tensor, stride: float, sigma: float) -> Heat:
    """Draw the points of images, (k, 2) xy in pixels that the network sees, onto cells of `stride` pixels.

    Bumps are Gaussians of `sigma` pixels around the points themselves, not around their cells, so that a peak tells
    where in its cell a point is; where they overlap the higher one stays.
    """
    number, classes, height, width = like.shape
    image = torch.repeat_interleave(
        torch.arange(number, device=like.device), torch.tensor([len(one) for one in points], device=like.device)
    )
    where = torch.cat(list(points)).float() / stride
    cell = torch.minimum(where.floor().long().clamp(min=0), where.new_tensor([width - 1, height - 1]).long())
    layer = (image * classes + torch.cat(list(labels))) * height
    far = math.ceil(REACH * sigma / stride)
    steps = torch.arange(-far, far + 1, device=like.device)
    columns, rows = cell[:, :1] + steps, cell[:, 1:] + steps  # (points, steps)
    squares = [(at.float() + 0.5 - where[:, axis : axis + 1]) ** 2 for axis, at in enumerate((columns, rows))]
    heights = torch.exp(-(squares[1][:, :, None] + squares[0][:, None, :]) / (2 * (sigma / stride) ** 2))
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    place = (layer[:, None] + rows.clamp(0, height - 1))[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    bumps = torch.zeros(like.numel(), dtype=torch.float32, device=like.device)
    bumps.scatter_reduce_(0, place.reshape(-1), (heights * inside).reshape(-1), "amax")
    centres = torch.zeros(like.numel(), dtype=torch.bool, device=like.device)
    centres[(layer + cell[:, 1]) * width + cell[:, 0]] = True
    return Heat(bumps.reshape(like.shape), centres.reshape(like.shape))


def image_losses(network: nn.Module, outputs: Any, batch: dict[str, Any], config: TaskConfig) -> Tensor:
    """Return (B,) losses of logits (B, classes, h, w), each by the number of its own image's points, so that they do
    not depend on the batch."""
    settings, logits = config.loss, outputs.float()
    stride = batch["image"].shape[-1] / logits.shape[-1]
    heat = heat_of(batch["points"], batch["labels"], logits, stride, settings.sigma)
    total = logits.new_zeros(len(logits))
    if settings.focal:
        losses = penalty_reduced_focal_losses(logits, heat, settings.focal_alpha, settings.focal_beta)
        total = total + settings.focal * losses.sum(dim=(1, 2, 3))
    if settings.bce:
        losses = binary_cross_entropy_with_logits(logits, heat.bumps, reduction="none")
        total = total + settings.bce * losses.sum(dim=(1, 2, 3))
    if settings.mse:
        total = total + settings.mse * ((logits.sigmoid() - heat.bumps) ** 2).sum(dim=(1, 2, 3))
    return total / total.new_tensor([max(len(one), 1) for one in batch["points"]])


def penalty_reduced_focal_losses(logits: Tensor, heat: Heat, alpha: float, beta: float) -> Tensor:
    """Return losses of the shape of logits: the focal loss of cells that hold a point, and of the others one that is
    less the nearer they are to a point (Law & Deng 2018, in the form of Zhou et al. 2019)."""
    found = -logsigmoid(logits) * easing((-logits).sigmoid(), alpha)
    empty = -logsigmoid(-logits) * easing(logits.sigmoid(), alpha) * (1 - heat.bumps) ** beta
    return torch.where(heat.centres, found, empty)


def weights(config: TaskConfig) -> dict[str, float]:
    """Return the weights of the losses."""
    return {name: getattr(config.loss, name) for name in ("focal", "bce", "mse")}
