"""What a task type consists of: the modules in its folder and the functions each must have.

Read in this order they are the life of one item: row -> sample -> batch -> outputs -> loss -> prediction ->
score -> submission row. Common code finds them by name, so a new task type is a new folder.
"""

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

if TYPE_CHECKING:  # verbs that need no tensor must not import torch
    from torch import Tensor, nn

    from competition.settings import Config

# What is known of one image's answer, in the words of albumentations: `mask`, or `bboxes` and `labels`, or `label`.
Target = dict[str, Any]
# What a network says of one image, as numpy arrays: the same keys for every image; stored in oof.npz and test.npz.
Prediction = dict[str, np.ndarray]
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
        """(n,) line of the csv file on which the image first appears, for messages."""
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


class PredictionModule(Protocol):
    """prediction.py: from outputs to what is handed in."""

    def predictions(self, network: "nn.Module", outputs: Any, batch: dict[str, Any]) -> list[Prediction]:
        """Return one prediction an image."""
        ...


class DecodeModule(Protocol):
    """decode.py: from stored predictions to answers. No torch."""

    def average(self, predictions: Sequence[Prediction], config: "Config") -> Prediction:
        """Join the predictions of several networks for one image."""
        ...

    def decode(self, prediction: Prediction, height: int, width: int, config: "Config") -> Target:
        """Return the answer in pixels of the original image."""
        ...


class ScoreModule(Protocol):
    """score.py: the metrics. No torch."""

    def evidence(self, answer: Target, truth: Target) -> Evidence:
        """Compare one decoded answer with the truth."""
        ...

    def scores(self, evidence: Sequence[Evidence], metrics: Iterable[str], num_classes: int) -> dict[str, float]:
        """Compute metrics once over the whole set."""
        ...

    def constant_answers(self, table: Table) -> tuple[str, Target]:
        """Return what the best submission without looking at images is called, and its answer for every image."""
        ...


class SubmissionModule(Protocol):
    """submission.py: the csv file that is handed in. No torch."""

    def read_test_ids(self, sample: Path, classes: Sequence[str]) -> np.ndarray:
        """Return the image ids of sample_submission.csv in order; raise CompetitionError on a wrong format."""
        ...

    def write_submission(
        self, path: Path, sample: Path, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
    ) -> None:
        """Write answers, which come in the order of sample_submission.csv, with its columns."""
        ...

    def read_submission(
        self, path: Path, classes: Sequence[str], sizes: Mapping[str, tuple[int, int]]
    ) -> Iterator[tuple[str, Target]]:
        """Read a submission back image by image: the inverse of `write_submission`.

        `sizes` are the images' heights and widths. Raises CompetitionError on the first row that is not valid.
        """
        ...


class MadeUpModule(Protocol):
    """made_up.py: a small made-up competition. No torch."""

    def make_competition(self, folder: Path, num_train: int, num_test: int, seed: int) -> None:
        """Write train.csv, train_images/, test_images/, sample_submission.csv and solution.csv."""
        ...


@dataclass(frozen=True)
class Task:
    """The modules of one task type, imported when first used."""

    name: str

    def _module(self, part: str) -> ModuleType:
        return importlib.import_module(f"competition.tasks.{self.name}.{part}")

    @property
    def table(self) -> TableModule:
        """From csv to answers."""
        return cast(TableModule, self._module("table"))

    @property
    def dataset(self) -> DatasetModule:
        """From an answer to tensors."""
        return cast(DatasetModule, self._module("dataset"))

    @property
    def model(self) -> ModelModule:
        """The network."""
        return cast(ModelModule, self._module("model"))

    @property
    def loss(self) -> LossModule:
        """The loss."""
        return cast(LossModule, self._module("loss"))

    @property
    def prediction(self) -> PredictionModule:
        """From outputs to predictions."""
        return cast(PredictionModule, self._module("prediction"))

    @property
    def decode(self) -> DecodeModule:
        """From predictions to answers."""
        return cast(DecodeModule, self._module("decode"))

    @property
    def score(self) -> ScoreModule:
        """The metrics."""
        return cast(ScoreModule, self._module("score"))

    @property
    def submission(self) -> SubmissionModule:
        """The csv file that is handed in."""
        return cast(SubmissionModule, self._module("submission"))

    @property
    def made_up(self) -> MadeUpModule:
        """A small made-up competition."""
        return cast(MadeUpModule, self._module("made_up"))
