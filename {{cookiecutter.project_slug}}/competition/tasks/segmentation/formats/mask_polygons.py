"""Masks as polygons, a JSON line an image: {"id": ..., "annotations": [{"type": ..., "coordinates": [[[x, y], ...]]}]}.

That is how HuBMAP - Hacking the Human Vasculature (2023) hands them out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from competition.support.errors import CompetitionError
from competition.tasks.segmentation.objects import Objects, objects_from


@dataclass(frozen=True)
class MaskPolygons:
    """Polygons of n images by class: each a list of rings (k, 2) of x and y, the outer one and those of its holes."""

    polygons: list[dict[str, list[list[np.ndarray]]]]
    classes: tuple[str, ...]

    def mask(self, index: int, height: int, width: int) -> np.ndarray:
        """Return (height, width, classes) uint8 of 0 and 1."""
        return self.objects(index, height, width).mask(len(self.classes))

    def objects(self, index: int, height: int, width: int) -> Objects:
        """Return the objects of an image, a polygon each; none where it covers no pixel."""
        each = []
        for number, name in enumerate(self.classes):
            for rings in self.polygons[index].get(name, []):
                one = np.zeros((height, width), dtype=np.uint8)
                cv2.fillPoly(one, rings, 1)  # with several rings it leaves out what lies in two
                if len(pixels := np.flatnonzero(one)):
                    each.append((number, pixels))
        return objects_from(each, height, width)

    def present(self) -> np.ndarray:
        """Return (n, classes) bool."""
        return np.array([[name in image for name in self.classes] for image in self.polygons], dtype=bool)

    def amounts(self) -> np.ndarray:
        """Return (n,) float: pixels of an image's masks."""
        return np.array([self._pixels(index) for index in range(len(self.polygons))], dtype=float)

    def _pixels(self, index: int) -> int:
        rings = [ring for polygons in self.polygons[index].values() for one in polygons for ring in one]
        if not rings:
            return 0
        width, height = np.concatenate(rings).max(axis=0).clip(0) + 1
        return int(self.mask(index, int(height), int(width)).sum())


def read_polygons(path: Path, listed: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray, MaskPolygons]:
    """Return image ids (n,), their lines (n,) and polygons; with `listed` classes those of others are left out.

    Raises CompetitionError at the first line that is not of this form.
    """
    if not path.is_file():
        raise CompetitionError(f"{path}: no such file; format.train.polygons names it")
    ids, images = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            image = json.loads(line)
            ids.append(str(image["id"]))
            images.append(_by_class(image["annotations"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CompetitionError(
                f"{path}: line {number}: not a line of polygons ({type(error).__name__}: {error}); expected "
                '{"id": ..., "annotations": [{"type": ..., "coordinates": [[[x, y], ...]]}]}'
            ) from None
    classes = tuple(listed or sorted({name for image in images for name in image}))
    if not classes:
        raise CompetitionError(f"{path}: no polygon has a type; name the classes in data.classes")
    return np.array(ids, dtype=object), np.arange(1, len(ids) + 1), MaskPolygons(images, classes)


def _by_class(annotations: list[dict[str, Any]]) -> dict[str, list[list[np.ndarray]]]:
    found: dict[str, list[list[np.ndarray]]] = {}
    for one in annotations:
        rings = [
            np.array(ring, dtype=np.float64).reshape(-1, 2).round().astype(np.int32) for ring in one["coordinates"]
        ]
        found.setdefault(str(one["type"]), []).append(rings)
    return found
