"""How often each class, and nothing at all, is said of test images and of out-of-fold images. No torch."""

from collections.abc import Sequence

import numpy as np

from competition.out_of_fold import OutOfFold
from competition.progress import progress
from competition.settings import Config
from competition.task import Target, Task

MOST_IMAGES = 1000  # out-of-fold images that are looked at
SIGNIFICANT = 3.0  # standard errors
LEAST_CHANGE = 0.2  # of the larger share: less is not worth a word, however sure


class Presence:
    """Counts the images on which each class is, and those with none."""

    def __init__(self, config: Config, classes: Sequence[str]) -> None:
        self.task, self.classes = Task(config.task), classes
        self.number = 0
        self.counts = np.zeros(len(classes) + 1, dtype=np.int64)

    def add(self, answer: Target) -> None:
        """Count the answer of an image."""
        present = self.task.presence.present(answer, len(self.classes))
        if len(present):
            self.counts += np.append(present, not present.any())
            self.number += 1


def out_of_fold_presence(config: Config, images: OutOfFold) -> Presence:
    """Count on out-of-fold images, on some of them evenly spaced where there are many."""
    presence = Presence(config, images.table.classes)
    rows = np.unique(np.linspace(0, len(images) - 1, MOST_IMAGES).round().astype(int)).tolist()
    for index in progress(rows, "decoding"):
        presence.add(images.answer(index, config))
    return presence


def share_warnings(test: Presence, out_of_fold: Presence) -> list[str]:
    """Say which shares differ by more than chance and by more than is usual between test and training images."""
    if not test.number or not out_of_fold.number:
        return []
    numbers = np.array([test.number, out_of_fold.number])
    pooled = (test.counts + out_of_fold.counts) / numbers.sum()
    here, there = test.counts / test.number, out_of_fold.counts / out_of_fold.number
    error = np.sqrt(pooled * (1 - pooled) * (1 / numbers).sum())
    is_sure = np.abs(here - there) > SIGNIFICANT * np.maximum(error, 1e-9)
    is_large = np.abs(here - there) > LEAST_CHANGE * np.maximum(here, there)
    names = [*(f"class {name}" for name in test.classes), "nothing"]
    return [
        f"warning: {names[i]} is said of {here[i]:.1%} of the test images, of {there[i]:.1%} of the out-of-fold images"
        for i in np.flatnonzero(is_sure & is_large).tolist()
    ]
