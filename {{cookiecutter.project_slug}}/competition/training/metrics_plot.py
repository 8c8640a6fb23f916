"""`python -m competition.training.metrics_plot metrics.csv`: draw loss, score and learning rate by epoch. No torch."""

import csv
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # no window, no display needed

from matplotlib import pyplot as plt

from competition.support.atomic_files import replacing


def draw_metrics(path: Path) -> Path:
    """Draw metrics.csv into metrics.png beside it."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])
    panels = {
        "loss": [name for name in names if name in ("train/loss", "val/loss")],
        "score": [name for name in names if name.startswith("val/") and name != "val/loss"],
        "learning rate": ["learning_rate"],
    }
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for axis, (title, columns) in zip(axes, panels.items(), strict=True):
        for column in columns:
            points = [(int(row["epoch"]), float(row[column])) for row in rows if row[column]]
            if points:
                axis.plot(*zip(*points, strict=True), marker=".", label=column)
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    target = path.with_suffix(".png")
    with replacing(target) as temporary:
        figure.savefig(temporary, format="png", dpi=90)
    return target


if __name__ == "__main__":
    draw_metrics(Path(sys.argv[1]))
