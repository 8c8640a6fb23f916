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
    "several targets": {
        "data": {"train_csv": "several.csv"},
        "format": {
            "targets": {
                "shape": {"metric": "macro_recall", "score_weight": 2, "hand_in": "label"},
                "edges": {"target": "multi", "columns": ["round", "hollow"], "unknown": [""]},
                "corners": {"unknown": [""], "metric": "roc_auc"},
                "amount": {"target": "regression", "bounds": [0, 4], "submit": False},
            }
        },
    },
    "best classes": {"format": {"submission": {"layout": "top", "top": 3}}},
}
LABELS = {"disk": "disk", "ring": "disk ring", "square": "square", "triangle": "none"}


def write_tables(data: Path) -> None:
    """Write, beside train.csv, the answers of its images as several labels, with two images a patient, as two
    numbers, and as several targets, some of them unknown."""
    with (data / "train.csv").open(newline="") as file:
        rows = [(row["image_id"], row["label"]) for row in csv.DictReader(file)]
    patients = [f"patient {number // 2}" for number in range(len(rows))]
    labels = ((name, LABELS[label], patient) for (name, label), patient in zip(rows, patients, strict=True))
    write_csv(data / "labels.csv", ["image_id", "labels", "patient"], labels)
    order = list(LABELS)
    numbers = [(name, order.index(label) + 0.25, 3 - order.index(label)) for name, label in rows]
    several = []
    for number, (name, label) in enumerate(rows):
        is_round, is_hollow = int(label in ("disk", "ring")), int(label == "ring")
        corners = "" if number % 3 == 1 else "some" if label in ("square", "triangle") else "none"
        hollow = "" if number % 5 == 2 else is_hollow
        several.append((name, label, is_round, hollow, corners, order.index(label) + 0.25))
    write_csv(data / "several.csv", ["image_id", "shape", "round", "hollow", "corners", "amount"], several)
    write_csv(data / "numbers.csv", ["image_id", "amount", "rest"], numbers)
