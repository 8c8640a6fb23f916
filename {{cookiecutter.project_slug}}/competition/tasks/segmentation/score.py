"""The metrics, from three pixel counts per image and class, and from objects: how well connected parts are found."""

from collections.abc import Collection, Iterable, Sequence

import cv2
import numpy as np

from competition.tasks.average_precision import mean_average_precision
from competition.tasks.contract import Evidence, Table, Target
from competition.tasks.segmentation.objects import Objects, objects_of, overlaps, parts_of
from competition.tasks.segmentation.resize import resize_mask, without_ignored
from competition.tasks.segmentation.volumes import madison_score, slice_evidence

MAP_IOU = 0.6  # kaggle.com/c/hubmap-hacking-the-human-vasculature
IOUS = np.round(np.arange(0.5, 1.0, 0.05), 2)


def object_counts(said: Objects, true: Objects) -> np.ndarray:
    """Return (12,) int64 of the objects of a class: those found at each of IOUS, those said, true ones.

    An object is found where one that is said overlaps it by more than the IoU; over a half there is only one such,
    unless true ones overlap, too: then one that is said finds one of them.
    """
    ious, first, second = overlaps(said, true)
    is_over = ious[:, None] > IOUS
    found = [min(len(np.unique(first[over])), len(np.unique(second[over]))) for over in is_over.T]
    return np.array([*found, len(said), len(true)], dtype=np.int64)


def object_hits(said: Objects, true: Objects, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which objects find a true one at an IoU of MAP_IOU, (k,) bool, and how sure each is: the mean over it of
    `confidence` (h, w)."""
    ious, which, _ = overlaps(said, true)
    hits = np.isin(np.arange(len(said)), which[ious >= MAP_IOU])
    values = confidence.ravel().astype(np.float64)
    return hits, np.array([values[pixels].mean() for _, pixels in said])


def mean_precision(counts: np.ndarray) -> np.ndarray:
    """Return (n, classes) from counts (n, 12, classes): the mean over IOUS of TP / (TP + FP + FN), 1 without objects.

    Source: the evaluation page of the Data Science Bowl 2018 (Kaggle).
    """
    found, said, true = counts[:, :-2], counts[:, -2], counts[:, -1]
    total = said[:, None] + true[:, None] - found  # TP + FP + FN
    return np.where(total == 0, 1.0, found / np.maximum(total, 1)).mean(axis=1)


def mean_f2(counts: np.ndarray) -> np.ndarray:
    """Return (n, classes) from counts (n, 12, classes): the mean over IOUS of 5 TP / (5 TP + 4 FN + FP), 1 without
    objects.

    Source: the evaluation page of the Airbus Ship Detection Challenge (Kaggle, 2018).
    """
    found, said, true = counts[:, :-2], counts[:, -2], counts[:, -1]
    total = (4 * true + said)[:, None]  # 4 (TP + FN) + (TP + FP)
    return np.where(total == 0, 1.0, 5 * found / np.maximum(total, 1)).mean(axis=1)


OBJECT_METRICS = {"dsb2018", "airbus", "map60"}
OF_OBJECT_COUNTS = {"dsb2018": mean_precision, "airbus": mean_f2}
OF_OBJECTS = ("hits", "sure", "labels")
BETAS = {"f05": 0.5, "f1": 1.0, "f2": 2.0}
# Those that follow from the pixel counts of images and classes, which tuning makes use of.
OF_COUNTS = ("dice", "iou", "global_dice", "dice_positive", "dice_negative", "tgs", *BETAS)


def evidence(answer: Target, truth: Target, metrics: Collection[str]) -> Evidence:
    """Count pixels: `counts` (3, classes) of intersection, predicted and true. For metrics of objects, which take many
    times as long, also `objects` (12, classes), see `object_counts`, and of an answer with `confidence` `hits`, `sure`
    and `labels` (k,) of the objects of all classes.

    The truth is resized to the answer, as hosts do that ask for masks of a smaller size; an answer of one pixel
    stands for the whole image. Pixels that are `ignored` in the truth count for nothing. Objects are those that answer
    and truth name, or else connected parts of masks.
    """
    said, true = answer["mask"], truth["mask"]
    if said.shape[:2] == (1, 1):
        said = np.broadcast_to(said, true.shape)
    said = without_ignored(said, truth)
    counts = []
    for k in range(true.shape[-1]):  # a contiguous layer is counted several times faster than a strided one
        predicted = np.ascontiguousarray(said[:, :, k])
        actual = np.ascontiguousarray(resize_mask(true[:, :, k], *predicted.shape))
        counts.append([cv2.countNonZero(mask) for mask in (predicted & actual, predicted, actual)])
    known = {"counts": np.array(counts, dtype=np.int64).T}
    if "uw_madison" in metrics:
        known |= slice_evidence(said, resize_mask(true, *said.shape[:2]), truth)
    if OBJECT_METRICS.isdisjoint(metrics):
        return known
    return known | _object_evidence({**answer, "mask": said}, truth)


def _object_evidence(answer: Target, truth: Target) -> Evidence:
    """Return `objects`, and of an answer with `confidence` also what OF_OBJECTS names."""
    size, num_classes = answer["mask"].shape[:2], truth["mask"].shape[-1]
    is_named = "objects" in truth and truth["mask"].shape[:2] == size
    said, true = objects_of(answer), truth["objects"] if is_named else parts_of(resize_mask(truth["mask"], *size))
    pairs = [(said.of_class(k), true.of_class(k)) for k in range(num_classes)]
    known = {"objects": np.array([object_counts(*pair) for pair in pairs]).T}
    if "confidence" not in answer:
        return known
    found = [(*object_hits(*pair, answer["confidence"][:, :, k]), k) for k, pair in enumerate(pairs)]
    hits, sure = (np.concatenate(each) for each in list(zip(*found, strict=True))[:2])
    return known | {"hits": hits, "sure": sure, "labels": np.repeat(range(num_classes), [len(one[0]) for one in found])}


def scores(evidence: Sequence[Evidence], metrics: Iterable[str], num_classes: int) -> dict[str, float]:
    """Compute metrics over images x classes; see `image_scores`, and beside them

    global_dice: one Dice over the pixels of all images and classes.
    map60: average precision of objects by confidence at an IoU of .6, the area under the whole curve (PASCAL VOC 2010),
    the mean over classes.
    dsb2018: the mean over IoU thresholds .5 to .95 of TP / (TP + FP + FN) of objects, 1 where there are none.
    airbus: the mean over these of the F2 of objects, 1 where there are none.
    uw_madison: Dice of slices and Hausdorff distance of volumes, see volumes.py.
    """
    counts = np.stack([one["counts"] for one in evidence]).astype(np.float64)  # (n, 3, classes)
    overlap, predicted, true = counts[:, 0], counts[:, 1], counts[:, 2]
    results = {}
    for name in metrics:
        if name == "global_dice":
            total = (predicted + true).sum()
            results[name] = float(2 * overlap.sum() / total) if total else 1.0
        elif name in OF_OBJECT_COUNTS:
            results[name] = float(OF_OBJECT_COUNTS[name](np.stack([one["objects"] for one in evidence])).mean())
        elif name == "uw_madison":
            dice = image_scores("dice", overlap, predicted, true)
            results[name] = madison_score(evidence, dice, predicted + true == 0)
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
    tgs: the share of the IoU thresholds .5 to .95 that the IoU is over, 1 where both are empty (Kaggle's TGS Salt).
    """
    if metric == "tgs":
        return (image_scores("iou", overlap, predicted, true)[..., None] > IOUS).mean(axis=-1)
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
