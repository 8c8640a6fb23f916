"""Views of an image for test-time augmentation: flips, turns and scales by name, each with its exact inverse. No torch.

A view flips first, then swaps the axes, then scales. Maps are undone in the opposite order; boxes by their corners.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

# Name: (flip rows, flip columns, swap rows and columns). rot90 is numpy's: a quarter turn to the left.
GEOMETRY = {
    "hflip": (False, True, False),
    "vflip": (True, False, False),
    "rot180": (True, True, False),
    "transpose": (False, False, True),
    "rot90": (False, True, True),
    "rot270": (True, False, True),
    "antitranspose": (True, True, True),
}
DIVISOR = 32  # sides of scaled images are multiples of it, as networks want them


@dataclass(frozen=True)
class View:
    """How an image is seen; the default is as it is."""

    name: str = "plain"
    flip_rows: bool = False
    flip_columns: bool = False
    swap_axes: bool = False
    scale: float = 1.0

    def see(self, images: Any) -> Any:
        """Flip and turn a torch tensor (..., H, W); scaling is the network's business: see `scaled_size`."""
        axes = [axis for axis, is_flipped in ((-2, self.flip_rows), (-1, self.flip_columns)) if is_flipped]
        seen = images.flip(axes) if axes else images
        return seen.transpose(-1, -2) if self.swap_axes else seen

    def scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the sides (height, width) scaled to the nearest multiple of DIVISOR."""
        if self.scale == 1:
            return height, width
        scaled = (max(round(side * self.scale / DIVISOR), 1) * DIVISOR for side in (height, width))
        return next(scaled), next(scaled)

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the sides (height, width) of what the network sees, scaled and turned."""
        height, width = self.scaled_size(height, width)
        return (width, height) if self.swap_axes else (height, width)

    def undo_map(self, values: np.ndarray) -> np.ndarray:
        """Turn an array (..., h, w) of the view back to the image as it is."""
        if self.swap_axes:
            values = values.swapaxes(-1, -2)
        return values[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def undo_boxes(self, boxes: np.ndarray, height: float, width: float) -> np.ndarray:
        """Turn boxes (k, 4) xyxy of the view back to those of the image as it is, height x width."""
        x1, y1, x2, y2 = boxes.T[[1, 0, 3, 2]] if self.swap_axes else boxes.T
        if self.flip_columns:
            x1, x2 = width - x2, width - x1
        if self.flip_rows:
            y1, y2 = height - y2, height - y1
        return np.stack([x1, y1, x2, y2], axis=1)


def view_of(name: str) -> View:
    """Return the view of a name of GEOMETRY, or of `scale1.25`."""
    if name.startswith("scale"):
        return View(name, scale=float(name.removeprefix("scale")))
    return View(name, *GEOMETRY[name])


def views_of(names: list[str]) -> list[View]:
    """Return the plain view and the named ones."""
    return [View(), *map(view_of, names)]


def fault_of_view(name: str, height: int, width: int) -> str | None:
    """Say what is wrong with a view that shows an image of this size as the plain one does; None if it does not."""
    view, side = view_of(name), max(height, width)
    if view.scale == 1 or view.scaled_size(height, width) != (height, width):
        return None
    sides = [(side + step) // DIVISOR * DIVISOR for step in (-1, DIVISOR)]
    return (
        f"{name} of {height} x {width} is {height} x {width} again, as scaled sides are multiples of {DIVISOR}; "
        f"not so: {', '.join(f'scale{one / side:.3g}' for one in sides if one)}"
    )
