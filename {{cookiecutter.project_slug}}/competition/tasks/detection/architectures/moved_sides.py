"""Boxes whose sides are moved by what is seen where they are said to be.

A point in the middle of a large box sees its sides from afar, if at all. TOOD moves each side's distance to where it is
said best, VarifocalNet (Zhang et al. 2021) and BorderDet (Qiu et al. 2020) look at the border; here one look at the
middle of each side, on the finest level whatever the box's size, says how far the side is off.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from competition.tasks.detection.model import in_full_precision

SIDES = 4  # left, top, right, bottom
WIDTH = 32  # values that a look at a side gives
FURTHEST = 0.25  # that a side moves, of the box's width or height
MIDDLES = ((0.0, 0.5), (0.5, 0.0), (1.0, 0.5), (0.5, 1.0))  # of the sides, in shares of the box's width and height


class MovedSides(nn.Module):
    """Moves each side of boxes by what the point that says the box knows, and by what is seen at the side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.at_sides = nn.Conv2d(channels, SIDES * WIDTH, 1)
        self.at_points = nn.Conv2d(channels, SIDES * WIDTH, 1)
        self.moves = in_full_precision(nn.Conv2d(SIDES * WIDTH, SIDES, 1, groups=SIDES))
        assert self.moves.bias is not None
        for values in (self.moves.weight, self.moves.bias):  # to begin with, boxes stay where they are
            nn.init.zeros_(values)

    def forward(self, finest: Tensor, stride: int, levels: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Return boxes (B, A, 4) moved, of `levels` (B, channels, h, w) with A points in all.

        `finest` (B, channels, H, W) has a point every `stride` pixels, the first in the image's corner. The boxes are
        xyxy in pixels, and are not taught by this: their own loss says where they ought to be before they are moved.
        """
        boxes = boxes.detach()
        sides = torch.cat([boxes[..., 2:] - boxes[..., :2]] * 2, dim=2)
        known = torch.cat([self.at_points(level).flatten(2) for level in levels], dim=2)
        seen = _values_at(self.at_sides(finest).float(), _middles(boxes) / stride)
        moves = self.moves((seen + known).relu()[..., None])[..., 0].transpose(1, 2)
        return boxes + FURTHEST * moves.clamp(-1, 1) * sides


def _middles(boxes: Tensor) -> Tensor:
    """Return (B, SIDES, A, 2): x and y of the middle of each side of boxes (B, A, 4)."""
    first, last = boxes[..., None, :2], boxes[..., None, 2:]
    return (first + boxes.new_tensor(MIDDLES) * (last - first)).transpose(1, 2)


def _values_at(looks: Tensor, places: Tensor) -> Tensor:
    """Return (B, SIDES * WIDTH, A): of maps (B, SIDES * WIDTH, H, W), WIDTH a side, the values at places
    (B, SIDES, A, 2) in points.

    Between points they are interpolated; outside of the map they are those of its border.
    """
    size = places.new_tensor([looks.shape[-1], looks.shape[-2]])
    within = (2 * places + 1) / size - 1  # -1 and 1 are the outer edges of the first and of the last point
    maps = looks.unflatten(1, (SIDES, WIDTH)).flatten(0, 1)
    found = grid_sample(maps, within.flatten(0, 1)[:, None], padding_mode="border", align_corners=False)
    return found[:, :, 0].unflatten(0, (-1, SIDES)).flatten(1, 2)
