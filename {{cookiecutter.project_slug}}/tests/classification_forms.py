"""What a classification is scored as beside one label an image: for exactness.py."""

import csv
from pathlib import Path
from typing import Any

from competition.support.atomic_files import write_csv

FORMS: dict[str, dict[str, Any]] = {
    "several labels of groups of images": {
        "data": {"train_csv": "labels.csv"},
        "format": {
            "target": "multi",
            "train": {"layout": "label_string", "column": "labels"},
            "none": "none",
            "class_weights": {"disk": 2.0},
            "group": "{patient}",
        },
    },
    "numbers": {
        "data": {"train_csv": "numbers.csv"},
        "format": {"target": "regression", "train": {"layout": "columns"}, "bounds": [0, 4]},
    },
    "best classes": {"format": {"submission": {"layout": "top", "top": 3}}},
}
LABELS = {"disk": "disk", "ring": "disk ring", "square": "square", "triangle": "none"}


def write_tables(data: Path) -> None:
    """Write, beside train.csv, the answers of its images as several labels, with two images a patient, and as two
    numbers."""
    with (data / "train.csv").open(newline="") as file:
        rows = [(row["image_id"], row["label"]) for row in csv.DictReader(file)]
    patients = [f"patient {number // 2}" for number in range(len(rows))]
    labels = ((name, LABELS[label], patient) for (name, label), patient in zip(rows, patients, strict=True))
    write_csv(data / "labels.csv", ["image_id", "labels", "patient"], labels)
    order = list(LABELS)
    numbers = ((name, order.index(label) + 0.25, 3 - order.index(label)) for name, label in rows)
    write_csv(data / "numbers.csv", ["image_id", "amount", "rest"], numbers)
