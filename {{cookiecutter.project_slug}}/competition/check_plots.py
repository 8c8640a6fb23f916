"""The plots of check.html. No torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from competition.page import Picture, plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 30
NUM_BINS = 30
TRAIN, TEST = "#4493f8", "#f0883e"


def class_plot(classes: Sequence[str], counts: np.ndarray, what: str = "images") -> Picture:
    """Draw a bar a class, the commonest ones where there are many."""
    order = np.argsort(-counts, kind="stable")[:MOST_BARS]
    more = f", the commonest {MOST_BARS} of {len(counts)} classes" if len(counts) > MOST_BARS else ""

    def draw(axes: "Axes") -> None:
        names = [_short(classes[k]) for k in order]
        bars = axes.barh(range(len(order)), counts[order], color=TRAIN)
        axes.bar_label(bars, padding=2, fontsize=8)
        axes.set(yticks=range(len(order)), yticklabels=names, title=f"{what} by class{more}")
        axes.locator_params("x", integer=True)
        axes.invert_yaxis()
        axes.margins(x=0.12)

    left = 0.3 + 0.075 * max(len(_short(classes[k])) for k in order)
    said = ", ".join(f"{classes[k]} {counts[k]}" for k in order[:6])
    return plot(draw, f"Bars: {what} by class{more}: {said}", height=1.0 + 0.2 * len(order), left=left)


def histogram(values: np.ndarray, name: str, limits: tuple[float, float] | None = None) -> Picture:
    """Draw the distribution of values (n,)."""
    return plot(lambda axes: _draw_histogram(axes, {"train": values}, name, limits), f"Histogram: {name}")


def histograms(train: np.ndarray, test: np.ndarray, name: str) -> Picture:
    """Draw the distributions of training and test images over each other, both with the same area."""
    values = {"train": train, "test": test} if len(test) else {"train": train}
    return plot(lambda axes: _draw_histogram(axes, values, name, None), f"Histograms of train and test: {name}")


def _draw_histogram(axes: "Axes", values: dict[str, np.ndarray], name: str, limits: tuple[float, float] | None) -> None:
    together = np.concatenate(list(values.values())).astype(np.float64)
    low, high = limits or (float(together.min()), float(together.max()))
    if limits is None and high - low < 1e-6 * max(abs(high), 1):  # all are the same
        low, high = low - max(abs(low), 1) * 0.05, high + max(abs(high), 1) * 0.05
    is_counted = bool((together == np.rint(together)).all()) and high - low <= NUM_BINS
    edges = np.arange(np.floor(low), np.ceil(high) + 2) - 0.5 if is_counted else np.linspace(low, high, NUM_BINS + 1)
    for (label, some), color in zip(values.items(), (TRAIN, TEST), strict=False):
        shares = 100 * np.histogram(some, edges)[0] / len(some)
        axes.stairs(shares, edges, fill=True, label=label, color=color, alpha=0.55)
        axes.stairs(shares, edges, color=color)
    axes.set_title(name, loc="left" if len(values) > 1 else "center")
    axes.set_ylabel("%")
    if is_counted:
        axes.locator_params("x", integer=True)
    if len(values) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)


def _short(name: str, longest: int = 22) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
