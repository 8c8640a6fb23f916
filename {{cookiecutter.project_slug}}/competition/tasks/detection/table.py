"""train.csv of a detection competition: which boxes, in pixels, are on which image, by the columns of `format:`."""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.files.csv_file import group_by_image, line, read_csv, read_header, row_faults
from competition.files.csv_numbers import numbers_in
from competition.files.image_folder import absent_images
from competition.files.joined_tables import has_table
from competition.support.errors import CompetitionError
from competition.tasks.contract import Target
from competition.tasks.detection.boxes import fuse
from competition.tasks.detection.formats.box_columns import BoxColumns, read_box_columns
from competition.tasks.detection.settings import DetectionFormat, TaskConfig
from competition.tasks.found_items import (
    classes_of_images,
    classes_of_items,
    counts_in_words,
    rarest_class,
    renumbered_items,
)

SIDES = ("height", "width")
CROWD, IS_CROWD = "iscrowd", ("1", "1.0", "True", "true")  # COCO's mark of a region in which objects are not told apart


@dataclass(frozen=True)
class DetectionTable:
    """Boxes sorted by image; those of image i are `boxes[starts[i]:starts[i + 1]]`."""

    image_ids: np.ndarray
    classes: tuple[str, ...]
    lines: np.ndarray
    boxes: np.ndarray  # (boxes, 4) float32 x1, y1, x2, y2 as written, which may reach out of the image
    labels: np.ndarray  # (boxes,) int64
    starts: np.ndarray  # (n + 1,)
    in_shares: bool = False  # of the image's sides; else pixels
    submits_shares: bool = False  # of them, for which an answer tells the image's size
    sizes: np.ndarray | None = None  # (n, 2) height and width as the csv file has them, NaN for an image without
    where: str = ""  # the csv file, for messages
    groups = None  # every image is answered by itself

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `bboxes` (k, 4) float32 xyxy clipped to the image and `labels` (k,), without boxes of no area; `size`,
        too, where shares of it are handed in.

        Raises CompetitionError where the boxes cannot be of an image of this size.
        """
        span = slice(self.starts[index], self.starts[index + 1])
        found = self.in_pixels(index, height, width)
        boxes = np.clip(found, 0, np.array([width, height, width, height], dtype=np.float32))
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        if len(found) and (fault := self._misfit(index, found, has_area, height, width)):
            raise CompetitionError(f"{self.where}: line {self.lines[index]}: image {self.image_ids[index]!r}: {fault}")
        size = {"size": np.array([height, width])} if self.submits_shares else {}
        return {"bboxes": boxes[has_area], "labels": self.labels[span][has_area], **size}

    def in_pixels(self, index: int, height: int, width: int) -> np.ndarray:
        """Return (k, 4) float32 the boxes of an image of this size, which may reach out of it."""
        boxes = self.boxes[self.starts[index] : self.starts[index + 1]]
        return boxes * np.array([width, height, width, height], dtype=np.float32) if self.in_shares else boxes

    def _misfit(self, index: int, boxes: np.ndarray, is_inside: Any, height: int, width: int) -> str:
        """Return why boxes cannot be of an image of this size; nothing where they can."""
        told = None if self.sizes is None else self.sizes[index]
        if told is not None and np.isfinite(told).all() and tuple(told) != (height, width) and not self.in_shares:
            return (
                f"has {told[1]:g} x {told[0]:g} pixels by the columns width,height, its file {width} x {height}; "
                "expected boxes and images of one size: scale either, or leave these columns out if they say other"
            )
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
        if not has_area.any() or is_inside.any():
            return ""
        left, top, right, bottom = boxes[has_area][0].tolist()
        return (
            f"all its {has_area.sum()} boxes lie outside its {width} x {height} pixels, as {left:g} to {right:g} "
            f"across and {top:g} to {bottom:g} down; expected boxes of this file, in format.layout and format.units"
        )

    def present(self) -> np.ndarray:
        """Return (n, classes) bool: which classes an image has a box of."""
        has_area = (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)
        image = np.repeat(np.arange(len(self.image_ids)), np.diff(self.starts))
        return classes_of_images(self.labels[has_area], image[has_area], len(self.image_ids), len(self.classes))

    def strata(self) -> np.ndarray:
        """Code images by the rarest class they have a box of; 0 where there is none."""
        return rarest_class(self.present())

    def amounts(self) -> np.ndarray:
        """Count an image's boxes."""
        return np.diff(self.starts).astype(np.float64)

    def summary(self) -> list[str]:
        """Count boxes by class, images without any, and boxes without area."""
        empty = int((np.diff(self.starts) == 0).sum())
        lines = [
            f"boxes: {counts_in_words(self.labels, self.classes)}",
            f"images without any box: {empty} of {len(self.image_ids)}",
        ]
        flat = int((self.boxes[:, 2:] <= self.boxes[:, :2]).any(1).sum())
        return [*lines, f"boxes without area, which are left out: {flat}"] if flat else lines


def read_table(config: TaskConfig, path: Path | None = None) -> DetectionTable:
    """Read train.csv; raise CompetitionError with a line per fault.

    Where absent images count as empty, they are those of the training images, and of the test images for another file
    beside train.csv (a solution); a file elsewhere (pseudo-labels) names all it is about.
    """
    form, path = config.format, path or config.train_csv
    image_id, frame = _read_columns(form, path)
    found = read_box_columns(frame, form, path)
    classes, names, unknown = _classes(config, frame, path, found)
    nameless = np.flatnonzero(image_id == "")
    faults = row_faults(path, nameless, found.text, f"{form.image_id} is empty", show_found=False)
    faults += unknown + found.faults + _misfits(form, frame, found, path)
    if not classes:
        faults.append(f"{path}: no row has a {form.class_id}; name the classes there or in data.classes")
    if faults:
        raise CompetitionError("\n".join(faults))
    codes, first = group_by_image(image_id)
    image_ids = image_id.to_numpy(dtype=object)[first]
    absent = absent_images(config, path, image_ids)
    is_box = names != ""  # not so where the class says there is none
    boxes, labels, starts = _by_image(
        codes[found.row[is_box]],
        found.corners[is_box].astype(np.float32),
        pd.Index(classes).get_indexer(pd.Index(names[is_box])).astype(np.int64),
        len(first) + len(absent),
    )
    table = DetectionTable(
        image_ids=np.concatenate([image_ids, absent]),
        classes=classes,
        lines=np.concatenate([line(frame.index.to_numpy()[first]), np.zeros(len(absent), dtype=np.int64)]),
        boxes=boxes,
        labels=labels,
        starts=starts,
        in_shares=form.units == "shares",
        submits_shares=form.submits_shares,
        sizes=_sizes(form, path, frame, first, len(absent)),
        where=str(path),
    )
    return table if form.fuse_readers is None else _fuse_readers(table, form.fuse_readers)


def _by_image(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, num_images: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes and labels in the order of the images they are of, `image` (boxes,), and where each begins."""
    order = np.argsort(image, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(image, minlength=num_images))])
    return boxes[order], labels[order], starts


def renumbered(target: Target, numbers: np.ndarray, num_classes: int) -> Target:
    """Return an answer whose label k is `numbers[k]`; boxes of a negative one are left out."""
    return renumbered_items(target, "bboxes", numbers)


def _read_columns(form: DetectionFormat, path: Path) -> tuple["pd.Series", pd.DataFrame]:
    """Return the image id of each row, and the columns that classes and boxes stand in."""
    parts = form.image_id_columns
    columns = [*parts, *([form.class_id] if form.class_id else []), *form.box_columns]
    is_coco = has_table(path) and CROWD in [name.strip() for name in read_header(path)]
    frame = read_csv(path, list(dict.fromkeys([*columns, *([CROWD] if is_coco else [])])))
    if is_coco and len(crowds := np.flatnonzero(frame[CROWD].isin(IS_CROWD))):
        raise CompetitionError(
            f"{path}: line {line(int(frame.index[crowds[0]]))}: {CROWD} is 1 here, and in {len(crowds)} rows of "
            f"{len(frame)}: regions of many objects, which COCO's metric ignores and which would be learnt as boxes; "
            f"leave them out by data.train_csv='{path.name} where {CROWD}!=1'"
        )
    if parts == [form.image_id]:
        return frame[form.image_id].rename("image_id"), frame
    texts = zip(*(frame[part] for part in parts), strict=True)
    joined = [form.image_id.format(**dict(zip(parts, text, strict=True))) for text in texts]
    return pd.Series(joined, index=frame.index, name="image_id"), frame


def _sizes(
    form: DetectionFormat, path: Path, frame: pd.DataFrame, first: np.ndarray, num_absent: int
) -> np.ndarray | None:
    """Return (n, 2) float64 height and width of the images by columns of these names that are none of boxes."""
    if not set(SIDES) <= {name.strip() for name in read_header(path)} or set(SIDES) & set(frame.columns):
        return None
    sides = numbers_in(read_csv(path, SIDES))[first]
    return np.concatenate([np.where(sides > 0, sides, np.nan), np.full((num_absent, 2), np.nan)])


def _classes(
    config: TaskConfig, frame: pd.DataFrame, path: Path, found: BoxColumns
) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """Return all classes, that of each box (empty where it is none), and the faults of rows of another class."""
    form, listed, column = config.format, config.data.classes, None
    if form.class_id is not None:
        if found.names is None and listed is not None and form.no_finding in listed:
            raise CompetitionError(
                f"data.classes: lists {form.no_finding!r}, which format.no_finding says is no box; leave it out"
            )
        column = frame[form.class_id].where(frame[form.class_id] != form.no_finding, "")
    return classes_of_items(frame.index, found.row, found.names, column, listed, path)


def _misfits(form: DetectionFormat, frame: pd.DataFrame, found: BoxColumns, path: Path) -> list[str]:
    """Describe rows with a box and no class, and those with a class and no box."""
    if form.class_id is None:
        return []
    no_box = np.flatnonzero(found.is_empty & ~frame[form.class_id].isin(["", form.no_finding or ""]))
    hint = "" if form.no_finding else "; name a class that means no box in format.no_finding"
    faults = row_faults(path, no_box, found.text, f"{found.expected} of a box of the row's {form.class_id}{hint}")
    no_class = np.flatnonzero(~found.is_empty & (frame[form.class_id] == ""))
    return faults + row_faults(path, no_class, found.text, f"a box without a {form.class_id}; name its class")


def _fuse_readers(table: DetectionTable, max_iou: float) -> DetectionTable:
    """Average the boxes of a class in an image that overlap by more than `max_iou`."""
    boxes, labels, counts = [table.boxes[:0]], [table.labels[:0]], [0]
    for start, end in pairwise(table.starts):
        alike = np.ones(end - start, dtype=np.float32)
        all_of_one = np.zeros(end - start, dtype=np.int64)
        fused = fuse(table.boxes[start:end], alike, table.labels[start:end], all_of_one, np.ones(1), max_iou)
        boxes.append(fused[0])
        labels.append(fused[2])
        counts.append(len(fused[2]))
    return replace(table, boxes=np.concatenate(boxes), labels=np.concatenate(labels), starts=np.cumsum(counts))
