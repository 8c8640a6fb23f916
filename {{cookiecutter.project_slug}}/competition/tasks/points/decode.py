"""From stored heatmaps to the points that are handed in.

A prediction is `heatmap` (classes, h, w) float16, of the whole image whatever its size: a cell for `model.stride`
pixels that the network sees, with a stride of 4 a sixteenth of what a segmentation stores. Heatmaps of networks and
views are averaged, which peaks could not be without deciding which of them are the same point.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction, Target
from competition.tasks.maps import average_maps
from competition.tasks.points.peaks import apart, peaks
from competition.tasks.points.settings import PointsDecode, TaskConfig

NEAREST = 1.5  # cells between two peaks of a class: nearer ones are of one plateau


def average(
    predictions: Sequence[Prediction], config: TaskConfig, weights: Sequence[float] | None = None
) -> Prediction:
    """Average `heatmap` of several networks or views; those of another resolution are resized to the first's."""
    return {"heatmap": average_maps([one["heatmap"] for one in predictions], weights)}


def hands_in_decisions(config: TaskConfig) -> bool:
    """Return whether what is handed in is decided by thresholds, for which the scale of predictions matters."""
    return True


def unused_settings(config: TaskConfig) -> dict[str, str]:
    """Return the keys of `decode:` that nothing goes by, each with the reason: none."""
    return {}


def decode(prediction: Prediction, height: int, width: int, config: TaskConfig) -> Target:
    """Return `keypoints` (k, 2) float32 xy inside the image, `scores` (k,) and `labels` (k,), best first; coordinates
    have the decimals of the submission; `size`, too, where shares of it are handed in.

    Raises CompetitionError if `min_score` is a list of another length than the classes.
    """
    settings, heatmap = config.decode, prediction["heatmap"]
    least = _least_scores(settings, len(heatmap))
    cells, scores, labels = peaks(heatmap, float(least.min()))
    sure = scores >= least[labels]
    cells, scores, labels = cells[sure], scores[sure], labels[sure]
    own = apart(cells, labels, NEAREST)
    points = cells[own] * np.array([width, height]) / np.array(heatmap.shape[:0:-1])
    scores, labels = scores[own], labels[own]
    rivals = np.zeros_like(labels) if settings.class_agnostic else labels
    keep = apart(points, rivals, settings.min_distance)[: settings.max_points]
    decimals = config.format.submission.decimals
    written = np.clip(points[keep], 0, [width, height]).round(decimals)  # what is scored is what is handed in
    size = {"size": np.array([height, width])} if config.format.submits_shares else {}
    return {"keypoints": written.astype(np.float32), "scores": scores[keep], "labels": labels[keep], **size}


def _least_scores(settings: PointsDecode, num_classes: int) -> np.ndarray:
    least = np.array(settings.min_score, dtype=np.float32)
    if least.ndim and len(least) != num_classes:
        raise CompetitionError(
            f"decode.min_score: lists {len(least)} scores for {num_classes} classes; give one a class in the order of "
            "the classes, or a single one"
        )
    return np.broadcast_to(least, num_classes)


def difference(found: Prediction, stored: Prediction) -> float:
    """Return the largest difference between two heights: a point hangs on the few cells of its peak."""
    if found["heatmap"].shape != stored["heatmap"].shape:
        return 1.0
    return float(np.abs(found["heatmap"].astype(np.float32) - stored["heatmap"]).max(initial=0))


def unseen(prediction: Prediction, known: Iterable[Prediction]) -> Prediction:
    """Return a flat heatmap: no point."""
    return {"heatmap": np.zeros_like(prediction["heatmap"])}


def trial_predictions(num_classes: int, config: TaskConfig) -> Iterator[Prediction]:
    """Yield `heatmap` of no point, then of one of each class."""
    for one in range(-1, num_classes):
        heatmap = np.zeros((num_classes, 8, 8), dtype=np.float16)
        if one >= 0:
            heatmap[one, 2, 5] = 1
        yield {"heatmap": heatmap}
