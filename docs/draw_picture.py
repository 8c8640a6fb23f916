"""Draw docs/picture.png: a rendered repo, and what the first runs of the three tasks predict on their test images.

    python docs/draw_picture.py SEGMENTATION_REPO DETECTION_REPO CLASSIFICATION_REPO

Each is a rendered repo in which `competition sample` and `competition run` have ended.
"""

import csv
import sys
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

mpl.use("Agg")

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "{{cookiecutter.project_slug}}"))

from competition.tasks.segmentation.formats.rle import decode_rle  # noqa: E402

COLOURS = {"disk": "#ff5040", "square": "#40e060", "triangle": "#5080ff", "ring": "#ffd040"}
NUM_IMAGES = 5
SKIPPED = {"__pycache__", ".venv", "data", "outputs", ".git", "uv.lock", ".pytest_cache", ".ruff_cache", ".hypothesis"}


def submission(repo: Path, task: str) -> list[dict[str, str]]:
    with (repo / "outputs" / task / "submission.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read(repo: Path, image_id: str) -> np.ndarray:
    pixels = cv2.imread(str(repo / "data" / "test_images" / image_id))
    assert pixels is not None
    return pixels[:, :, ::-1].copy()


def draw_masks(axes: list[Axes], repo: Path) -> None:
    rows = [row for row in submission(repo, "segmentation") if row["rle"]]
    ids = list(dict.fromkeys(row["image_id"] for row in rows))[:NUM_IMAGES]
    for axis, image_id in zip(axes, ids, strict=True):
        image = read(repo, image_id)
        axis.imshow(image)
        for row in (row for row in rows if row["image_id"] == image_id):
            mask = decode_rle(row["rle"], *image.shape[:2])
            axis.contour(mask, levels=[0.5], colors=[COLOURS[row["class_id"]]], linewidths=2.5)


def draw_boxes(axes: list[Axes], repo: Path) -> None:
    rows = [row for row in submission(repo, "detection") if row["PredictionString"]][:NUM_IMAGES]
    for axis, row in zip(axes, rows, strict=True):
        axis.imshow(read(repo, row["image_id"]))
        words = row["PredictionString"].split()
        for i in range(0, len(words), 6):
            name, (score, x, y, w, h) = words[i], map(float, words[i + 1 : i + 6])
            if score >= 0.3:
                axis.add_patch(plt.Rectangle((x, y), w, h, fill=False, edgecolor=COLOURS[name], linewidth=2.5))
                axis.text(x, y - 2, f"{name} {score:.2f}", color=COLOURS[name], fontsize=8, weight="bold")


def draw_labels(axes: list[Axes], repo: Path) -> None:
    for axis, row in zip(axes, submission(repo, "classification")[:NUM_IMAGES], strict=True):
        axis.imshow(read(repo, row["image_id"]))
        name = max(COLOURS, key=lambda label: float(row[label]))
        axis.set_title(f"{name} {float(row[name]):.2f}", fontsize=9)


def tree(repo: Path) -> str:
    listed = sorted(p.relative_to(repo) for p in repo.rglob("*") if not SKIPPED & set(p.relative_to(repo).parts))
    lines = [f"{repo.name}/"]
    for path in listed:
        depth = len(path.parts)
        if path.parts[0] in ("tests", ".github") and depth > 1:
            continue
        lines.append("    " * depth + path.name + ("/" if (repo / path).is_dir() else ""))
    return "\n".join(lines)


def main(segmentation: Path, detection: Path, classification: Path) -> None:
    figure = plt.figure(figsize=(15, 8.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 3])
    text = tree(segmentation)
    left.text(0.02, 0.98, text, family="monospace", fontsize=7.6, va="top")
    grid = right.subplots(3, NUM_IMAGES)
    for axes, draw, repo in zip(
        grid, (draw_masks, draw_boxes, draw_labels), (segmentation, detection, classification), strict=True
    ):
        draw(list(axes), repo)
        for axis in axes:
            axis.set(xticks=[], yticks=[])
    for axes, title in zip(grid, ("segmentation", "detection", "classification"), strict=True):
        axes[0].set_ylabel(title, fontsize=12)
    target = ROOT / "docs" / "picture.png"
    figure.savefig(target, dpi=80)
    print(target)


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:4]))
