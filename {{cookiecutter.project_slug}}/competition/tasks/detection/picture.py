"""How boxes look on their images."""

from collections.abc import Sequence

import cv2
import numpy as np

from competition.config.settings import Config
from competition.tasks.contract import Part, Table, Target
from competition.tasks.detection.table import DetectionTable
from competition.tasks.found_items import is_shown, items_in_words

LEAST_SCORE, LEAST_SHARE = 0.3, 0.5  # of a box that is drawn, and of the best score of its image


def draw(picture: np.ndarray, answer: Target, height: int, width: int, colors: Sequence[tuple[int, int, int]]) -> None:
    """Draw the boxes; of an answer with scores the sure ones, at least the best one."""
    scale = np.array([picture.shape[1] / width, picture.shape[0] / height] * 2)
    corners = np.round(answer["bboxes"] * scale).astype(int)
    shown = _is_shown(answer)
    for (left, top, right, bottom), label in zip(
        corners[shown].tolist(), answer["labels"][shown].tolist(), strict=True
    ):
        color = colors[label % len(colors)]
        cv2.rectangle(picture, (left, top), (max(right - 1, left), max(bottom - 1, top)), color, 2, cv2.LINE_AA)


def caption(answer: Target, classes: tuple[str, ...]) -> str:
    """Count the boxes that are drawn, by class; of an answer with scores, say the highest ones, too."""
    return items_in_words(answer["labels"], answer.get("scores"), _is_shown(answer), classes, "no box")


def parts(table: Table, index: int, target: Target, height: int, width: int) -> list[Part]:
    """Return the boxes as they are written, which may reach out of the image."""
    assert isinstance(table, DetectionTable)
    span = slice(table.starts[index], table.starts[index + 1])
    boxes, labels = table.in_pixels(index, height, width).astype(np.float64), table.labels[span]
    limits = np.array([width, height, width, height], dtype=np.float64)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    inside = np.clip(boxes, 0, limits)
    inside_sides = np.maximum(inside[:, 2:] - inside[:, :2], 0)
    area, area_inside = sides.prod(axis=1), inside_sides.prod(axis=1)
    return [
        Part(
            class_number=int(label),
            area=float(whole / (height * width)),
            elongation=float(side.max() / max(side.min(), 1e-6)) if whole > 0 else 0.0,
            outside=float(1 - kept / whole) if whole > 0 else 1.0,
        )
        for label, side, whole, kept in zip(labels, sides, area, area_inside, strict=True)
    ]


def part_name() -> str | None:
    """Return boxes."""
    return "boxes"


def amount_name(config: Config) -> str | None:
    """Return boxes."""
    return "boxes"


def _is_shown(answer: Target) -> np.ndarray:
    """Return (k,) bool: a mean average precision hands in many boxes that nobody believes in."""
    return is_shown(answer.get("scores"), len(answer["labels"]), LEAST_SCORE, LEAST_SHARE)
