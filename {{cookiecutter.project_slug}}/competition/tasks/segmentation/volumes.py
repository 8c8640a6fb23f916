"""Slices of a volume scored together: UW-Madison's Dice of slices and Hausdorff distance of volumes. No torch."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

from competition.support.errors import CompetitionError
from competition.tasks.contract import Evidence, Target

DICE_SHARE = 0.4  # of the score; the rest is the distance's
LARGEST = np.sqrt(3)  # distance in a unit cube
FAR_TOO_MUCH = 10  # times the true pixels: counts as the largest distance


def slice_evidence(said: np.ndarray, true: np.ndarray, truth: Target) -> Evidence:
    """Return what is kept of masks (h, w, classes), all classes together: `volume`, `slice` (text), `shape` (2,), and
    of either mask the places where it begins and ends, along the rows."""
    either = {"said_edges": said, "true_edges": true}
    known = {name: np.flatnonzero(np.diff(mask.any(axis=2).ravel(), prepend=False)) for name, mask in either.items()}
    named = {"volume": np.array(truth["volume"]), "slice": np.array(truth["slice"]), "shape": np.array(said.shape[:2])}
    return named | {name: edges.astype(np.int32) for name, edges in known.items()}


def madison_score(evidence: Sequence[Evidence], dice: np.ndarray, is_empty: np.ndarray) -> float:
    """Return .4 of the mean Dice of slices and classes, (n, classes) each, without those where both masks are empty,
    and .6 of one minus the mean distance of volumes.

    Source: the evaluation page of UW-Madison GI Tract Image Segmentation (Kaggle, 2022), whose distance is that of all
    classes together, in a unit cube. Either part is 1 where there is nothing to find, and nothing is said.
    """
    volumes: dict[str, list[Evidence]] = {}
    for one in evidence:
        volumes.setdefault(str(one["volume"]), []).append(one)
    distances = [one for name, slices in volumes.items() if (one := _distance(name, slices)) is not None]
    overlap = dice[~is_empty].mean() if not is_empty.all() else 1.0
    return float(DICE_SHARE * overlap + (1 - DICE_SHARE) * (1 - (np.mean(distances) if distances else 0.0)))


def _distance(name: str, slices: Sequence[Evidence]) -> float | None:
    """Return the distance of a volume's two masks, from 0 to 1; none where both are empty."""
    shapes = {tuple(one["shape"].tolist()) for one in slices}
    if len(shapes) > 1:
        found = " and ".join(f"{height} x {width}" for height, width in sorted(shapes)[:2])
        raise CompetitionError(f"format.volume: volume {name!r} has slices of {found} pixels; expected one size")
    order = sorted(slices, key=lambda one: str(one["slice"]))
    said, true = (np.stack([_layer(one, key) for one in order]) for key in ("said_edges", "true_edges"))
    if not said.any() and not true.any():
        return None
    if not said.any() or not true.any() or said.sum() > FAR_TOO_MUCH * true.sum():
        return 1.0
    return max(_farthest(said, true), _farthest(true, said)) / LARGEST


def _layer(one: Evidence, key: str) -> np.ndarray:
    """Return the mask (h, w) bool that begins and ends at these places."""
    height, width = one["shape"].tolist()
    turns = np.zeros(height * width, dtype=bool)
    turns[one[key]] = True
    return np.logical_xor.accumulate(turns).reshape(height, width)


def _farthest(mask: np.ndarray, other: np.ndarray) -> float:
    """Return how far a pixel of a mask (slices, h, w) may lie from the nearest of another; sides are 1 long."""
    outside = np.argwhere(mask & ~other)
    if not len(outside):
        return 0.0
    surface = np.argwhere(other & ~binary_erosion(other))  # the nearest of a solid is on it
    return float(KDTree(surface / mask.shape).query(outside / mask.shape)[0].max())
