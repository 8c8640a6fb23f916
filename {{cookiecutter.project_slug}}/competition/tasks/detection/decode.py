"""From stored boxes to the boxes that are handed in."""

from collections.abc import Sequence

import numpy as np

from competition.task import Prediction, Target
from competition.tasks.detection.settings import TaskConfig


def average(
    predictions: Sequence[Prediction], config: TaskConfig, weights: Sequence[float] | None = None
) -> Prediction:
    """Join the boxes of several networks; where they overlap, `decode` keeps the best."""
    return {key: np.concatenate([p[key] for p in predictions]) for key in predictions[0]}


def decode(prediction: Prediction, height: int, width: int, config: TaskConfig) -> Target:
    """Return `bboxes` (k, 4) float32 xyxy inside the image, `scores` (k,) and `labels` (k,), best first."""
    settings = config.decode
    boxes = np.clip(prediction["boxes"], 0, np.array([width, height, width, height], dtype=np.float32))
    has_area = (boxes[:, 2:] - boxes[:, :2] >= 0.01).all(1)  # the submission has two decimals
    good = has_area & (prediction["scores"] >= settings.min_score)
    boxes, scores, labels = boxes[good], prediction["scores"][good], prediction["labels"][good]
    keep = suppress(boxes, scores, labels, settings.nms_iou)[: settings.max_boxes]
    return {"bboxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}


def suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, max_iou: float) -> np.ndarray:
    """Return the numbers of the boxes that stay, best first: no two of a label overlap by more than `max_iou`."""
    order = np.argsort(-scores, kind="stable")
    same_label = labels[order][:, None] == labels[order][None, :]
    overlap = (box_iou(boxes[order], boxes[order]) > max_iou) & same_label
    alive = np.ones(len(order), dtype=bool)
    for i in range(len(order)):
        if alive[i]:
            alive[i + 1 :] &= ~overlap[i, i + 1 :]
    return order[alive]


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (n, m) intersection over union of xyxy boxes (n, 4) and (m, 4)."""
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    opposite = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.clip(opposite - corner, 0, None).prod(-1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    return overlap / np.maximum(areas[0][:, None] + areas[1][None, :] - overlap, 1e-9)
