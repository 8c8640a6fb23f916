"""train.csv of a competition of points: which points, in pixels, are on which image, by the columns of `format:`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from competition.files.csv_file import group_by_image, line, read_csv, row_faults
from competition.files.image_folder import absent_images
from competition.support.errors import CompetitionError
from competition.tasks.contract import Target
from competition.tasks.found_items import (
    classes_of_images,
    classes_of_items,
    counts_in_words,
    rarest_class,
    renumbered_items,
)
from competition.tasks.points.formats.point_columns import PointColumns, read_point_columns
from competition.tasks.points.settings import PointsFormat, TaskConfig


@dataclass(frozen=True)
class PointsTable:
    """Points sorted by image; those of image i are `points[starts[i]:starts[i + 1]]`."""

    image_ids: np.ndarray
    classes: tuple[str, ...]
    lines: np.ndarray
    points: np.ndarray  # (points, 2) float32 x, y as written, which may lie outside of the image
    labels: np.ndarray  # (points,) int64
    starts: np.ndarray  # (n + 1,)
    reach: np.ndarray  # (classes,) float64, pixels within which a point counts as found
    half_sides: np.ndarray | None = None  # (points, 2) float32 of the box within which a point counts instead
    in_shares: bool = False  # of the image's sides; else pixels
    where: str = ""  # the csv file, for messages
    groups = None  # every image is answered by itself

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `keypoints` (k, 2) float32 xy and `labels` (k,) of those inside the image, its `size` (height, width),
        and `reach` (classes,); by `matching.inside_box` also `half_sides` (k, 2) of the points' boxes.

        Raises CompetitionError where the points cannot be of an image of this size.
        """
        found = self.in_pixels(index, height, width)
        inside = ((found >= 0) & (found <= np.array([width, height]))).all(axis=1)
        if len(found) and not inside.any():
            left, top = found[0].tolist()
            raise CompetitionError(
                f"{self.where}: line {self.lines[index]}: image {self.image_ids[index]!r}: all its {len(found)} points "
                f"lie outside its {width} x {height} pixels, as {left:g},{top:g}; expected points of this file, x "
                "across and y down, in format.units"
            )
        known = {"size": np.array([height, width]), "reach": self.reach}
        if self.half_sides is not None:
            known["half_sides"] = self._in_pixels(self.half_sides, index, height, width)[inside]
        return {"keypoints": found[inside], "labels": self._labels(index)[inside], **known}

    def in_pixels(self, index: int, height: int, width: int) -> np.ndarray:
        """Return (k, 2) float32 the points of an image of this size, which may lie outside of it."""
        return self._in_pixels(self.points, index, height, width)

    def _in_pixels(self, written: np.ndarray, index: int, height: int, width: int) -> np.ndarray:
        points = written[self.starts[index] : self.starts[index + 1]]
        return points * np.array([width, height], dtype=np.float32) if self.in_shares else points

    def _labels(self, index: int) -> np.ndarray:
        return self.labels[self.starts[index] : self.starts[index + 1]]

    def present(self) -> np.ndarray:
        """Return (n, classes) bool: which classes an image has a point of."""
        image = np.repeat(np.arange(len(self.image_ids)), np.diff(self.starts))
        return classes_of_images(self.labels, image, len(self.image_ids), len(self.classes))

    def strata(self) -> np.ndarray:
        """Code images by the rarest class they have a point of; 0 where there is none."""
        return rarest_class(self.present())

    def amounts(self) -> np.ndarray:
        """Count an image's points."""
        return np.diff(self.starts).astype(np.float64)

    def summary(self) -> list[str]:
        """Count points by class, and images without any."""
        empty = int((np.diff(self.starts) == 0).sum())
        counts = counts_in_words(self.labels, self.classes)
        return [f"points: {counts}", f"images without any point: {empty} of {len(self.image_ids)}"]


def read_table(config: TaskConfig, path: Path | None = None) -> PointsTable:
    """Read train.csv; raise CompetitionError with a line per fault.

    Where absent images count as empty, they are those of the training images, and of the test images for another file
    beside train.csv (a solution); a file elsewhere (pseudo-labels) names all it is about.
    """
    form, path = config.format, path or config.train_csv
    columns = [form.image_id, *([form.class_id] if form.class_id else []), *form.point_columns]
    frame = read_csv(path, list(dict.fromkeys(columns)))
    image_id, found = frame[form.image_id], read_point_columns(frame, form, path)
    classes, names, faults = _classes(config, frame, path, found)
    nameless = np.flatnonzero(image_id == "")
    faults = row_faults(path, nameless, found.text, f"{form.image_id} is empty", show_found=False) + faults
    faults += found.faults + _misfits(form, frame, found, path)
    if not classes:
        faults.append(f"{path}: no row has a {form.class_id or 'class'}; name the classes there or in data.classes")
    if faults:
        raise CompetitionError("\n".join(faults))
    codes, first = group_by_image(image_id)
    image_ids = image_id.to_numpy(dtype=object)[first]
    absent = absent_images(config, path, image_ids)
    order = np.argsort(codes[found.row], kind="stable")
    return PointsTable(
        image_ids=np.concatenate([image_ids, absent]),
        classes=classes,
        lines=np.concatenate([line(frame.index.to_numpy()[first]), np.zeros(len(absent), dtype=np.int64)]),
        points=found.points[order].astype(np.float32),
        labels=pd.Index(classes).get_indexer(pd.Index(names[order])).astype(np.int64),
        starts=np.concatenate([[0], np.cumsum(np.bincount(codes[found.row], minlength=len(first) + len(absent)))]),
        reach=_reach(config, classes),
        half_sides=_half_sides(config, found, order),
        in_shares=form.units == "shares",
        where=str(path),
    )


def renumbered(target: Target, numbers: np.ndarray, num_classes: int) -> Target:
    """Return an answer whose label k is `numbers[k]`; points of a negative one are left out."""
    told = {key: value for key, value in target.items() if key not in ("reach", "half_sides")}  # for scores alone
    return renumbered_items(told, "keypoints", numbers)


def _reach(config: TaskConfig, classes: tuple[str, ...]) -> np.ndarray:
    distance = config.matching.distance
    if isinstance(distance, list) and len(distance) != len(classes):
        raise CompetitionError(
            f"matching.distance: lists {len(distance)} values for {len(classes)} classes ({', '.join(classes[:12])}); "
            "give one a class, or a single one"
        )
    return np.broadcast_to(np.array(distance, dtype=np.float64), len(classes))


def _half_sides(config: TaskConfig, found: PointColumns, order: np.ndarray) -> np.ndarray | None:
    if not config.matching.inside_box or found.half_sides is None:
        return None
    return found.half_sides[order].astype(np.float32)


def _classes(
    config: TaskConfig, frame: pd.DataFrame, path: Path, found: PointColumns
) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """Return all classes, that of each point, and the faults of rows of another class."""
    column = None if config.format.class_id is None else frame[config.format.class_id]
    return classes_of_items(frame.index, found.row, found.names, column, config.data.classes, path)


def _misfits(form: PointsFormat, frame: pd.DataFrame, found: PointColumns, path: Path) -> list[str]:
    """Describe rows with a point and no class, and those with a class and no point."""
    if form.class_id is None:
        return []
    has_class = (frame[form.class_id] != "").to_numpy()
    expected = f"expected {','.join(form.point_columns)} of a point of the row's {form.class_id}"
    faults = row_faults(path, np.flatnonzero(found.is_empty & has_class), found.text, expected)
    nameless = np.flatnonzero(~found.is_empty & ~has_class)
    return faults + row_faults(path, nameless, found.text, f"a point without a {form.class_id}; name its class")
