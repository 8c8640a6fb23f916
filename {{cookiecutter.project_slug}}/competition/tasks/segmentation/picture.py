"""How masks look on their images."""

from collections.abc import Sequence

import cv2
import numpy as np

from competition.config.settings import Config
from competition.tasks.contract import Part, Table, Target

TINT = 0.15  # how much of a mask's color is laid over the image inside of its outline
MOST_PARTS = 200  # of a class in an image, or of the objects that are named there, the largest


def draw(picture: np.ndarray, answer: Target, height: int, width: int, colors: Sequence[tuple[int, int, int]]) -> None:
    """Draw the outlines of masks, and tint what is inside."""
    size = picture.shape[1], picture.shape[0]
    for k in range(answer["mask"].shape[2]):
        layer = np.ascontiguousarray(answer["mask"][:, :, k])
        if not layer.any():
            continue
        # By area, not by the nearest pixel: what is small on a large image must not vanish.
        is_smaller = layer.shape[0] > size[1]
        kind = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
        share = cv2.resize(layer.astype(np.float32), size, interpolation=kind)
        inside = (share > (0.15 if is_smaller else 0.5)).astype(np.uint8)
        color = colors[k % len(colors)]
        tinted = (1 - TINT) * picture[inside > 0] + TINT * np.array(color)
        picture[inside > 0] = tinted.astype(np.uint8)
        outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, color, 2, cv2.LINE_AA)


def caption(answer: Target, classes: tuple[str, ...]) -> str:
    """Say how much of the image the mask of each class has."""
    shares = answer["mask"].mean(axis=(0, 1), dtype=np.float64)
    words = [f"{classes[k]} {100 * shares[k]:.3g} %" for k in np.argsort(-shares, kind="stable") if shares[k]]
    more = f" and {len(words) - 6} classes more" if len(words) > 6 else ""
    return ", ".join(words[:6]) + more or "no mask"


def parts(table: Table, index: int, target: Target, height: int, width: int) -> list[Part]:
    """Return the objects that train.csv names, or else the connected parts of each mask."""
    if "objects" in target:
        each = sorted(target["objects"], key=lambda one: -len(one[1]))
        return [_part(number, pixels, height, width) for number, pixels in each[:MOST_PARTS]]
    found = []
    for k in range(target["mask"].shape[2]):
        layer = np.ascontiguousarray(target["mask"][:, :, k])
        if not cv2.hasNonZero(layer):
            continue
        stats = cv2.connectedComponentsWithStats(layer)[2][1:].astype(np.float64)
        largest = np.argsort(-stats[:, cv2.CC_STAT_AREA], kind="stable")[:MOST_PARTS]
        for part_width, part_height, area in stats[largest][
            :, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA]
        ]:
            sides = sorted((part_width, part_height))
            found.append(Part(k, float(area / layer.size), float(sides[1] / sides[0]), 0.0))
    return found


def _part(number: int, pixels: np.ndarray, height: int, width: int) -> Part:
    """Return what is told of an object by its pixels, counted along the rows."""
    sides = sorted(int(np.ptp(at)) + 1 for at in (pixels // width, pixels % width))
    return Part(number, len(pixels) / (height * width), sides[1] / sides[0], 0.0)


def part_name() -> str | None:
    """Return parts of masks."""
    return "parts of masks"


def amount_name(config: Config) -> str | None:
    """Return pixels of masks."""
    return "pixels of masks"
