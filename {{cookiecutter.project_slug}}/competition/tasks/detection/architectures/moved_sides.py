"""Boxes whose sides are moved by what is seen where they are said to be.

A point in the middle of a large box sees its sides from afar, if at all. TOOD moves each side's distance to where it is
said best, VarifocalNet (Zhang et al. 2021) and BorderDet (Qiu et al. 2020) look at the border; here one look at the
middle of each side, on the finest level whatever the box's size, says how far the side is off.
"""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn

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

    Between points they are interpolated; outside of the map they are those of its border. By gather, which has a
    deterministic backward pass on every device, as grid_sample has not.
    """
    height, width = looks.shape[-2:]
    maps = looks.flatten(2).unflatten(1, (SIDES, WIDTH))
    found = torch.zeros_like(maps[..., :1])
    corners = product(_beside(places[..., 1], height), _beside(places[..., 0], width))
    for (row, row_share), (column, column_share) in corners:
        index = (row * width + column)[:, :, None].expand(-1, -1, WIDTH, -1)
        found = found + maps.gather(3, index) * (row_share * column_share)[:, :, None]
    return found.flatten(1, 2)


def _beside(places: Tensor, number: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return which of `number` points in a row lie before and after places, and their shares of what is there."""
    within = places.nan_to_num().clamp(0, number - 1)  # a network that has diverged says NaN: no index
    before = within.floor()
    after = (before + 1).clamp(max=number - 1)
    return (before.long(), 1 - (within - before)), (after.long(), within - before)
