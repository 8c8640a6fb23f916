"""From stored probabilities to masks in pixels of the original image, or at the size of the submission."""

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np

from competition.tasks.contract import Prediction, Target
from competition.tasks.maps import average_maps, resize_probabilities
from competition.tasks.presence import PRESENCE, average_presence, is_present, presence_apart
from competition.tasks.segmentation.settings import TaskConfig


def average(
    predictions: Sequence[Prediction], config: TaskConfig, weights: Sequence[float] | None = None
) -> Prediction:
    """Average `probabilities` (classes, h, w) of several networks; those of another resolution are resized first."""
    maps = average_maps([one["probabilities"] for one in predictions], weights)
    # An average of runs is decoded by the first one's config: without a head there, nothing goes by what others say.
    return {"probabilities": maps, **(average_presence(predictions, weights) if config.loss.auxiliary else {})}


def hands_in_decisions(config: TaskConfig) -> bool:
    """Return whether what is handed in is decided by thresholds, for which the scale of predictions matters."""
    return True


def unused_settings(config: TaskConfig) -> dict[str, str]:
    """Return the keys of `decode:` that nothing goes by, each with the reason: none."""
    return {}


def decode(prediction: Prediction, height: int, width: int, config: TaskConfig) -> Target:
    """Return `mask` (height, width, classes) of 0 and 1, at `format.size` where that is set; for a submission of
    instances also `confidence` of the same shape.

    Probabilities are resized first and cut at the threshold then: the other way round loses small structures.
    """
    height, width = config.answer_size(height, width)
    probabilities = prediction["probabilities"]
    config.decode.check_length(len(probabilities))
    if (has_class := is_present(prediction, config.decode.presence_threshold)) is not None:
        probabilities = np.where(has_class[:, None, None], probabilities, np.zeros_like(probabilities))
    masks = [class_mask(one, height, width, *config.decode.of_class(k)) for k, one in enumerate(probabilities)]
    answer = {"mask": np.stack(masks, axis=-1)}
    if config.format.submission.style == "instances":  # each object is handed in with how sure one is of it
        answer["confidence"] = np.stack([resize_probabilities(one, height, width) for one in probabilities], axis=-1)
    return answer


def difference(found: Prediction, stored: Prediction) -> float:
    """Return the difference of probability that 1 pixel of 1000 exceeds: at the very edge of an object a rounding error
    may turn a pixel over, while another network or another normalisation moves whole areas."""
    if found["probabilities"].shape != stored["probabilities"].shape:
        return 1.0
    of_masks = float(np.quantile(np.abs(found["probabilities"].astype(np.float32) - stored["probabilities"]), 0.999))
    return max(of_masks, presence_apart(found, stored))


def unseen(prediction: Prediction, known: Iterable[Prediction]) -> Prediction:
    """Return `probabilities` of 0: no mask."""
    return {key: np.zeros_like(values) for key, values in prediction.items()}


def trial_predictions(num_classes: int, config: TaskConfig) -> Iterator[Prediction]:
    """Yield `probabilities` of no mask, then of each class all over."""
    for one in range(-1, num_classes):
        maps = np.stack([np.full((8, 8), k == one, dtype=np.float16) for k in range(num_classes)])
        yield {"probabilities": maps, **({PRESENCE: maps.max(axis=(1, 2))} if config.loss.auxiliary else {})}


def class_mask(
    probabilities: np.ndarray, height: int, width: int, top: float, min_area: int, bottom: float, min_component: int
) -> np.ndarray:
    """Return (height, width) uint8 of one class from probabilities (h, w).

    An image has the class if at least `min_area` pixels, and one, are over `top`; its mask is what is over `bottom`,
    without connected parts of fewer than `min_component` pixels.
    """
    mask = np.zeros((height, width), dtype=np.uint8)
    if np.float32(probabilities.max()) <= top:  # nothing between pixels is larger than they are
        return mask
    full = resize_probabilities(probabilities, height, width)
    if np.count_nonzero(full > top) < max(min_area, 1):
        return mask
    mask = (full > bottom).astype(np.uint8)
    if min_component <= 1:
        return mask
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_component
    keep[0] = False  # what is around them
    return keep.astype(np.uint8)[labels.astype(np.intp)]
