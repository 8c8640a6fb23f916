"""How points look on their images."""

from collections.abc import Sequence

import cv2
import numpy as np

from competition.config.settings import Config
from competition.tasks.contract import Part, Table, Target
from competition.tasks.found_items import is_shown, items_in_words
from competition.tasks.points.table import PointsTable

RADIUS = 5  # pixels of the picture
LEAST_SCORE, LEAST_SHARE = 0.2, 0.5  # of a point that is drawn, and of the best score of its image


def draw(picture: np.ndarray, answer: Target, height: int, width: int, colors: Sequence[tuple[int, int, int]]) -> None:
    """Draw a ring around each point; of an answer with scores the sure ones, at least the best one."""
    scale = np.array([picture.shape[1] / width, picture.shape[0] / height])
    middles = np.floor(answer["keypoints"] * scale).astype(int)
    shown = _is_shown(answer)
    for (x, y), label in zip(middles[shown].tolist(), answer["labels"][shown].tolist(), strict=True):
        cv2.circle(picture, (x, y), RADIUS, colors[label % len(colors)], 2, cv2.LINE_AA)


def caption(answer: Target, classes: tuple[str, ...]) -> str:
    """Count the points that are drawn, by class; of an answer with scores, say the highest ones, too."""
    return items_in_words(answer["labels"], answer.get("scores"), _is_shown(answer), classes, "no point")


def parts(table: Table, index: int, target: Target, height: int, width: int) -> list[Part]:
    """Return the points as they are written, which may lie outside of the image; they have no area."""
    assert isinstance(table, PointsTable)
    points = table.in_pixels(index, height, width)
    outside = np.any((points < 0) | (points > np.array([width, height])), axis=1).astype(float)
    labels = table.labels[table.starts[index] : table.starts[index + 1]]
    return [Part(label, 0.0, 0.0, is_out) for label, is_out in zip(labels.tolist(), outside.tolist(), strict=True)]


def part_name() -> str | None:
    """Return points."""
    return "points"


def amount_name(config: Config) -> str | None:
    """Return points."""
    return "points"


def _is_shown(answer: Target) -> np.ndarray:
    return is_shown(answer.get("scores"), len(answer["labels"]), LEAST_SCORE, LEAST_SHARE)
