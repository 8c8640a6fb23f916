"""VinBigData's metric: PASCAL VOC's average precision, in which finding nothing is a class of its own. No torch."""

import numpy as np

from competition.average_precision import mean_average_precision
from competition.task import Evidence
from competition.tasks.detection.boxes import box_iou

VINBIGDATA_IOU = 0.4  # kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection: over it


def match_voc(one: Evidence, min_iou: float) -> np.ndarray:
    """Return (boxes, 1) bool: which boxes of an image find a true box by PASCAL VOC's rule, at an IoU over `min_iou`.

    A box looks only at the true box of its class that it overlaps most, and is wrong if a better one found that.
    """
    hits = np.zeros((len(one["scores"]), 1), dtype=bool)
    if not len(one["true_labels"]):
        return hits
    overlap = box_iou(one["boxes"].astype(np.float64), one["true_boxes"].astype(np.float64))
    overlap = np.where(one["labels"][:, None] == one["true_labels"][None, :], overlap, 0)
    order = np.argsort(-one["scores"], kind="stable")
    order = order[overlap[order].max(axis=1) > min_iou]
    _, firsts = np.unique(overlap[order].argmax(axis=1), return_index=True)
    hits[order[firsts]] = True
    return hits


def score_vinbigdata(
    hits: np.ndarray, scores: np.ndarray, labels: np.ndarray, found: np.ndarray, num_true: np.ndarray
) -> float:
    """Compute VinBigData's mAP, in which an image without any box is a class of its own: "No finding".

    Such an answer is handed in as a box of that class, of score 1, and finds the one of an image without true boxes.
    Beside the arguments of `mean_average_precision` there are `found` (n,), boxes of each image, and `num_true`
    (n, classes).
    """
    is_empty = found == 0
    is_truly_empty = num_true.sum(axis=1) == 0
    return mean_average_precision(
        np.concatenate([hits, is_truly_empty[is_empty][:, None]]),
        np.concatenate([scores, np.ones(is_empty.sum(), dtype=scores.dtype)]),
        np.concatenate([labels, np.full(is_empty.sum(), num_true.shape[1])]),
        np.append(num_true.sum(axis=0), is_truly_empty.sum()),
        "voc",
    )
