"""What masks say of their image, and how they compare with the true ones, by pixels."""

from collections.abc import Sequence

import cv2
import numpy as np

from competition.config.settings import Config
from competition.tasks.contract import Outcome, Prediction, Target
from competition.tasks.segmentation.resize import resize_mask, without_ignored

PIXELS_A_CLASS = 500  # of an image, by chance, which stand for all in the curve of precision and recall


def outcome(prediction: Prediction, answer: Target, truth: Target, num_classes: int) -> Outcome:
    """Score by the mean Dice of the classes, 1 where both masks are empty; wrong pixels are shares of the image."""
    said = without_ignored(answer["mask"], truth)
    true = resize_mask(truth["mask"], *said.shape[:2])
    dice, too_much, too_little = [], 0, 0
    for k in range(num_classes):
        one, other = np.ascontiguousarray(said[:, :, k]), np.ascontiguousarray(true[:, :, k])
        overlap, predicted, actual = (cv2.countNonZero(layer) for layer in (one & other, one, other))
        dice.append(2 * overlap / (predicted + actual) if predicted + actual else 1.0)
        too_much += predicted - overlap
        too_little += actual - overlap
    labels, confidences, hits = _claims(prediction["probabilities"], truth)
    pixels = said.shape[0] * said.shape[1]
    return Outcome(
        score=float(np.mean(dice)),
        too_much=too_much / pixels,
        too_little=too_little / pixels,
        labels=labels,
        confidences=confidences,
        hits=hits.reshape(-1),
        num_true=hits.sum(axis=1),
    )


def score_name(config: Config) -> str:
    """Return what an outcome's score is."""
    return "mean Dice"


def threshold_names(config: Config) -> Sequence[str]:
    """Return the thresholds of whether there is a mask and of its pixels."""
    return ["threshold", "bottom_threshold"]


def _claims(probabilities: np.ndarray, truth: Target) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the classes (k,) and probabilities (k,) of some pixels, and (classes, pixels) bool: whether they are in
    the true mask."""
    num_classes, height, width = probabilities.shape
    at = np.random.default_rng(0).integers(height * width, size=PIXELS_A_CLASS)  # not a lattice: masks may be striped
    if "ignored" in truth:
        at = at[resize_mask(truth["ignored"], height, width).reshape(-1)[at] == 0]
    hits = resize_mask(truth["mask"], height, width).reshape(-1, num_classes)[at].T > 0  # (classes, pixels)
    confidences = probabilities.reshape(num_classes, -1)[:, at].astype(np.float64)
    return np.repeat(np.arange(num_classes), len(at)), confidences.reshape(-1), hits


def present(answer: Target, num_classes: int) -> np.ndarray:
    """Return (classes,) bool: which classes have a mask."""
    return answer["mask"].any(axis=(0, 1))


CELLS = 8  # along a side


def summary(prediction: Prediction, height: int, width: int, num_classes: int) -> np.ndarray:
    """Return (classes * CELLS * CELLS,): the mean probability of each class in the cells of a grid over the image."""
    probabilities = prediction["probabilities"].astype(np.float32)
    return np.stack([cv2.resize(one, (CELLS, CELLS), interpolation=cv2.INTER_AREA) for one in probabilities]).ravel()
