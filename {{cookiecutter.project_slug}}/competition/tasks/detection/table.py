"""train.csv of a detection competition: `image_id,width,height,class_id,x,y,w,h`, a row per box in pixels.

An image without boxes has one row whose `class_id,x,y,w,h` are empty.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from competition.csv_file import group_by_image, line, read_csv, resolve_classes, row_faults
from competition.errors import CompetitionError
from competition.settings import Config
from competition.task import Target

COLUMNS = ("image_id", "class_id", "x", "y", "w", "h")


@dataclass(frozen=True)
class DetectionTable:
    """Boxes sorted by image; those of image i are `boxes[starts[i]:starts[i + 1]]`."""

    image_ids: np.ndarray
    classes: tuple[str, ...]
    lines: np.ndarray
    boxes: np.ndarray  # (boxes, 4) float32 x1, y1, x2, y2 as written, which may reach out of the image
    labels: np.ndarray  # (boxes,) int64
    starts: np.ndarray  # (n + 1,)

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `bboxes` (k, 4) float32 xyxy clipped to the image and `labels` (k,), without boxes of no area."""
        span = slice(self.starts[index], self.starts[index + 1])
        boxes = np.clip(self.boxes[span], 0, np.array([width, height, width, height], dtype=np.float32))
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return {"bboxes": boxes[has_area], "labels": self.labels[span][has_area]}

    def present(self) -> np.ndarray:
        """Return (n, classes) bool: which classes an image has a box of."""
        has_area = (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)
        image = np.repeat(np.arange(len(self.image_ids)), np.diff(self.starts))[has_area]
        size = len(self.image_ids) * len(self.classes)
        flat = np.bincount(image * len(self.classes) + self.labels[has_area], minlength=size)
        return flat.reshape(len(self.image_ids), len(self.classes)) > 0

    def strata(self) -> np.ndarray:
        """Code images by the rarest class they have a box of; 0 where there is none."""
        present = self.present()
        rarity = np.argsort(np.argsort(-present.sum(0), kind="stable"))  # commonest 0
        return np.where(present, rarity + 1, 0).max(1)

    def amounts(self) -> np.ndarray:
        """Count an image's boxes."""
        return np.diff(self.starts).astype(np.float64)

    def summary(self) -> list[str]:
        """Count boxes by class, images without any, and boxes without area."""
        counts = ", ".join(
            f"{name} {count}"
            for name, count in zip(self.classes, np.bincount(self.labels, minlength=len(self.classes)), strict=True)
        )
        empty = int((np.diff(self.starts) == 0).sum())
        lines = [f"boxes: {counts}", f"images without any box: {empty} of {len(self.image_ids)}"]
        flat = int((self.boxes[:, 2:] <= self.boxes[:, :2]).any(1).sum())
        return [*lines, f"boxes without area, which are left out: {flat}"] if flat else lines


def read_table(config: Config, path: Path | None = None) -> DetectionTable:
    """Read train.csv; raise CompetitionError with a line per fault."""
    path = path or config.train_csv
    frame = read_csv(path, COLUMNS)
    faults = row_faults(
        path, np.flatnonzero(frame["image_id"] == ""), frame["x"], "image_id is empty", show_found=False
    )
    classes, unknown = resolve_classes(frame["class_id"], config.data.classes, path)
    faults += unknown
    texts = frame[["x", "y", "w", "h"]]
    has_box = ((texts != "").any(axis=1) | (frame["class_id"] != "")).to_numpy()
    numbers = texts.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    broken = has_box & ~np.isfinite(numbers).all(1)
    described = texts["x"] + "," + texts["y"] + "," + texts["w"] + "," + texts["h"]
    faults += row_faults(path, np.flatnonzero(broken), described, "expected x,y,w,h as four numbers")
    negative = has_box & ~broken & (numbers[:, 2:] < 0).any(1)
    faults += row_faults(path, np.flatnonzero(negative), described, "expected a width and height of 0 or more")
    nameless = np.flatnonzero(has_box & (frame["class_id"] == "").to_numpy())
    faults += row_faults(path, nameless, described, "a box without a class_id; name its class")
    if not classes:
        faults.append(f"{path}: no row has a class_id; name the classes there or in data.classes")
    if faults:
        raise CompetitionError("\n".join(faults))
    codes, first = group_by_image(frame["image_id"])
    rows = np.argsort(codes, kind="stable")
    rows = rows[has_box[rows]]
    xywh = numbers[rows]
    return DetectionTable(
        image_ids=frame["image_id"].to_numpy(dtype=object)[first],
        classes=classes,
        lines=line(frame.index.to_numpy()[first]),
        boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32),
        labels=pd.Index(classes).get_indexer(pd.Index(frame["class_id"]))[rows].astype(np.int64),
        starts=np.concatenate([[0], np.cumsum(np.bincount(codes[rows], minlength=len(first)))]),
    )
