"""From stored boxes to the boxes that are handed in.

A prediction is `boxes` (k, 4) float32 xyxy in pixels of the original image, `scores` (k,) float32, `labels` (k,) int64,
`model` (k,) int16, which says who found a box, and `model_weights` (m,) float32, an entry for each network and view:
its share of a mean. An average of runs has `model_trust` (m,) float32, too, by which scores are multiplied before the
better of two boxes stays: 1 for all networks and views of the weightiest run, however many they are. Of networks with a
head of the image it has `presence` (classes,), too, see presence.py.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction, Target
from competition.tasks.detection.boxes import box_iou, fuse, in_units, soft_suppress, suppress
from competition.tasks.detection.settings import MOST_DETECTIONS, DetectionDecode, TaskConfig
from competition.tasks.presence import (
    PRESENCE,
    average_presence,
    is_present,
    join_presence,
    presence_apart,
    presence_for,
)

OF_BOXES = ("boxes", "scores", "labels", "model")


def average(
    predictions: Sequence[Prediction], config: TaskConfig, weights: Sequence[float] | None = None
) -> Prediction:
    """Put the boxes of several networks or views together, with who said them; `decode` joins those that overlap.

    A prediction that is an average already counts by its own weight, however many networks it is of.
    """
    shares = np.ones(len(predictions)) if weights is None else np.asarray(weights, dtype=np.float64)
    models, model_weights, trust, start = [], [], [], 0
    for share, prediction in zip(shares, predictions, strict=True):
        own = prediction["model_weights"]
        models.append(prediction["model"] + np.int16(start))
        model_weights.append(share * own / own.sum())
        trust.append(share / shares.max() * _trust(prediction))
        start += len(own)
    return {
        **{key: np.concatenate([p[key] for p in predictions]) for key in OF_BOXES if key != "model"},
        "model": np.concatenate(models),
        "model_weights": np.concatenate(model_weights).astype(np.float32),
        "model_trust": np.concatenate(trust).astype(np.float32),
        # An average of runs is decoded by the first one's config: without a head there, nothing goes by it.
        **(average_presence(predictions, weights) if config.loss.auxiliary else {}),
    }


def _trust(prediction: Prediction) -> np.ndarray:
    return prediction.get("model_trust", np.ones_like(prediction["model_weights"]))


def shift_boxes(prediction: Prediction, x: float, y: float) -> Prediction:
    """Move boxes to the right and down: from a window at (x, y) to the whole image."""
    return {**prediction, "boxes": prediction["boxes"] + np.array([x, y, x, y], dtype=np.float32)}


def join_windows(windows: Sequence[Prediction]) -> Prediction:
    """Put the boxes that the same networks found in windows of an image together, shifted to the image already.

    Unlike in an average, a box does not lose score because only one window shows it.
    """
    boxes = {key: np.concatenate([window[key] for window in windows]) for key in OF_BOXES}
    return windows[0] | boxes | join_presence(windows)


def hands_in_decisions(config: TaskConfig) -> bool:
    """Return whether what is handed in is decided by thresholds, for which the scale of predictions matters."""
    return True


def unused_settings(config: TaskConfig) -> dict[str, str]:
    """Return the keys of `decode:` that nothing goes by, each with the reason: none."""
    return {}


def decode(prediction: Prediction, height: int, width: int, config: TaskConfig) -> Target:
    """Return `bboxes` (k, 4) float32 xyxy inside the image, `scores` (k,) and `labels` (k,), best first; corners have
    the decimals of the submission; `size`, too, where shares of it are handed in.

    Raises CompetitionError if `min_score` is a list that is too short for the classes.
    """
    settings = config.decode
    prediction = _by_presence(prediction, settings)
    boxes = np.clip(prediction["boxes"], 0, np.array([width, height, width, height], dtype=np.float32))
    # What is thinner than the last digit of the submission is no box there.
    good = (boxes[:, 2:] - boxes[:, :2] >= 10.0**-config.format.submission.decimals).all(1)
    if settings.join not in ("wbf", "none"):  # only to save time: boxes under the cut take nothing from those over it
        good &= prediction["scores"] >= np.min(settings.min_score)
    candidates = {"boxes": boxes[good], **{key: prediction[key][good] for key in OF_BOXES[1:]}}
    boxes, scores, labels = _join(candidates, prediction["model_weights"], _trust(prediction), settings)
    keep = np.flatnonzero(scores >= _least_scores(settings, labels))[: settings.max_boxes]
    decimals = config.format.submission.decimals
    written = in_units(boxes[keep], decimals) / 10**decimals  # what is scored is what is handed in
    size = {"size": np.array([height, width])} if config.format.submits_shares else {}
    return {"bboxes": written.astype(np.float32), "scores": scores[keep], "labels": labels[keep], **size}


def _by_presence(prediction: Prediction, settings: DetectionDecode) -> Prediction:
    """Return a prediction without the boxes of classes that the head of the image denies, with the scores that it
    leaves the others, where `settings` ask for it."""
    labels = prediction["labels"]
    if settings.scale_by_presence:
        shares = presence_for(prediction, "scale_by_presence", value=True)
        prediction = {**prediction, "scores": prediction["scores"] * shares[labels]}
    if (has_class := is_present(prediction, settings.presence_threshold)) is not None:
        prediction = {**prediction, **{key: prediction[key][has_class[labels]] for key in OF_BOXES}}
    return prediction


def difference(found: Prediction, stored: Prediction) -> float:
    """Return the largest difference of score between a box of one and its like in the other (same class and model,
    IoU of at least 0.5). A box without its like counts by its score, or by how far it is over the lowest of the other
    list where that was cut. What a head says of the image counts as scores do."""
    return max(_unlike(found, stored), _unlike(stored, found), presence_apart(found, stored))


def _unlike(boxes: Prediction, others: Prediction) -> float:
    lowest = {model: _lowest_score(others, model) for model in np.unique(boxes["model"]).tolist()}
    # `decode` drops boxes without an area, which lie beyond the border, and they are like no box.
    has_area = np.all(boxes["boxes"][:, 2:] > boxes["boxes"][:, :2], axis=1)
    worst = 0.0
    for box, score, label, model in zip(*(boxes[key][has_area] for key in OF_BOXES), strict=True):
        same = (others["labels"] == label) & (others["model"] == model)
        same[same] = box_iou(box[None], others["boxes"][same])[0] >= 0.5
        gaps = np.abs(others["scores"][same] - score)
        worst = max(worst, float(gaps.min()) if len(gaps) else float(score) - lowest[int(model)])
    return worst


def _lowest_score(prediction: Prediction, model: int) -> float:
    """Return the score that a box of a model needed to be in the list; a list that was not cut takes any."""
    scores = prediction["scores"][prediction["model"] == model]
    return float(scores.min()) if len(scores) >= MOST_DETECTIONS else 0.0


def trial_predictions(num_classes: int, config: TaskConfig) -> Iterator[Prediction]:
    """Yield no box, then one of each class."""
    for labels in [[], *([one] for one in range(num_classes))]:
        yield {
            "boxes": np.array([[1, 2, 30, 40]] * len(labels), dtype=np.float32).reshape(-1, 4),
            "scores": np.ones(len(labels), dtype=np.float32),
            "labels": np.array(labels, dtype=np.int64),
            "model": np.zeros(len(labels), dtype=np.int16),
            "model_weights": np.ones(1, dtype=np.float32),
            **({PRESENCE: np.isin(range(num_classes), labels).astype(np.float32)} if config.loss.auxiliary else {}),
        }


def unseen(prediction: Prediction, known: Iterable[Prediction]) -> Prediction:
    """Return no box, and an image that has nothing."""
    nothing = {key: np.zeros_like(prediction[key]) for key in (PRESENCE,) if key in prediction}
    return {**prediction, **{key: prediction[key][:0] for key in OF_BOXES}, **nothing}


def _join(
    found: Prediction, weights: np.ndarray, trust: np.ndarray, settings: DetectionDecode
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, scores and labels, best first, after what overlaps has been joined."""
    boxes, labels, model = found["boxes"], found["labels"], found["model"]
    rivals = np.zeros_like(labels) if settings.class_agnostic else labels
    if settings.join == "none" and len(weights) == 1:
        order = np.argsort(-found["scores"], kind="stable")
        return boxes[order], found["scores"][order], labels[order]
    if settings.join in ("wbf", "none"):
        # A network's own repetitions would drag the mean score of their cluster down.
        own = suppress(boxes, found["scores"], rivals * len(weights) + model, settings.iou)
        if len(weights) == 1:  # no other to average with
            return boxes[own], found["scores"][own], labels[own]
        fused = fuse(boxes[own], found["scores"][own], labels[own], model[own], weights, settings.iou)
        keep = suppress(fused[0], fused[1], fused[2] * 0, settings.iou) if settings.class_agnostic else slice(None)
        return fused[0][keep], fused[1][keep], fused[2][keep]
    scores = found["scores"] * trust[model]
    if settings.join == "soft_nms":
        order, scores = soft_suppress(boxes, scores, rivals, settings.iou)
        return boxes[order], scores, labels[order]
    keep = suppress(boxes, scores, rivals, settings.iou)
    return boxes[keep], scores[keep], labels[keep]


def _least_scores(settings: DetectionDecode, labels: np.ndarray) -> np.ndarray | float:
    if not isinstance(settings.min_score, list):
        return settings.min_score
    if len(labels) and labels.max() >= len(settings.min_score):
        raise CompetitionError(
            f"decode.min_score: lists {len(settings.min_score)} scores, but class number {labels.max()} (from 0) was "
            "found; give one a class in the order of the classes, or a single one"
        )
    return np.array(settings.min_score, dtype=np.float32)[labels]
