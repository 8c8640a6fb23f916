"""The training images with their answers, a table for each kind of answer."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from competition.tasks.classification.formats.answers import joined_labels
from competition.tasks.contract import Table, Target

NUM_BINS = 10  # of a regression's numbers, to spread them over the folds


@dataclass(frozen=True)
class Entries:
    """What every kind of table has."""

    image_ids: np.ndarray
    classes: tuple[str, ...]
    lines: np.ndarray
    of_images: Table | None = field(default=None, kw_only=True)  # where the entries are groups of images
    score_by: np.ndarray | None = field(default=None, kw_only=True)  # (n,) str, of `format.score_by`

    def _with_group(self, target: Target, groups: np.ndarray | None, index: int) -> Target:
        more = {} if groups is None else {"group": groups[index]}
        return target | more | ({} if self.score_by is None else {"score_by": self.score_by[index]})


@dataclass(frozen=True)
class ClassificationTable(Entries):
    """One label an image."""

    labels: np.ndarray  # (n,) int64; -1 for a class that train.csv does not have
    groups: np.ndarray | None = None  # (n,) str

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `label`, the number of the class; of classes that are numbers also `grades` (classes,), and with
        `format.group` also `group`."""
        grades = {} if self.grades is None else {"grades": self.grades}
        return self._with_group({"label": int(self.labels[index]), **grades}, self.groups, index)

    @cached_property
    def grades(self) -> np.ndarray | None:
        """Classes as numbers (classes,); None where they are names."""
        try:
            grades = np.array([float(name) for name in self.classes])
        except ValueError:
            return None
        return grades if np.isfinite(grades).all() else None

    def present(self) -> np.ndarray:
        """Return (n, classes) bool: the label of each image."""
        return self.labels[:, None] == np.arange(len(self.classes))

    def strata(self) -> np.ndarray:
        """Code images by their label."""
        return self.labels

    def amounts(self) -> np.ndarray:
        """Return the labels as numbers."""
        return self.labels.astype(np.float64)

    def summary(self) -> list[str]:
        """Count images by class."""
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes))
        return [_counted(self.classes, counts), *_joined(self.classes)]


@dataclass(frozen=True)
class MultiLabelTable(Entries):
    """Any number of labels an image."""

    labels: np.ndarray  # (n, classes) bool
    groups: np.ndarray | None = None  # (n,) str
    class_weights: np.ndarray | None = None  # (classes,) of log_loss
    known: np.ndarray | None = None  # (n, classes) bool, with `format.unknown`; elsewhere labels are false

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `labels` (classes,) bool; with the settings for it also `group`, `class_weights` and which are
        `known`."""
        more = {} if self.class_weights is None else {"class_weights": self.class_weights}
        more |= {} if self.known is None else {"known": self.known[index]}
        return self._with_group({"labels": self.labels[index], **more}, self.groups, index)

    def present(self) -> np.ndarray:
        """Return (n, classes) bool: the labels of each image."""
        return self.labels

    def strata(self) -> np.ndarray:
        """Code images by their set of labels."""
        return np.unique(self.labels, axis=0, return_inverse=True)[1].reshape(-1)

    def amounts(self) -> np.ndarray:
        """Return how many labels each image has."""
        return self.labels.sum(axis=1).astype(np.float64)

    def summary(self) -> list[str]:
        """Count images by class, and those without any."""
        without = int((~self.labels.any(axis=1)).sum())
        lines = [_counted(self.classes, self.labels.sum(axis=0)), f"images without a class: {without}"]
        if self.known is not None:
            unknown = (~self.known).sum(axis=0)
            lines.append(f"unknown, and left out of loss and score: {_counted(self.classes, unknown)}")
        return lines


@dataclass(frozen=True)
class RegressionTable(Entries):
    """A number an image, or several."""

    values: np.ndarray  # (n, columns) float64
    groups: np.ndarray | None = None  # (n,) str
    class_weights: np.ndarray | None = None  # (columns,) of weighted_r2

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `value` (columns,) float64; with the settings for it also `group` and `class_weights`."""
        more = {} if self.class_weights is None else {"class_weights": self.class_weights}
        return self._with_group({"value": self.values[index], **more}, self.groups, index)

    def present(self) -> np.ndarray:
        """Return (n, columns) bool: every image has every number."""
        return np.ones(self.values.shape, dtype=bool)

    def strata(self) -> np.ndarray:
        """Code images by which of NUM_BINS equally full bins their first number is in."""
        edges = np.quantile(self.values[:, 0], np.linspace(0, 1, NUM_BINS + 1)[1:-1])
        return np.searchsorted(edges, self.values[:, 0], side="right").astype(np.int64)

    def amounts(self) -> np.ndarray:
        """Return the first number of each image."""
        return self.values[:, 0]

    def summary(self) -> list[str]:
        """Describe each column's numbers."""
        return [
            f"{name}: {column.min():.4g} to {column.max():.4g}, mean {column.mean():.4g}"
            for name, column in zip(self.classes, self.values.T, strict=True)
        ]


@dataclass(frozen=True)
class SoftTable(ClassificationTable):
    """Probabilities of the classes of an image that has one: `labels` are the likeliest."""

    probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (n, classes)

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `label`, the likeliest class, and `soft` (classes,), which sum to 1."""
        return {**super().target(index, height, width), "soft": self.probabilities[index]}


@dataclass(frozen=True)
class SoftLabelsTable(MultiLabelTable):
    """The probability of each class of an image that may have several: `labels` are those over one half."""

    probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (n, classes)

    def target(self, index: int, height: int, width: int) -> Target:
        """Return `labels` (classes,) bool and `soft` (classes,), from 0 to 1."""
        return {**super().target(index, height, width), "soft": self.probabilities[index]}


OneTable = ClassificationTable | MultiLabelTable | RegressionTable


def _joined(classes: tuple[str, ...]) -> list[str]:
    """Warn of classes that are several labels joined by a bar."""
    joined = joined_labels(classes, "|")
    return [
        f"warning: {len(joined)} classes, as {one!r}, look like several labels joined by '|'; to learn each: "
        "format.target: multi, format.train.layout: label_string, format.train.separator: '|'"
        for one in joined[:1]
    ]


def _counted(classes: tuple[str, ...], counts: np.ndarray) -> str:
    named = [f"{name} {count}" for name, count in zip(classes[:30], counts[:30], strict=True)]
    if len(classes) > len(named):
        named.append(
            f"and {len(classes) - len(named)} more classes of {counts[30:].min()} to {counts[30:].max()} images"
        )
    return "images: " + ", ".join(named)
