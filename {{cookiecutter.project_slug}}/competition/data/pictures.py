"""Pictures of images with their answers drawn onto them, and sheets of several. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from competition.tasks.contract import Task

Color = tuple[int, int, int]

SIDE, LONGEST = 240, 480  # pixels of a picture: a square one's side, and the longer side of any
CLASS_COLORS: tuple[Color, ...] = (  # matplotlib's tab10, the dark ones lighter, as they are drawn onto images
    *((255, 127, 14), (44, 200, 60), (64, 156, 255), (235, 60, 60), (178, 130, 230)),
    *((255, 221, 60), (240, 120, 205), (23, 210, 225), (190, 210, 50), (190, 140, 120)),
)
GAP, FONT_SIZE, LINE, WIDEST = 8, 12, 16, 1200  # pixels of a sheet
CUT = "…"


def small_picture(pixels: np.ndarray) -> np.ndarray:
    """Return (h, w, 3) uint8 of an image (H, W, channels) of any size: the first three channels as red, green, blue.

    Floats are stretched from their first to their 99th percentile.
    """
    height, width, channels = pixels.shape
    scale = min(LONGEST / max(height, width), SIDE / (height * width) ** 0.5)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    shown = np.ascontiguousarray(pixels[:, :, :3] if channels > 2 else pixels[:, :, :1])
    small = cv2.resize(shown, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    small = small.reshape(size[1], size[0], -1)
    if small.dtype != np.uint8:
        known = small[np.isfinite(small)]
        low, high = np.percentile(known, (1, 99)) if len(known) else (0.0, 1.0)
        small = np.clip(np.nan_to_num((small - low) / max(high - low, 1e-12)) * 255, 0, 255).astype(np.uint8)
    return small if small.shape[2] == 3 else np.repeat(small, 3, axis=2)


def class_legend(task: Task, classes: Sequence[str]) -> list[tuple[Color, str]]:
    """Return the colors of classes with their names; none where nothing is drawn, or classes outnumber colors."""
    if len(classes) > len(CLASS_COLORS) or task.picture.part_name() is None:
        return []
    return list(zip(CLASS_COLORS, classes, strict=False))


@dataclass(frozen=True)
class Drawn:
    """An image with its answer drawn onto it, (h, w, 3) uint8, and lines to stand below it."""

    pixels: np.ndarray
    lines: tuple[str, ...]


def sheet(pictures: Sequence[Drawn], legend: Sequence[tuple[Color, str]] = ()) -> Image.Image:
    """Return pictures side by side, in rows, with their lines below them and the names of colors at the top."""
    width = max(picture.pixels.shape[1] for picture in pictures)
    height = max(picture.pixels.shape[0] for picture in pictures) + LINE * max(len(one.lines) for one in pictures)
    columns = min(max((WIDEST - GAP) // (width + GAP), 1), len(pictures))
    top = GAP + (LINE + GAP if legend else 0)
    size = GAP + columns * (width + GAP), top + -(-len(pictures) // columns) * (height + GAP)
    whole = Image.new("RGB", size, "white")
    canvas, font = ImageDraw.Draw(whole), _font()
    left = GAP
    for color, name in legend:
        canvas.rectangle((left, GAP, left + FONT_SIZE, GAP + FONT_SIZE), fill=color)
        canvas.text((left + LINE, GAP), name, "black", font)
        left += 2 * LINE + round(canvas.textlength(name, font))
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        corner = GAP + column * (width + GAP), top + row * (height + GAP)
        whole.paste(Image.fromarray(picture.pixels), corner)
        for line, text in enumerate(picture.lines):
            place = corner[0], corner[1] + picture.pixels.shape[0] + line * LINE
            canvas.text(place, _shortened(text, width, canvas, font), "black", font)
    return whole


def _font() -> ImageFont.FreeTypeFont:
    """Return the font of matplotlib, which comes with it and has the letters of most languages."""
    import matplotlib as mpl

    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", FONT_SIZE)


def _shortened(text: str, width: int, canvas: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont) -> str:
    if canvas.textlength(text, font) <= width:
        return text
    while text and canvas.textlength(text + CUT, font) > width:
        text = text[:-1]
    return text + CUT
