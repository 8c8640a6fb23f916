"""What becomes of boxes that overlap: they are left out, lose score, or are averaged. In numpy, no torch."""

from typing import Any

import cv2
import numpy as np


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (n, m) intersection over union of xyxy boxes (n, 4) and (m, 4)."""
    # Side by side in planes, and in place: several times faster than on (n, m, 2) arrays.
    left, top, right, bottom = first.T[:, :, None]
    other_left, other_top, other_right, other_bottom = second.T[:, None, :]
    overlap = np.minimum(right, other_right) - np.maximum(left, other_left)
    height = np.minimum(bottom, other_bottom) - np.maximum(top, other_top)
    overlap = np.maximum(overlap, 0, out=overlap) * np.maximum(height, 0, out=height)
    union = (right - left) * (bottom - top) + (other_right - other_left) * (other_bottom - other_top) - overlap
    return overlap / np.maximum(union, 1e-9, out=union)


def in_units(boxes: np.ndarray, decimals: int) -> np.ndarray:
    """Return (n, 4) float64 the corners of xyxy boxes as whole numbers of the last decimal that is handed in.

    A box thinner than one is made one wide. Corners are rounded, not sides: a side and a corner that are both rounded
    up would reach out of the image.
    """
    corners = boxes.astype(np.float64) * 10**decimals
    first, second = np.floor(corners[:, :2] + 0.5), np.floor(corners[:, 2:] + 0.5)
    thin = first >= second
    first[thin], second[thin] = np.floor(corners[:, :2][thin]), np.ceil(corners[:, 2:][thin])
    return np.concatenate([first, second], axis=1)


def suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, max_iou: float) -> np.ndarray:
    """Return the numbers of the boxes that stay, best first: no two of a label overlap by more than `max_iou`."""
    order = np.argsort(-scores, kind="stable")
    corners = boxes[order].astype(np.float64)
    corners -= corners.min(initial=0)  # OpenCV tells labels apart by moving their boxes, which must be over 0
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    # By place instead of score: OpenCV leaves out scores of 0, and of equal ones the first is to stay.
    places = np.arange(len(order), 0, -1, dtype=np.float32)
    nms: Any = cv2.dnn.NMSBoxesBatched  # typed as if of lists, takes arrays
    stay = nms(xywh, places, labels[order].astype(np.int32), 0.0, max_iou)
    return order[np.asarray(stay, dtype=np.int64).reshape(-1)]


def soft_suppress(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, max_iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of all boxes, best first, and their scores, which fall by a better box of the same label.

    The linear form of Soft-NMS (Bodla et al. 2017): times 1 - IoU for every better box over `max_iou`.
    """
    overlap = box_iou(boxes, boxes) * (labels[:, None] == labels[None, :])
    factors = np.where(overlap > max_iou, 1 - overlap, 1)
    scores, waiting = scores.astype(np.float64), np.ones(len(scores), dtype=bool)
    order = np.zeros(len(scores), dtype=np.int64)
    for place in range(len(scores)):
        best = np.where(waiting, scores, -1).argmax()
        order[place], waiting[best] = best, False
        scores[waiting] *= factors[best, waiting]
    return order, scores[order].astype(np.float32)


def fuse(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, model: np.ndarray, weights: np.ndarray, max_iou: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average the boxes of a label that overlap by more than `max_iou`; return boxes, scores and labels, best first.

    Weighted boxes fusion (Solovyev et al. 2021, as in ensemble-boxes): `model` (k,) tells which of the models with
    `weights` (m,) said a box. A cluster's box is the mean weighted by score x weight, its score the mean, less where
    not every model takes part.
    """
    heights = scores.astype(np.float64) * weights[model]
    fused_boxes, fused_scores, fused_labels = [np.zeros((0, 4))], [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        cluster_boxes, sums, counts = _clusters(boxes[rows].astype(np.float64), heights[rows], max_iou)
        fused_boxes.append(cluster_boxes)
        fused_scores.append(sums / counts * np.minimum(counts, len(weights)) / weights.sum())
        fused_labels.append(np.full(len(counts), label, dtype=np.int64))
    found = np.concatenate(fused_scores)
    order = np.argsort(-found, kind="stable")
    return (
        np.concatenate(fused_boxes)[order].astype(np.float32),
        found[order].astype(np.float32),
        np.concatenate(fused_labels)[order],
    )


def _clusters(boxes: np.ndarray, heights: np.ndarray, max_iou: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gather boxes, best first, into clusters; return each cluster's mean box, sum of heights and number of boxes."""
    means, sums, counts = np.zeros_like(boxes), np.zeros(len(boxes)), np.zeros(len(boxes), dtype=np.int64)
    number = 0
    for i in np.argsort(-heights, kind="stable"):
        overlap = box_iou(boxes[i : i + 1], means[:number])[0]
        place = int(overlap.argmax()) if number else 0
        if not number or overlap[place] <= max_iou:
            place, number = number, number + 1
        total = sums[place] + heights[i]
        share = heights[i] / total if total else 1.0
        means[place] += share * (boxes[i] - means[place])
        sums[place], counts[place] = total, counts[place] + 1
    return means[:number], sums[:number], counts[:number]
