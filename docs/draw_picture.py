"""Draw docs/picture.png: the rooms of a rendered repo, and what the first runs of three tasks predict.

    python docs/draw_picture.py SEGMENTATION_REPO DETECTION_REPO CLASSIFICATION_REPO [PICTURE]

Each is a rendered repo in which `competition sample` and `competition run` have ended. Rooms and what they are for are
those of the first repo's folders and of the map in its README.
"""

import csv
import re
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
NUM_IMAGES, SHOWN = 4, 0.3
# With configs/trainer/, the four parts that this template joins.
KEPT_FILES = ("sampling/sampler.py", "training/logger.py", "training/checkpoint.py")
MAPPED = re.compile(r"^\| `(?:competition/)?(\w+)/` \| (.+?) \|$", re.MULTILINE)


def submission(repo: Path, task: str) -> list[dict[str, str]]:
    with (repo / "outputs" / task / "submission.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read(repo: Path, image_id: str) -> np.ndarray:
    pixels = cv2.imread(str(repo / "data" / "test_images" / image_id))
    assert pixels is not None
    return pixels[:, :, ::-1].copy()


def draw_masks(axes: list[Axes], repo: Path) -> None:
    rows = [row for row in submission(repo, "segmentation") if row["rle"]]
    ids = list(dict.fromkeys(row["image_id"] for row in rows))
    for axis, image_id in zip(axes, ids, strict=False):
        image = read(repo, image_id)
        axis.imshow(image)
        for row in (row for row in rows if row["image_id"] == image_id):
            mask = decode_rle(row["rle"], *image.shape[:2])
            axis.contour(mask, levels=[0.5], colors=[COLOURS[row["class_id"]]], linewidths=2.5)


def boxes(text: str) -> list[tuple[str, float, tuple[float, ...]]]:
    """Return class, confidence and x, y, w, h of each box that one would show: the surest first."""
    words = text.split()
    found = [(words[i], *map(float, words[i + 1 : i + 6])) for i in range(0, len(words), 6)]
    return sorted(((name, score, place) for name, score, *place in found if score >= SHOWN), key=lambda box: -box[1])


def draw_boxes(axes: list[Axes], repo: Path) -> None:
    found = {row["image_id"]: boxes(row["PredictionString"]) for row in submission(repo, "detection")}
    for axis, image_id in zip(axes, (image_id for image_id, of_image in found.items() if of_image), strict=False):
        axis.imshow(read(repo, image_id))
        for name, score, (x, y, w, h) in found[image_id]:
            axis.add_patch(plt.Rectangle((x, y), w, h, fill=False, edgecolor=COLOURS[name], linewidth=2.5))
            axis.text(x, y - 2, f"{name} {score:.2f}", color=COLOURS[name], fontsize=8, weight="bold", clip_on=True)


def draw_labels(axes: list[Axes], repo: Path) -> None:
    for axis, row in zip(axes, submission(repo, "classification"), strict=False):
        axis.imshow(read(repo, row["image_id"]))
        name = max(COLOURS, key=lambda label: float(row[label]))
        axis.set_title(f"{name} {float(row[name]):.2f}", fontsize=9)


def purposes(repo: Path) -> dict[str, str]:
    """Return what each room is for, up to the first colon or semicolon, in the order of the README's map."""
    text = (repo / "README.md").read_text(encoding="utf-8").partition("## The house")[2].partition("\n## ")[0]
    return {name: re.split("[:;]", line)[0].replace("`", "") for name, line in MAPPED.findall(text)}


def tree(repo: Path) -> str:
    """Return the repo's rooms, a line each, with the few files that one looks for first."""
    package, of = repo / "competition", purposes(repo)
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").is_file()}
    lines = [f"{repo.name}/", entry("├── configs/", of["configs"]), "├── competition/"]
    for room in sorted(rooms, key=list(of).index):
        lines.append(entry(f"│   ├── {room}/", of[room]))
        files = [name.partition("/")[2] for name in KEPT_FILES if name.startswith(f"{room}/")]
        folders = sorted(f"{path.parent.name}/" for path in (package / "tasks").glob("*/__init__.py"))
        lines += [f"│   │   ├── {name}" for name in (folders if room == "tasks" else files)]
    return "\n".join([*lines, entry("├── tests/", "the same folders"), *(f"├── {name}" for name in shown_files(repo))])


def entry(name: str, purpose: str) -> str:
    return f"{name:<28}{purpose}"


def shown_files(repo: Path) -> list[str]:
    return sorted(path.name for path in repo.iterdir() if path.is_file() and path.suffix in {".md", ".toml"})


def main(
    segmentation: Path, detection: Path, classification: Path, picture: Path = ROOT / "docs" / "picture.png"
) -> None:
    """Draw the picture; print the tree that stands in it."""
    text = tree(segmentation)
    figure = plt.figure(figsize=(15, 6.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
    left.text(0.01, 0.98, text, family="monospace", fontsize=9, va="top", linespacing=1.35)
    grid = right.subplots(3, NUM_IMAGES)
    rows = ((draw_masks, segmentation), (draw_boxes, detection), (draw_labels, classification))
    for axes, (draw, repo), title in zip(grid, rows, ("segmentation", "detection", "classification"), strict=True):
        draw(list(axes), repo)
        axes[0].set_ylabel(title, fontsize=11)
        for axis in axes:
            axis.set(xticks=[], yticks=[])
    figure.savefig(picture, dpi=80)
    print(text)


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:5]))
