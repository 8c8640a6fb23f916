"""The metrics, from three pixel counts per image and class, and from objects: how well connected parts are found."""

from collections.abc import Collection, Iterable, Sequence

import cv2
import numpy as np

from competition.tasks.average_precision import mean_average_precision
from competition.tasks.contract import Evidence, Table, Target
from competition.tasks.segmentation.resize import resize_mask

MAP_IOU = 0.6  # kaggle.com/c/hubmap-hacking-the-human-vasculature
MOST_COUNTERS = 1 << 22  # in 32 MB
IOUS = np.round(np.arange(0.5, 1.0, 0.05), 2)


def object_counts(answer: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return (12,) int64 of two masks (h, w): objects found at each of IOUS, objects said, true objects.

    An object is found where one that is said overlaps it by more than the IoU; over a half there is only one such.
    """
    num_said, said = cv2.connectedComponents(answer)
    num_true, true = cv2.connectedComponents(truth)
    found = (_overlaps(said, num_said, true, num_true)[0][:, None] > IOUS).sum(0)
    return np.array([*found, num_said - 1, num_true - 1], dtype=np.int64)


def object_hits(answer: np.ndarray, truth: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which objects of a mask (h, w) find a true one at an IoU of MAP_IOU, (k,) bool, and how sure each is:
    the mean over it of `confidence` (h, w)."""
    number, said = cv2.connectedComponents(answer)
    num_true, true = cv2.connectedComponents(truth)
    ious, which = _overlaps(said, number, true, num_true)
    hits = np.isin(np.arange(1, number), which[ious >= MAP_IOU])
    sums = np.bincount(said.ravel(), weights=confidence.ravel().astype(np.float64), minlength=number)
    return hits, (sums / np.bincount(said.ravel(), minlength=number).clip(1))[1:]


def _overlaps(said: np.ndarray, num_said: int, true: np.ndarray, num_true: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the IoU (pairs,) of every two objects that overlap, and which of `said` it is of; labels (h, w), 0 is
    none."""
    pairs, pixels = _count((said.astype(np.int64) * num_true + true).ravel(), num_said * num_true)
    first, second = pairs // num_true, pairs % num_true
    area_said, area_true = np.bincount(first, pixels), np.bincount(second, pixels)
    both = (first > 0) & (second > 0)
    first, second, overlap = first[both], second[both], pixels[both]
    return overlap / (area_said[first] + area_true[second] - overlap), first


def _count(numbers: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which numbers below `end` there are, and how often each; a table of all is far quicker than sorting."""
    if end > MOST_COUNTERS:
        return np.unique(numbers, return_counts=True)
    counts = np.bincount(numbers, minlength=end)
    found = np.flatnonzero(counts)
    return found, counts[found]


def mean_precision(counts: np.ndarray) -> np.ndarray:
    """Return (n, classes) from counts (n, 12, classes): the mean over IOUS of TP / (TP + FP + FN), 1 without objects.

    Source: the evaluation page of the Data Science Bowl 2018 (Kaggle).
    """
    found, said, true = counts[:, :-2], counts[:, -2], counts[:, -1]
    total = said[:, None] + true[:, None] - found  # TP + FP + FN
    return np.where(total == 0, 1.0, found / np.maximum(total, 1)).mean(axis=1)


OBJECT_METRICS = {"dsb2018", "map60"}
OF_OBJECTS = ("hits", "sure", "labels")
BETAS = {"f05": 0.5, "f1": 1.0, "f2": 2.0}
# Those that follow from the pixel counts of images and classes, which tuning makes use of.
OF_COUNTS = ("dice", "iou", "global_dice", "dice_positive", "dice_negative", *BETAS)


def evidence(answer: Target, truth: Target, metrics: Collection[str]) -> Evidence:
    """Count pixels: `counts` (3, classes) of intersection, predicted and true. For metrics of objects, which take many
    times as long, also `objects` (12, classes), see `object_counts`, and of an answer with `confidence` `hits`, `sure`
    and `labels` (k,) of the objects of all classes.

    The truth is resized to the answer, as hosts do that ask for masks of a smaller size; an answer of one pixel
    stands for the whole image.
    """
    said, true = answer["mask"], truth["mask"]
    if said.shape[:2] == (1, 1):
        said = np.broadcast_to(said, true.shape)
    counts, objects, found = [], [], []
    has_objects = not OBJECT_METRICS.isdisjoint(metrics)
    for k in range(true.shape[-1]):  # a contiguous layer is counted several times faster than a strided one
        predicted = np.ascontiguousarray(said[:, :, k])
        actual = np.ascontiguousarray(resize_mask(true[:, :, k], *predicted.shape))
        counts.append([cv2.countNonZero(mask) for mask in (predicted & actual, predicted, actual)])
        if has_objects:
            objects.append(object_counts(predicted, actual))
        if has_objects and "confidence" in answer:
            hits, sure = object_hits(predicted, actual, answer["confidence"][:, :, k])
            found.append((hits, sure, np.full(len(hits), k)))
    known = {"counts": np.array(counts, dtype=np.int64).T}
    if has_objects:
        known["objects"] = np.array(objects).T
    return known | dict(zip(OF_OBJECTS, map(np.concatenate, zip(*found, strict=True)), strict=False))


def scores(evidence: Sequence[Evidence], metrics: Iterable[str], num_classes: int) -> dict[str, float]:
    """Compute metrics over images x classes; see `image_scores`, and beside them

    global_dice: one Dice over the pixels of all images and classes.
    map60: average precision of objects by confidence at an IoU of .6, the area under the whole curve (PASCAL VOC 2010),
    the mean over classes.
    dsb2018: the mean over IoU thresholds .5 to .95 of TP / (TP + FP + FN) of objects, 1 where there are none.
    """
    counts = np.stack([one["counts"] for one in evidence]).astype(np.float64)  # (n, 3, classes)
    overlap, predicted, true = counts[:, 0], counts[:, 1], counts[:, 2]
    results = {}
    for name in metrics:
        if name == "global_dice":
            total = (predicted + true).sum()
            results[name] = float(2 * overlap.sum() / total) if total else 1.0
        elif name == "dsb2018":
            results[name] = float(mean_precision(np.stack([one["objects"] for one in evidence])).mean())
        elif name == "map60":
            results[name] = _average_precision(evidence)
        else:
            counted = is_counted(name, true)
            values = image_scores(name, overlap, predicted, true)
            results[name] = float(values[counted].mean()) if counted.any() else 1.0
    return results


def _average_precision(evidence: Sequence[Evidence]) -> float:
    num_true = np.sum([one["objects"][-1] for one in evidence], axis=0)
    of_objects = [one for one in evidence if "hits" in one]  # a constant answer has none
    if not of_objects:
        return 0.0
    hits, sure, labels = (np.concatenate([one[key] for one in of_objects]) for key in OF_OBJECTS)
    return mean_average_precision(hits[:, None], sure, labels, num_true, "voc")


def image_scores(metric: str, overlap: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the metric for each image and class from its counts, which may have any shapes that go together.

    dice, dice_positive, dice_negative: 2|A∩B| / (|A| + |B|), 1 where both are empty (Kaggle's Clouds, Severstal, SIIM).
    iou: |A∩B| / |A∪B|, 1 where both are empty.
    f05, f1, f2: F-beta of pixels, (1 + b²)|A∩B| / (b²|B| + |A|) with B the truth, 1 where both are empty (F0.5 per
    image in Kaggle's Vesuvius Challenge - Ink Detection).
    """
    if metric == "iou":
        part, whole = overlap, predicted + true - overlap
    else:
        squared = BETAS.get(metric, 1.0) ** 2
        part, whole = (1 + squared) * overlap, squared * true + predicted
    return np.where(whole == 0, 1.0, part / np.maximum(whole, 1e-9))


def is_counted(metric: str, true: np.ndarray) -> np.ndarray:
    """Return which images and classes, by their true pixels, a metric is the mean of."""
    if metric == "dice_positive":
        return true > 0
    return true == 0 if metric == "dice_negative" else np.ones(true.shape, dtype=bool)


def lower_is_better(metric: str) -> bool:
    """Return whether a smaller value is the better one."""
    return False


def constant_answers(table: Table) -> tuple[str, Target]:
    """The best blind submission says that every mask is empty."""
    return "an empty submission", {"mask": np.zeros((1, 1, len(table.classes)), dtype=np.uint8)}
