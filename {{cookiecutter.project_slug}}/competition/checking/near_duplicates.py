"""Near-duplicate images: the same picture resized, recompressed or a frame later, found by a perceptual hash. No torch.

Copies are found by their pixels, whatever they show.

A near-duplicate of a training image among the validation images makes the score look better than it is.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from competition.config.settings import Config
from competition.data.folds import folds_path
from competition.data.groups import GROUP_FILE_COLUMNS
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.support.progress import progress
from competition.tasks.contract import Table

SIDE = 16  # of the small grey picture that is kept of an image
NUM_BANDS = 8  # of 16 bits: hashes that differ in fewer bits than there are bands have a band in common
MAX_DISTANCE = 16  # bits of 128 in which the hashes of near-duplicates differ at most
NUM_NEIGHBOURS = 200
LEAST_CONTRAST = 4.0  # grey levels; a picture with less is blank, and blanks are no duplicates worth a word
DARK = 64  # grey levels; a picture of lower ones is stretched, and blank if its contrast is less than
LEAST_DARK, LEAST_SHARE = 0.25, 0.05  # so many levels, or this share of its brightness
LEAST_CORRELATION = 0.95  # of the small pictures of near-duplicates


@dataclass(frozen=True)
class Thumbnails:
    """What is kept of n images, 264 bytes each."""

    pictures: np.ndarray  # (n, SIDE, SIDE) uint8, grey, black until `add`, and if blank
    digests: np.ndarray  # (n,) uint64 of all pixels; 0 until `add`, and of an image of one colour

    @classmethod
    def of(cls, number: int) -> "Thumbnails":
        """Return room for so many images."""
        return cls(np.zeros((number, SIDE, SIDE), dtype=np.uint8), np.zeros(number, dtype=np.uint64))

    def add(self, index: int, pixels: np.ndarray) -> None:
        """Keep a small picture and a digest of an image (H, W, channels), uint8 or float."""
        if (pixels != pixels[0, 0]).any():
            whole = np.ascontiguousarray(pixels)
            digest = hashlib.blake2b(whole.data, digest_size=8, key=f"{whole.shape} {whole.dtype}".encode()).digest()
            self.digests[index] = np.frombuffer(digest, dtype=np.uint64)[0]
        if pixels.shape[2] > 4:  # more than OpenCV is sure to resize
            pixels = pixels.mean(axis=2, keepdims=True)
        self.pictures[index] = _all_levels(_smaller(pixels, SIDE), pixels)

    def features(self) -> np.ndarray:
        """Return (n, SIDE, SIDE) float32: what of each picture, less its mean, is no multiple of the average picture.

        Where all images are alike (slides, scans), the average says nothing of one of them.
        """
        pictures = self.pictures.reshape(-1, SIDE * SIDE).astype(np.float32)
        pictures -= pictures.mean(axis=1, keepdims=True)
        average = pictures.sum(axis=0) / max(len(pictures), 1)
        average /= max(float(np.linalg.norm(average)), 1e-6)
        return (pictures - (pictures @ average)[:, None] * average).reshape(-1, SIDE, SIDE)


def _smaller(pixels: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA).reshape(side, side, -1).mean(axis=2)


def _all_levels(grey: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return the small picture of an image, 0 to 255: stretched if it is of floats, or dark; black if it is blank."""
    if pixels.dtype == np.uint8:
        if grey.max() >= DARK:
            return grey
        grey = _smaller(pixels.astype(np.float32), SIDE)  # whole levels are coarse for what is stretched
        if grey.std() < max(LEAST_DARK, LEAST_SHARE * grey.mean()):
            return np.zeros_like(grey)
    return (grey - grey.min()) / max(np.ptp(grey), 1e-12) * 255


def perceptual_hashes(features: np.ndarray) -> np.ndarray:
    """Return (n, NUM_BANDS) uint16: for 8 x 8 places, whether each is brighter than its right and lower neighbour.

    This is dHash (Krawetz, "Kind of Like That", 2013) both ways, closed to a ring.
    """
    places = features.reshape(-1, 8, 2, 8, 2).sum(axis=(2, 4))
    bits = np.stack([places > np.roll(places, -1, axis=2), places > np.roll(places, -1, axis=1)], axis=1)
    return np.packbits(bits.reshape(-1, NUM_BANDS * 16), axis=1).view(np.uint16)


def near_duplicates(thumbnails: Thumbnails) -> np.ndarray:
    """Return (n,) int64: images of an equal number are near-duplicates, maybe over others; -1 is an image without."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    features = thumbnails.features()
    contrast = features.std(axis=(1, 2))
    shown = np.flatnonzero(contrast >= LEAST_CONTRAST)
    normal = (features[shown] / contrast[shown, None, None]).reshape(-1, SIDE * SIDE)
    first, second = _close_pairs(perceptual_hashes(features[shown]))
    alike = np.einsum("ij,ij->i", normal[first], normal[second]) >= LEAST_CORRELATION * SIDE * SIDE
    copies = _copies(thumbnails.digests)
    pairs = tuple(
        np.concatenate(both) for both in zip((shown[first[alike]], shown[second[alike]]), copies, strict=True)
    )
    links = coo_array((np.ones(len(pairs[0]), dtype=np.int8), pairs), shape=(len(features), len(features)))
    _, component = connected_components(links, directed=False)
    has_twin = np.bincount(component, minlength=1)[component] > 1
    groups = np.full(len(features), -1, dtype=np.int64)
    groups[has_twin] = np.unique(component[has_twin], return_inverse=True)[1]
    return groups


def _copies(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (p,), (p,) of images of the same pixels, each with the next."""
    order = np.argsort(digests, kind="stable")
    is_next = (digests[order[1:]] == digests[order[:-1]]) & (digests[order[1:]] != 0)
    return order[:-1][is_next], order[1:][is_next]


def _close_pairs(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (p,), (p,) of images whose hashes (n, bands) are close, without comparing each with each.

    Sorted by a band, and by the next ones where it is equal, each is compared with those behind it that have the same
    band, at most NUM_NEIGHBOURS of them.
    """
    words, found = hashes.view(np.uint64), [np.empty(0, dtype=np.int64)]
    for band in progress(range(NUM_BANDS), "near-duplicates"):
        order = np.lexsort(np.roll(hashes, -band, axis=1).T[::-1])
        rows = np.arange(len(order) - 1)
        for step in range(1, NUM_NEIGHBOURS + 1):
            rows = rows[rows + step < len(order)]
            rows = rows[hashes[order[rows], band] == hashes[order[rows + step], band]]
            if not len(rows):
                break
            one, other = order[rows], order[rows + step]
            is_close = np.bitwise_count(words[one] ^ words[other]).sum(axis=1) <= MAX_DISTANCE
            found.append(np.minimum(one, other)[is_close] * len(order) + np.maximum(one, other)[is_close])
    first, second = np.divmod(np.unique(np.concatenate(found)), max(len(hashes), 1))
    return first, second


def near_duplicates_path(config: Config) -> Path:
    """Return where the groups of near-duplicates are written: beside folds.csv."""
    return folds_path(config).with_name("near_duplicates.csv")


def report_near_duplicates(config: Config, table: Table, groups: np.ndarray, folds: np.ndarray | None) -> list[str]:
    """Say how many near-duplicates there are, as `near_duplicates` groups them (n,), and how many groups lie in several
    folds (n,); write the groups."""
    found = np.flatnonzero(groups >= 0)
    if not len(found):
        return []
    order = found[np.argsort(groups[found], kind="stable")]
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    ids, (one, other) = table.image_ids, members[0][:2]
    word = "groups" if len(members) > 1 else "group"
    lines = [f"near-duplicates: {len(found)} images in {len(members)} {word}, as {ids[one]!r} and {ids[other]!r}"]
    torn = [rows for rows in members if folds is not None and len(set(folds[rows])) > 1]
    if folds is not None and torn:
        a, b = next((a, b) for a in torn[0] for b in torn[0] if folds[a] != folds[b])
        lines.append(
            f"{len(torn)} of these groups are torn over folds, as {ids[a]!r} in fold {folds[a]} and {ids[b]!r} in fold "
            f"{folds[b]}: the score of a fold is too good where training has seen its images"
        )
    if folds is not None and not torn:
        return [*lines, "each of these groups lies in one fold"]
    path = near_duplicates_path(config)
    rows = ((ids[row], groups[row]) for row in found.tolist())
    try:
        write_csv(path, GROUP_FILE_COLUMNS, rows, "data.folds says where else to write")
    except CompetitionError as error:  # no reason to call the data faulty
        return [*lines, str(error)]
    return [*lines, f"to keep each group in one fold: data.group_file={path}, and make the folds again"]
