"""The plots of report.html. No torch."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from competition.config.settings import Config, with_decode
from competition.data.pictures import CLASS_COLORS
from competition.pages.gallery import Outcomes, affordable
from competition.pages.page import GREY, Picture, css_color, plot
from competition.scoring.out_of_fold import OutOfFold
from competition.support.errors import CompetitionError
from competition.support.progress import progress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THRESHOLDS = np.round(np.linspace(0.05, 0.95, 13), 3)
# Of images whose predictions are cut at every threshold; see affordable().
MOST_NUMBERS, FEWEST, MOST = 4_000_000, 100, 5000
MOST_CURVES, MOST_STEPS, MOST_WRITTEN, MOST_POINTS = 8, 400, 12, 2000
COLORS = [css_color(color) for color in CLASS_COLORS]
Rows = Sequence[Mapping[str, str]]


def learning_plots(metrics: Mapping[str, Rows]) -> list[Picture]:
    """Draw loss, scores and learning rate by epoch, a line a training."""
    names = [name for name in next(iter(metrics.values()))[0] if name.startswith("val/") and name != "val/loss"]
    panels = {"loss": ("train/loss", "val/loss"), **{name: (name,) for name in names}}
    panels["learning rate"] = ("learning_rate",)
    known = {name for rows in metrics.values() for row in rows for name, value in row.items() if value}
    return [_learning_plot(metrics, title, columns) for title, columns in panels.items() if known & set(columns)]


def _learning_plot(metrics: Mapping[str, Rows], title: str, columns: Sequence[str]) -> Picture:
    def draw(axes: "Axes") -> None:
        for number, (training, rows) in enumerate(metrics.items()):
            for column in columns:
                points = [(int(row["epoch"]), float(row[column])) for row in rows if row.get(column)]
                if not points:
                    continue  # foldall has no validation
                epochs, values = np.array(points, dtype=float).reshape(-1, 2).T
                line = (":", f"{training} train") if column == "train/loss" else ("-", training)
                color = COLORS[number % len(COLORS)]
                axes.plot(epochs, values, linestyle=line[0], label=line[1], color=color, marker=".")
        last = max(int(rows[-1]["epoch"]) for rows in metrics.values())
        axes.set(title=title, xlabel="epoch", xlim=(0.5, last + 0.5))
        axes.locator_params("x", integer=True)
        if len(axes.lines) <= 10:
            axes.legend(ncols=2)

    return plot(draw, f"Curves of {title} by epoch, of {', '.join(metrics)}")


def threshold_plots(config: Config, images: OutOfFold) -> tuple[list[str], list[Picture]]:
    """Draw the first metric against the threshold that one number sets for all classes; return words and plots."""
    names = images.task.outcome.threshold_names(config)
    if not names:
        return ["No curve, as no one number for all classes decides what is handed in."], []
    rows = affordable(images, MOST_NUMBERS, FEWEST, MOST)
    try:
        scores = [
            images.scores(with_decode(config, dict.fromkeys(names, float(threshold))), rows)
            for threshold in progress(THRESHOLDS, "thresholds")
        ]
    except CompetitionError as error:  # of a host's metric that needs all images
        return [f"No curve, as the metric cannot score single thresholds: {error}"], []
    metric = next(iter(scores[0]))
    values = [one[metric] for one in scores]
    given = [getattr(config.decode, name) for name in names]
    now = np.concatenate([np.atleast_1d(one).astype(float) for one in given if one is not None])
    name = " = ".join(names)

    def draw(axes: "Axes") -> None:
        axes.plot(THRESHOLDS, values, marker=".", color=COLORS[2], label="one for all classes")
        for number, value in enumerate(np.unique(now)):
            axes.axvline(value, color=GREY, linestyle="--", linewidth=1, label=None if number else "as it is set")
        axes.set(title=f"{metric} against {name}", xlabel=f"decode.{name}")
        axes.legend()

    sampled = "" if len(rows) == len(images) else ", drawn by chance"
    words = f"On {len(rows)} of {len(images)} out-of-fold images of all folds together{sampled}."
    best = int(np.argmax([images.merit((metric, value)) for value in values]))
    alt = f"Curve of {metric} against {name}, best {values[best]:.4f} at {THRESHOLDS[best]:g}"
    return [words, f"Best of the curve: {metric} {values[best]:.4f} at {name} {THRESHOLDS[best]:g}."], [plot(draw, alt)]


def answer_plots(outcomes: Outcomes) -> list[Picture]:
    """Draw what suits the answers: a confusion matrix, numbers against the truth, or precision by recall."""
    pairs = [one.pair for one in outcomes.each if one.pair is not None]
    if not pairs:
        return [_precision_recall(outcomes)]
    if isinstance(pairs[0][0], float):
        return [_scatter(np.array(pairs))]
    return [_confusion(np.array(pairs), outcomes.images.table.classes)]


def confusion_counts(pairs: np.ndarray, num_classes: int) -> np.ndarray:
    """Return (classes, classes): how many images of each true class (row) were given each class (column)."""
    flat = np.bincount(pairs[:, 0] * num_classes + pairs[:, 1], minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def _confusion(pairs: np.ndarray, classes: Sequence[str]) -> Picture:
    present = np.unique(pairs)
    order = present[np.argsort(-np.bincount(pairs[:, 0], minlength=len(classes))[present], kind="stable")]
    shown = np.sort(order[: MOST_CURVES * 4])
    counts = confusion_counts(pairs[np.isin(pairs, shown).all(axis=1)], len(classes))[np.ix_(shown, shown)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(axes: "Axes") -> None:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        names = [classes[k] for k in shown]
        axes.set(xticks=range(len(shown)), yticks=range(len(shown)), yticklabels=names)
        axes.set_xticklabels(names, rotation=90 if max(map(len, names)) * len(names) > 40 else 0)
        axes.set(title="confusion matrix", xlabel="prediction", ylabel="truth")
        if len(shown) <= MOST_WRITTEN:
            for (i, j), count in np.ndenumerate(counts):
                axes.text(j, i, str(count), ha="center", va="center", color="white" if shares[i, j] > 0.5 else "#333")

    left = 0.6 + 0.075 * max(len(classes[k]) for k in shown)
    right = f"{np.trace(counts)} of {counts.sum()} right"
    return plot(
        draw, f"Confusion matrix of {len(shown)} classes, {right}", height=min(6, 1.7 + 0.3 * len(shown)), left=left
    )


def _scatter(pairs: np.ndarray) -> Picture:
    some = pairs[np.random.default_rng(0).permutation(len(pairs))[:MOST_POINTS]]

    def draw(axes: "Axes") -> None:
        axes.scatter(*some.T, s=8, alpha=0.5, color=COLORS[2], linewidths=0, rasterized=True)
        ends = [some.min(), some.max()]
        axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1)
        axes.set(title="prediction against truth", xlabel="truth", ylabel="prediction")

    correlation = np.corrcoef(pairs.T)[0, 1] if pairs.std(axis=0).min() > 0 else float("nan")
    return plot(draw, f"Points of prediction against truth, correlation {correlation:.3f}", height=3.2)


def precision_recall(confidences: np.ndarray, hits: np.ndarray, num_true: int) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision (k,) at each right claim, the surest first, of which `hits` tell the right ones."""
    places = np.flatnonzero(hits[np.argsort(-confidences, kind="stable")])
    right = np.arange(1, len(places) + 1)
    return right / max(num_true, 1), right / (places + 1)


def _precision_recall(outcomes: Outcomes) -> Picture:
    labels, confidences, hits = (
        np.concatenate([getattr(one, name) for one in outcomes.each]) for name in ("labels", "confidences", "hits")
    )
    num_true = np.sum([one.num_true for one in outcomes.each], axis=0)
    shown = [k for k in np.argsort(-num_true, kind="stable")[:MOST_CURVES].tolist() if num_true[k]]
    areas: list[str] = []

    def draw(axes: "Axes") -> None:
        for k in shown:
            inside = labels == k
            recall, precision = precision_recall(confidences[inside], hits[inside], int(num_true[k]))
            area = float(precision.sum() / num_true[k])
            areas.append(f"{outcomes.images.table.classes[k]} {area:.3f}")
            thin = np.unique(np.linspace(0, max(len(recall) - 1, 0), MOST_STEPS).astype(int))[: len(recall)]
            axes.plot(recall[thin], precision[thin], color=COLORS[k % len(COLORS)], label=areas[-1])
        axes.set(title="precision by recall", xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.05))
        if shown:
            axes.legend(title="area")

    classes = [outcomes.images.table.classes[k] for k in shown]
    return plot(draw, f"Curves of precision by recall of {', '.join(classes) or 'no class'}", height=3.2)
