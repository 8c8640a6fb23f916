"""The life of one item, and the functions that each module of a task's folder has for it.

Read in this order: row -> sample -> batch -> outputs -> loss -> prediction -> answer -> score -> submission row. What
else a task's folder has, to tune and to look at, is in contract_aids.py.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:  # verbs that need no tensor must not import torch
    from torch import Tensor, nn

    from competition.settings import Config
    from competition.views import View
    from competition.windows import Place

# What is known of one image's answer, in the words of albumentations: `mask`, or `bboxes` and `labels`, or `label`.
Target = dict[str, Any]
# What a network says of one image, as numpy arrays: the same keys for every image; stored in oof.npz and test.npz.
Prediction = dict[str, np.ndarray]
TRIAL_SIZE = (64, 64)  # height and width of the images of trial predictions
# What the metrics need to know of one image: arrays that can be gathered from all processes by image id.
Evidence = dict[str, np.ndarray]


class Table(Protocol):
    """train.csv: an entry per image, in order of first appearance."""

    @property
    def image_ids(self) -> np.ndarray:
        """(n,) str."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of predictions."""
        ...

    @property
    def lines(self) -> np.ndarray:
        """(n,) line of the csv file on which the image first appears, for messages; 0 for an image without a row."""
        ...

    @property
    def groups(self) -> np.ndarray | None:
        """(n,) str: images of an equal one are answered as one and never split over folds; none in most tasks."""
        ...

    def target(self, index: int, height: int, width: int) -> Target:
        """Return the answer for one image in pixels of the original image."""
        ...

    def present(self) -> np.ndarray:
        """Return (n, classes), true where an image has a mask or box of a class, or bears its label."""
        ...

    def strata(self) -> np.ndarray:
        """Return (n,) int codes: images of equal code should be spread evenly over the folds."""
        ...

    def amounts(self) -> np.ndarray:
        """Return (n,) float: how much is on an image (pixels of masks, boxes, labels, or the value of a regression)."""
        ...

    def summary(self) -> list[str]:
        """Describe the answers in a few lines: counts of classes and of empty images."""
        ...


class TableModule(Protocol):
    """table.py: from csv to answers. No torch."""

    def read_table(self, config: "Config", path: Path | None = None) -> Table:
        """Read train.csv (or another file of its format); raise CompetitionError with every fault found."""
        ...


class DatasetModule(Protocol):
    """dataset.py: from an answer to tensors."""

    def target_tensors(self, target: Target) -> "dict[str, Tensor]":
        """Turn an augmented target into tensors at model resolution."""
        ...

    def collate_targets(self, targets: "Sequence[dict[str, Tensor]]") -> dict[str, Any]:
        """Join the targets of a batch."""
        ...

    def mix_batch(self, batch: dict[str, Any], config: "Config", rng: np.random.Generator) -> dict[str, Any]:
        """Mix the images of a training batch with each other (mixup, cutmix, mosaic) where the config asks for it."""
        ...


class ModelModule(Protocol):
    """model.py: the network."""

    def build_network(self, config: "Config", num_classes: int) -> "nn.Module":
        """Return a network that maps images (B, channels, H, W) to outputs."""
        ...


class LossModule(Protocol):
    """loss.py: the loss."""

    def image_losses(self, network: "nn.Module", outputs: Any, batch: dict[str, Any], config: "Config") -> "Tensor":
        """Return (B,) losses, one an image, so that their mean depends neither on batch size nor on processes."""
        ...

    def weights(self, config: "Config") -> Mapping[str, float]:
        """Return the losses that are added up, by their keys of `loss:`, with their weights."""
        ...


class PredictionModule(Protocol):
    """prediction.py: from outputs to what is handed in."""

    def predictions(self, network: "nn.Module", outputs: Any, batch: dict[str, Any]) -> list[Prediction]:
        """Return one prediction an image."""
        ...

    def undo_view(self, prediction: Prediction, view: "View", height: int, width: int) -> Prediction:
        """Turn the prediction of an image that was seen in a view back to the image as it is, height x width."""
        ...


class Joining(Protocol):
    """What the windows of one image have said so far."""

    def add(self, prediction: Prediction, place: "Place") -> None:
        """Take the prediction of a window, made as if of an image."""
        ...

    def joined(self) -> Prediction:
        """Return that of the image, once all windows have been added."""
        ...


class WindowsModule(Protocol):
    """windows.py: from the predictions of an image's windows to that of the image. No torch."""

    def joining(self, height: int, width: int) -> Joining:
        """Begin an image of height x width pixels."""
        ...


class DecodeModule(Protocol):
    """decode.py: from stored predictions to answers. No torch."""

    def average(
        self, predictions: Sequence[Prediction], config: "Config", weights: Sequence[float] | None = None
    ) -> Prediction:
        """Join the predictions of several networks or views for one image; equal weights unless given."""
        ...

    def hands_in_decisions(self, config: "Config") -> bool:
        """Return whether what is handed in is decided by thresholds, for which the scale of predictions matters."""
        ...

    def unused_settings(self, config: "Config") -> dict[str, str]:
        """Return the keys of `decode:` that neither what is handed in nor its score goes by, each with the reason."""
        ...

    def decode(self, prediction: Prediction, height: int, width: int, config: "Config") -> Target:
        """Return the answer in pixels of the original image."""
        ...

    def difference(self, found: Prediction, stored: Prediction) -> float:
        """Return how far two predictions of one image are apart, as a probability or score from 0 to 1; made by the
        same network on other hardware or in half precision they differ by a few hundredths at most."""
        ...

    def unseen(self, prediction: Prediction, known: Iterable[Prediction]) -> Prediction:
        """Return what stands for an image that cannot be read, shaped as a prediction: nothing, or, where every image
        needs an answer, the mean of `known` predictions of other images."""
        ...

    def trial_predictions(self, num_classes: int, config: "Config") -> Iterator[Prediction]:
        """Yield made-up predictions of images of TRIAL_SIZE, by which a submission can be tried before there is a
        network: one that names nothing, then one that is sure of each class."""
        ...


class ScoreModule(Protocol):
    """score.py: the metrics. No torch."""

    def evidence(self, answer: Target, truth: Target, metrics: Collection[str]) -> Evidence:
        """Compare one decoded answer with the truth, as far as these metrics need it."""
        ...

    def scores(self, evidence: Sequence[Evidence], metrics: Iterable[str], num_classes: int) -> dict[str, float]:
        """Compute metrics once over the whole set."""
        ...

    def lower_is_better(self, metric: str) -> bool:
        """Return whether a smaller value of a metric is the better one."""
        ...

    def constant_answers(self, table: Table) -> tuple[str, Target]:
        """Return what the best submission without looking at images is called, and its answer for every image."""
        ...


class SubmissionModule(Protocol):
    """submission.py: the csv file that is handed in, in the format of `format:`. No torch."""

    def id_columns(self, config: "Config") -> list[str]:
        """Return the columns that tell the rows apart; they are those of sample_submission.csv, in its order."""
        ...

    def number_columns(self, config: "Config", classes: Sequence[str]) -> list[str]:
        """Return the columns that hold a number a row; others are text, even where it reads as one."""
        ...

    def read_test_ids(self, config: "Config", classes: Sequence[str]) -> np.ndarray:
        """Return the image ids of sample_submission.csv in order; raise CompetitionError on a wrong format."""
        ...

    def asked_classes(self, config: "Config", classes: Sequence[str]) -> set[str] | None:
        """Return the classes that sample_submission.csv has rows for; none where rows do not tell classes apart."""
        ...

    def write_submission(
        self, path: Path, config: "Config", answers: Iterable[tuple[str, Target]], classes: Sequence[str]
    ) -> None:
        """Write answers, which come in the order of sample_submission.csv, with its columns."""
        ...

    def rows(
        self, config: "Config", answers: Iterable[tuple[str, Target]], classes: Sequence[str]
    ) -> tuple[list[str], Iterator[list[str]]]:
        """Return columns and rows of a submission of any images, as a host's metric takes it."""
        ...

    def perfect_answer(self, truth: Target, num_classes: int) -> Target:
        """Return the answer that a submission of the truth would hold."""
        ...

    def read_submission(
        self, path: Path, config: "Config", classes: Sequence[str], sizes: Mapping[str, tuple[int, int]]
    ) -> Iterator[tuple[str, Target]]:
        """Read a submission back image by image: the inverse of `write_submission`.

        `sizes` are the images' heights and widths. Raises CompetitionError on the first row that is not valid.
        """
        ...
