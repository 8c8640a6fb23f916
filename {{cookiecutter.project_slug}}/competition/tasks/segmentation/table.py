"""The training masks: of train.csv's run lengths, a row per image and class, or of mask files; see `format.train`.

An image without any mask has rows whose run lengths (and class, if any) are empty; a class that has no row for an
image is empty there; several rows of an image and class are united, unless `format.rows` says that each is an object.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from competition.config.settings import Config
from competition.files.csv_file import (
    LongTexts,
    group_by_image,
    line,
    read_csv,
    resolve_classes,
    row_faults,
    second_rows,
)
from competition.files.csv_keys import Keys, split_keys
from competition.files.image_folder import absent_images, ids_in
from competition.support.errors import CompetitionError
from competition.tasks.contract import Target
from competition.tasks.segmentation.formats.mask_files import MaskFiles
from competition.tasks.segmentation.formats.mask_polygons import MaskPolygons, read_polygons
from competition.tasks.segmentation.formats.mask_rows import MaskRows
from competition.tasks.segmentation.settings import TaskConfig

ONE_CLASS = "object"  # what the class is called where there is one without a name
NO_LINES = np.zeros(0, dtype=np.int64)
NO_MASK = ("", "nan", "NaN")


class Masks(Protocol):
    """Where the masks of images stand."""

    def mask(self, index: int, height: int, width: int) -> np.ndarray:
        """Return (height, width, classes) uint8 of 0 and 1."""
        ...

    def present(self) -> np.ndarray:
        """Return (n, classes) bool."""
        ...

    def amounts(self) -> np.ndarray:
        """Return (n,) float: pixels of an image's masks."""
        ...


@dataclass(frozen=True)
class SegmentationTable:
    """Training images and their masks."""

    image_ids: np.ndarray
    classes: tuple[str, ...]
    lines: np.ndarray
    masks: Masks
    repeated: np.ndarray  # lines whose image and class have a mask on an earlier line, too
    of_objects: MaskRows | MaskPolygons | None = None  # `masks`, where they tell the objects of an image apart
    volumes: tuple[str, ...] | None = None  # (n,) which an image is a slice of, with `format.volume`
    groups = None  # every image is answered by itself

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `mask`: (height, width, classes) uint8 of 0 and 1; where they are told apart also `objects`, with
        `format.train.ignore` also `ignored` (height, width), and of a slice `volume` and `slice` as text."""
        place = {} if self.volumes is None else {"volume": self.volumes[index], "slice": str(self.image_ids[index])}
        if isinstance(self.masks, MaskFiles) and self.masks.layout.ignore is not None:
            mask, ignored = self.masks.masks(index, height, width)
            return {"mask": mask, "ignored": ignored, **place}
        if self.of_objects is None:
            return {"mask": self.masks.mask(index, height, width), **place}
        objects = self.of_objects.objects(index, height, width)
        return {"mask": objects.mask(len(self.classes)), "objects": objects, **place}

    def present(self) -> np.ndarray:
        """Return (n, classes) bool: which classes an image has a mask of."""
        return self._present

    @cached_property
    def _present(self) -> np.ndarray:
        return self.masks.present()

    def strata(self) -> np.ndarray:
        """Code images by which classes they have a mask of."""
        present = self.present()
        if present.shape[1] > 62:  # more than fit an integer: by their number
            return present.sum(1)
        return present @ (1 << np.arange(present.shape[1], dtype=np.int64))

    def amounts(self) -> np.ndarray:
        """Count the pixels of an image's masks."""
        return self.masks.amounts()

    def summary(self) -> list[str]:
        """Count masks by class, and images without any."""
        present = self.present()
        counts = ", ".join(f"{name} {count}" for name, count in zip(self.classes, present.sum(0), strict=True))
        lines = [f"masks: {counts}", f"images without any mask: {(~present.any(1)).sum()} of {len(present)}"]
        if isinstance(self.masks, MaskFiles):
            lines += self.masks.remarks()
        if isinstance(self.of_objects, MaskRows):
            counts = self.of_objects.counts()
            lines.append(f"objects: {counts.sum()}, up to {counts.max(initial=0)} an image, a row each")
        elif len(self.repeated):
            lines.append(
                f"warning: {len(self.repeated)} rows have a mask for an image and class that has one already, first "
                f"on line {self.repeated[0]}; they are united, which is right where a mask may stand in several rows; "
                f"where a row is an object by itself: format.rows: objects"
            )
        return lines


def read_table(config: Config, path: Path | None = None) -> SegmentationTable:
    """Read train.csv or the mask files; raise CompetitionError with a line per fault.

    Where there is no train.csv another file than it is read by the columns of the submission.
    """
    assert isinstance(config, TaskConfig)
    layout = config.format.train
    if path not in (None, config.train_csv) and config.format.submission.style == "instances":
        raise CompetitionError(f"{path}: masks of single objects are only handed in; there is none to compare with")
    if layout.keys is not None:
        with_files = layout.files is not None and path in (None, config.train_csv)
        mask = None if with_files else layout.mask
        table = _read_csv(config, path or config.train_csv, layout.keys, mask)
    elif path is not None:
        table = _read_csv(config, path, config.format.submission_keys, config.format.submission_mask)
    elif layout.polygons is not None:
        ids, lines, polygons = read_polygons(config.data.dir / layout.polygons, config.data.classes)
        table = SegmentationTable(ids, polygons.classes, lines, polygons, NO_LINES, of_objects=polygons)
    else:
        table = _read_folder(config)
    try:
        config.decode.check_length(len(table.classes), table.classes)
    except CompetitionError as error:
        raise CompetitionError(f"{error} (the classes of {config.train_csv})") from None
    return replace(table, volumes=_volumes(config.format.volume, table, path or config.train_csv))


def renumbered(target: Target, numbers: np.ndarray, num_classes: int) -> Target:
    """Return an answer whose masks of class k are those of class `numbers[k]`; masks of a negative one are left out."""
    mask = np.zeros((*target["mask"].shape[:2], num_classes), dtype=target["mask"].dtype)
    for theirs, ours in enumerate(numbers.tolist()):
        if ours >= 0:
            np.maximum(mask[:, :, ours], target["mask"][:, :, theirs], out=mask[:, :, ours])
    return {**{key: value for key, value in target.items() if key != "objects"}, "mask": mask}


def _volumes(pattern: str | None, table: SegmentationTable, path: Path) -> tuple[str, ...] | None:
    if pattern is None:
        return None
    found = [re.search(pattern, image_id) for image_id in table.image_ids]
    if None in found:
        first = found.index(None)
        raise CompetitionError(
            f"{path}: line {table.lines[first]}: format.volume {pattern!r} finds nothing in image id "
            f"{table.image_ids[first]!r}; expected a part of every id"
        )
    return tuple(one[1 if one.re.groups else 0] for one in found if one)


def _read_csv(config: TaskConfig, path: Path, keys: Keys, column: str | None) -> SegmentationTable:
    """Read a file whose masks stand in `column`, or, for none, in mask files."""
    column = column and column.strip()
    frame = read_csv(path, [key.strip() for key in keys] + ([column] if column else []), long=column)
    image_id, class_id = split_keys(frame, {key.strip(): pattern for key, pattern in keys.items()}, path)
    rle = pd.Series("", index=frame.index) if column is None else frame[column].str.strip()
    rle = rle.mask(rle.isin([*NO_MASK, config.format.rle.empty]), "")
    faults = row_faults(path, np.flatnonzero(image_id == ""), rle, "image_id is empty", show_found=False)
    if column is None and class_id is None:  # the masks are no rows: a second one says nothing more, or another's
        faults += second_rows(path, image_id)
    classes, more = _classes(config, class_id, rle, path)
    if faults + more:
        raise CompetitionError("\n".join(faults + more))
    codes, first = group_by_image(image_id)
    named = image_id.to_numpy(dtype=object)[first]
    absent = absent_images(config, path, named)
    ids = np.concatenate([named, absent])
    lines = np.concatenate([line(frame.index.to_numpy()[first]), np.zeros(len(absent), dtype=np.int64)])
    number = np.zeros(len(frame), int) if class_id is None else pd.Index(classes).get_indexer(pd.Index(class_id))
    again = pd.DataFrame({"image": codes, "class": number})[(rle != "").to_numpy()].duplicated()
    repeated = line(frame.index.to_numpy()[again.index[again]])
    if column is None:
        return SegmentationTable(ids, classes, lines, MaskFiles.of(config, ids, classes, lines), repeated)
    masks = MaskRows(
        path=path,
        num_classes=len(classes),
        order=np.argsort(codes, kind="stable"),
        starts=np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(ids)))]),
        row_class=number,
        rle=rle,
        texts=LongTexts(path, column, frame.index),
        form=config.format.rle,
    )
    of_objects = masks if config.format.rows == "objects" else None
    return SegmentationTable(ids, classes, lines, masks, repeated, of_objects)


def _classes(
    config: TaskConfig, class_id: "pd.Series | None", rle: pd.Series, path: Path
) -> tuple[tuple[str, ...], list[str]]:
    """Return the classes, and what is wrong with those of the rows."""
    if class_id is None:
        return _unnamed_classes(config), []
    classes, faults = resolve_classes(class_id, config.data.classes, path)
    nameless = np.flatnonzero((class_id == "") & (rle != ""))
    faults += row_faults(path, nameless, rle, "a mask without a class; name its class", show_found=False)
    if not classes:
        faults.append(f"{path}: no row has a class; name the classes there or in data.classes")
    return classes, faults


def _unnamed_classes(config: TaskConfig) -> tuple[str, ...]:
    """Return the classes where no column tells them: those of data.classes, or a single one."""
    layout = config.format.train
    classes = config.data.classes or list(layout.colors) or [ONE_CLASS]
    if layout.colors and (nameless := [name for name in classes if name not in layout.colors]):
        raise CompetitionError(
            f"data.classes: {nameless[0]!r} has no colour in format.train.colors; found those of "
            f"{', '.join(layout.colors)}"
        )
    if len(classes) > 1 and layout.files is None:
        raise CompetitionError(
            f"data.classes: found {len(classes)} classes, but no column of {config.train_csv} tells them apart; "
            f"expected one class, or {{class_id}} in format.train.keys"
        )
    return tuple(classes)


def _read_folder(config: TaskConfig) -> SegmentationTable:
    """Make a table of the images in data.train_images, whose masks are files."""
    folder = config.data.dir / config.data.train_images
    if not folder.is_dir():
        raise CompetitionError(f"{folder}: no such folder; format.train.keys is null, so it should hold the images")
    ids = ids_in(config.data, config.data.train_images, config.data.image_file)
    if not len(ids):
        raise CompetitionError(f"{folder}: holds no image named as data.image_file {config.data.image_file!r}")
    masks = MaskFiles.of(config, ids, _unnamed_classes(config))
    if config.data.absent_images == "ignore":
        ids = ids[[masks.has_file(index) for index in range(len(ids))]]
        masks = MaskFiles.of(config, ids, masks.classes)
    return SegmentationTable(ids, masks.classes, np.zeros(len(ids), dtype=np.int64), masks, NO_LINES)
