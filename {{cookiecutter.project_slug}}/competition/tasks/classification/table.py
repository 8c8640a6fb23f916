"""train.csv of a classification competition: `image_id,label`, a row per image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from competition.csv_file import line, read_csv, resolve_classes, row_faults
from competition.errors import CompetitionError
from competition.settings import Config
from competition.task import Target

COLUMNS = ("image_id", "label")


@dataclass(frozen=True)
class ClassificationTable:
    """One label an image."""

    image_ids: np.ndarray
    classes: tuple[str, ...]
    lines: np.ndarray
    labels: np.ndarray  # (n,) int64

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `label`, the number of the class."""
        return {"label": int(self.labels[index])}

    def present(self) -> np.ndarray:
        """Return (n, classes) bool: the label of each image."""
        return self.labels[:, None] == np.arange(len(self.classes))

    def strata(self) -> np.ndarray:
        """Code images by their label."""
        return self.labels

    def amounts(self) -> np.ndarray:
        """Return the labels as numbers."""
        return self.labels.astype(np.float64)

    def summary(self) -> list[str]:
        """Count images by class."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return ["images: " + ", ".join(f"{name} {count}" for name, count in zip(self.classes, counts, strict=True))]


def read_table(config: Config, path: Path | None = None) -> ClassificationTable:
    """Read train.csv; raise CompetitionError with a line per fault."""
    path = path or config.train_csv
    frame = read_csv(path, COLUMNS)
    ids, labels = frame["image_id"], frame["label"]
    faults = row_faults(path, np.flatnonzero(ids == ""), ids, "image_id is empty", show_found=False)
    faults += row_faults(path, np.flatnonzero(ids.duplicated()), ids, "a second row of this image; expected one")
    faults += row_faults(path, np.flatnonzero(labels == ""), ids, "this image has no label")
    classes, unknown = resolve_classes(labels, config.data.classes, path)
    if faults + unknown:
        raise CompetitionError("\n".join(faults + unknown))
    return ClassificationTable(
        image_ids=ids.to_numpy(dtype=object),
        classes=classes,
        lines=line(frame.index.to_numpy()),
        labels=pd.Index(classes).get_indexer(pd.Index(labels)).astype(np.int64),
    )
