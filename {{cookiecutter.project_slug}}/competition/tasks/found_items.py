"""Boxes or points, of which an image has any number: counted by image, and compared with the true ones. No torch."""

from pathlib import Path

import numpy as np
import pandas as pd

from competition.files.csv_file import resolve_classes
from competition.support.errors import CompetitionError
from competition.tasks.contract import Outcome, Target

ONE_CLASS = "object"  # its name where there is one class and data.classes does not name it
CELLS = 8  # along a side
MOST_SCORES, MOST_NAMED = 3, 6  # in a caption


def classes_of_items(
    lines: pd.Index,
    row: np.ndarray,
    names: np.ndarray | None,
    column: pd.Series | None,
    listed: list[str] | None,
    path: Path,
) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """Return all classes, that of each item (empty where it is none), and the faults of rows of another class.

    Items (k,) are of the rows `row` of a table with these lines. Their names (k,) stand in strings, or a `column` (n,)
    of the table has them; without either there is one class.
    """
    if names is not None:
        classes, unknown = resolve_classes(pd.Series(names, index=lines[row], dtype=object), listed, path)
        return classes, names, unknown
    if column is None:
        if listed is not None and len(listed) != 1:
            raise CompetitionError(
                f"data.classes: lists {len(listed)} classes, but without format.class_id there is one; leave one"
            )
        classes = tuple(listed or (ONE_CLASS,))
        return classes, np.full(len(row), classes[0], dtype=object), []
    classes, unknown = resolve_classes(column, listed, path)
    return classes, column.to_numpy(dtype=object)[row], unknown


def classes_of_images(labels: np.ndarray, image: np.ndarray, num_images: int, num_classes: int) -> np.ndarray:
    """Return (n, classes) bool: which classes an image has an item of, of items with these labels on these images."""
    flat = np.bincount(image * num_classes + labels, minlength=num_images * num_classes)
    return flat.reshape(num_images, num_classes) > 0


def rarest_class(present: np.ndarray) -> np.ndarray:
    """Return (n,) a code of the rarest class an image has an item of, from (n, classes) bool; 0 where there is none."""
    rarity = np.argsort(np.argsort(-present.sum(0), kind="stable"))  # commonest 0
    return np.where(present, rarity + 1, 0).max(1)


def counts_in_words(labels: np.ndarray, classes: tuple[str, ...]) -> str:
    """Return how many items each class has."""
    counts = np.bincount(labels, minlength=len(classes))
    return ", ".join(f"{name} {count}" for name, count in zip(classes, counts, strict=True))


def renumbered_items(target: Target, places: str, numbers: np.ndarray) -> Target:
    """Return a target whose label k is `numbers[k]`; items, of which `places` is the key, of a negative one are left
    out."""
    labels = numbers[target["labels"]] if len(target["labels"]) else target["labels"]
    is_kept = labels >= 0
    return {**target, places: target[places][is_kept], "labels": labels[is_kept]}


def outcome_of_items(
    labels: np.ndarray, scores: np.ndarray, hits: np.ndarray, true_labels: np.ndarray, num_classes: int
) -> Outcome:
    """Score what was said of an image by its average precision, of all classes in one; where there is nothing to find,
    by how unsure the surest item is. `hits` tells which items are right."""
    scores, num_true = scores.astype(np.float64), len(true_labels)
    found = hits[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(found) / np.arange(1, len(found) + 1)
    return Outcome(
        score=float(precision[found].sum() / num_true) if num_true else 1 - float(scores.max(initial=0)),
        too_much=float(scores[~hits].max(initial=0)),
        too_little=num_true - float(scores[hits].sum()),
        labels=labels.astype(np.int64),
        confidences=scores,
        hits=hits,
        num_true=np.bincount(true_labels.astype(np.int64), minlength=num_classes),
    )


def classes_present(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return (classes,) bool: which classes have an item."""
    return np.bincount(labels, minlength=num_classes) > 0


def is_shown(answer_scores: np.ndarray | None, num: int, least: float, least_share: float) -> np.ndarray:
    """Return (k,) bool: of items with scores the sure ones, and at least the best one; without, all."""
    if answer_scores is None or not len(answer_scores):
        return np.ones(num, dtype=bool)
    return answer_scores >= min(max(least, least_share * answer_scores.max()), answer_scores.max())


def items_in_words(
    labels: np.ndarray, scores: np.ndarray | None, shown: np.ndarray, classes: tuple[str, ...], nothing: str
) -> str:
    """Count the items that are shown, by class; of those with scores, say the highest ones, too."""
    counts = np.bincount(labels[shown], minlength=len(classes))
    words = [f"{classes[k]} {counts[k]}" for k in np.argsort(-counts, kind="stable") if counts[k]]
    more = f" and {len(words) - MOST_NAMED} classes more" if len(words) > MOST_NAMED else ""
    text = ", ".join(words[:MOST_NAMED]) + more or nothing
    if scores is not None and len(scores):
        told = scores[shown] if counts.any() else scores
        text += f" (scores {', '.join(f'{score:.2f}' for score in told[:MOST_SCORES])})"
    return text
