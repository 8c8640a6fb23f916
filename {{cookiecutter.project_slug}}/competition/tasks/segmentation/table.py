"""train.csv of a segmentation competition: `image_id,class_id,rle`, a row per image and class.

An image without any mask has rows with an empty `rle` (or an empty `class_id` too); a class that has no row for an
image is empty there; several rows of an image and class are united.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from competition.csv_file import group_by_image, line, read_csv, resolve_classes, row_faults
from competition.errors import CompetitionError
from competition.settings import Config
from competition.task import Target
from competition.tasks.segmentation.rle import decode_rle

COLUMNS = ("image_id", "class_id", "rle")


@dataclass(frozen=True)
class SegmentationTable:
    """Masks as run lengths; rows of image i are `order[starts[i]:starts[i + 1]]`."""

    path: Path
    image_ids: np.ndarray
    classes: tuple[str, ...]
    lines: np.ndarray
    order: np.ndarray  # (rows,) row numbers sorted by image
    starts: np.ndarray  # (n + 1,)
    row_class: np.ndarray  # (rows,) class number, -1 where the row has none
    rle: pd.Series  # (rows,)

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `mask`: (height, width, classes) uint8 of 0 and 1."""
        mask = np.zeros((height, width, len(self.classes)), dtype=np.uint8)
        for row in self.order[self.starts[index] : self.starts[index + 1]]:
            text = self.rle.iloc[row]
            if not text:
                continue
            try:
                mask[:, :, self.row_class[row]] |= decode_rle(text, height, width)
            except ValueError as error:
                raise CompetitionError(f"{self.path}: line {line(int(self.rle.index[row]))}: rle: {error}") from None
        return {"mask": mask}

    def present(self) -> np.ndarray:
        """Return (n, classes) bool: which classes an image has a mask of."""
        present = np.zeros((len(self.image_ids), len(self.classes)), dtype=bool)
        image = np.repeat(np.arange(len(self.image_ids)), np.diff(self.starts))
        rows = self.order
        filled = (self.rle != "").to_numpy()[rows]
        present[image[filled], self.row_class[rows][filled]] = True
        return present

    def strata(self) -> np.ndarray:
        """Code images by which classes they have a mask of."""
        present = self.present()
        if present.shape[1] > 62:  # more than fit an integer: by their number
            return present.sum(1)
        return present @ (1 << np.arange(present.shape[1], dtype=np.int64))

    def amounts(self) -> np.ndarray:
        """Count the pixels of an image's masks."""
        lengths = self.rle.map(lambda text: sum(map(int, text.split()[1::2]))).to_numpy()
        image = np.repeat(np.arange(len(self.image_ids)), np.diff(self.starts))
        return np.bincount(image, weights=lengths[self.order], minlength=len(self.image_ids))

    def summary(self) -> list[str]:
        """Count masks by class, and images without any."""
        present = self.present()
        counts = ", ".join(f"{name} {count}" for name, count in zip(self.classes, present.sum(0), strict=True))
        return [f"masks: {counts}", f"images without any mask: {(~present.any(1)).sum()} of {len(present)}"]


def read_table(config: Config, path: Path | None = None) -> SegmentationTable:
    """Read train.csv; raise CompetitionError with a line per fault."""
    path = path or config.train_csv
    frame = read_csv(path, COLUMNS)
    frame["rle"] = frame["rle"].str.strip()
    faults = row_faults(
        path, np.flatnonzero(frame["image_id"] == ""), frame["rle"], "image_id is empty", show_found=False
    )
    classes, unknown = resolve_classes(frame["class_id"], config.data.classes, path)
    nameless = np.flatnonzero((frame["class_id"] == "") & (frame["rle"] != ""))
    faults += unknown + row_faults(
        path, nameless, frame["rle"], "a mask without a class_id; name its class", show_found=False
    )
    if not classes:
        faults.append(f"{path}: no row has a class_id; name the classes there or in data.classes")
    if faults:
        raise CompetitionError("\n".join(faults))
    codes, first = group_by_image(frame["image_id"])
    return SegmentationTable(
        path=path,
        image_ids=frame["image_id"].to_numpy(dtype=object)[first],
        classes=classes,
        lines=line(frame.index.to_numpy()[first]),
        order=np.argsort(codes, kind="stable"),
        starts=np.concatenate([[0], np.cumsum(np.bincount(codes))]),
        row_class=pd.Index(classes).get_indexer(pd.Index(frame["class_id"])),
        rle=frame["rle"],
    )
