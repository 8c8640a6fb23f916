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
    import pandas as pd
    from torch import Tensor, nn

    from competition.settings import Config
    from competition.views import View
    from competition.windows import Place

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
        """(n,) line of the csv file on which the image first appears, for messages; 0 for an image without a row."""
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


class PresenceModule(Protocol):
    """presence.py: which classes an answer says are there. No torch."""

    def present(self, answer: Target, num_classes: int) -> np.ndarray:
        """Return (classes,) bool of a decoded answer; (0,) where an answer says nothing of classes."""
        ...


class SummaryModule(Protocol):
    """summary.py: what a prediction says of an image in a few numbers, by which runs are compared. No torch."""

    def summary(self, prediction: Prediction, height: int, width: int, num_classes: int) -> np.ndarray:
        """Return (n,) float of the prediction of an image of height x width pixels; n is the same for all images."""
        ...


class PseudoLabelsModule(Protocol):
    """pseudo_labels.py: predictions of test images as training rows, in a format of the project's own. No torch."""

    def own_format(self, config: "Config") -> Any:
        """Return the `format:` by which `read_table` reads these rows; raise CompetitionError where there is none."""
        ...

    def confidence(self, prediction: Prediction, answer: Target, config: "Config") -> float:
        """Return how sure a prediction is of its decoded answer, from 0 to 1."""
        ...

    def label_columns(self, classes: tuple[str, ...], config: "Config") -> list[str]:
        """Return the columns of the csv file."""
        ...

    def label_rows(
        self, image_id: str, answer: Target, height: int, width: int, classes: tuple[str, ...], config: "Config"
    ) -> list[list[str]]:
        """Return the rows of an image of height x width pixels."""
        ...


class ScoreModule(Protocol):
    """score.py: the metrics. No torch."""

    def evidence(self, answer: Target, truth: Target) -> Evidence:
        """Compare one decoded answer with the truth."""
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


class Scored(Protocol):
    """Stored predictions of many images with what is known of them; images are numbered 0 to n - 1."""

    def __len__(self) -> int:
        """Return n."""
        ...

    def prediction(self, index: int) -> Prediction:
        """Read the stored prediction of an image from disk."""
        ...

    def truth(self, index: int) -> Target:
        """Return the answer in pixels of the original image."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Return the original height and width."""
        ...

    def score(self, config: "Config", rows: np.ndarray) -> float:
        """Decode the images `rows` by `config.decode` and return the first metric (or the host's), more is better."""
        ...


class Search(Protocol):
    """A search for the best `decode:`; what it has to look at of every image it has looked at once."""

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the keys of `decode:` that score best on the images `rows`, as plain values."""
        ...


class RecogniseModule(Protocol):
    """recognise.py: which `format:` the files of a competition have. No torch."""

    def recognise(self, train: "pd.DataFrame", sample: "pd.DataFrame") -> dict[str, Any] | None:
        """Return the part of a config (`format:`, `data:`) that reads these files, of which the first rows are given as
        text; none where they are not of this task."""
        ...


class TuningModule(Protocol):
    """tuning.py: which thresholds score best on out-of-fold predictions. No torch."""

    def search(self, config: "Config", images: Scored, num_classes: int) -> Search:
        """Prepare a search over the images."""
        ...

    def regression_sample(
        self, predictions: Sequence[Prediction], truth: Target, seed: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return (k, models) numbers of several models for one image and (k,) of the truth, the same scale, to find
        the models' weights by non-negative least squares; none where predictions are no such numbers (boxes)."""
        ...


@dataclass(frozen=True)
class Part:
    """A box of an image, or a connected part of a mask, by what tells which are odd."""

    class_number: int
    area: float  # share of the image
    elongation: float  # the longer side of its box through the shorter one, 1 or more
    outside: float  # share of it that reaches out of the image


class PictureModule(Protocol):
    """picture.py: how answers look on their images. No torch."""

    def draw(
        self, picture: np.ndarray, answer: Target, height: int, width: int, colors: Sequence[tuple[int, int, int]]
    ) -> None:
        """Draw an answer in pixels of an image of height x width onto a picture of it (h, w, 3) uint8 of any size;
        class k has the color k, counted round."""
        ...

    def caption(self, answer: Target, classes: tuple[str, ...]) -> str:
        """Say the truth, or an answer, in a few words."""
        ...

    def parts(self, table: Table, index: int, target: Target, height: int, width: int) -> list[Part]:
        """Return the parts of an image's answer; none where answers have none."""
        ...

    def part_name(self) -> str | None:
        """Return what parts are called, many of them; none where answers are of whole images and nothing is drawn."""
        ...

    def amount_name(self, config: "Config") -> str | None:
        """Return what `Table.amounts` counts; none where it is nothing to draw a distribution of."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How the answer for one image compares with the truth."""

    score: float  # the more the better, comparable between images
    too_much: float  # how much is said that is not true; 0 for nothing
    too_little: float  # how much is true that is not said
    # What was claimed, each with its class, how sure it is, and whether it is right; and how much there was to find.
    labels: np.ndarray  # (k,) int
    confidences: np.ndarray  # (k,) float
    hits: np.ndarray  # (k,) bool
    num_true: np.ndarray  # (classes,) int
    # Where there is one answer an image: the true and the given class (int), or number (float).
    pair: tuple[int, int] | tuple[float, float] | None = None


class OutcomeModule(Protocol):
    """outcome.py: how single answers compare with the truth, to see where a run fails. No torch."""

    def outcome(self, prediction: Prediction, answer: Target, truth: Target, num_classes: int) -> Outcome:
        """Compare the decoded answer of one image with the truth."""
        ...

    def score_name(self, config: "Config") -> str:
        """Return what an outcome's score is."""
        ...

    def threshold_name(self, config: "Config") -> str | None:
        """Return the key of `decode:` that one number for all classes decides by; none where nothing is decided so."""
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
    def windows(self) -> WindowsModule:
        """From the predictions of windows to that of the image."""
        return cast(WindowsModule, self._module("windows"))

    @property
    def decode(self) -> DecodeModule:
        """From predictions to answers."""
        return cast(DecodeModule, self._module("decode"))

    @property
    def presence(self) -> PresenceModule:
        """Which classes an answer says are there."""
        return cast(PresenceModule, self._module("presence"))

    @property
    def summary(self) -> SummaryModule:
        """What a prediction says in a few numbers."""
        return cast(SummaryModule, self._module("summary"))

    @property
    def pseudo_labels(self) -> PseudoLabelsModule:
        """Predictions as training rows."""
        return cast(PseudoLabelsModule, self._module("pseudo_labels"))

    @property
    def score(self) -> ScoreModule:
        """The metrics."""
        return cast(ScoreModule, self._module("score"))

    @property
    def submission(self) -> SubmissionModule:
        """The csv file that is handed in."""
        return cast(SubmissionModule, self._module("submission"))

    @property
    def recognise(self) -> RecogniseModule:
        """Which format a competition's files have."""
        return cast(RecogniseModule, self._module("recognise"))

    @property
    def tuning(self) -> TuningModule:
        """Which thresholds score best."""
        return cast(TuningModule, self._module("tuning"))

    @property
    def picture(self) -> PictureModule:
        """How answers look."""
        return cast(PictureModule, self._module("picture"))

    @property
    def outcome(self) -> OutcomeModule:
        """How single answers compare with the truth."""
        return cast(OutcomeModule, self._module("outcome"))

    @property
    def made_up(self) -> MadeUpModule:
        """A small made-up competition."""
        return cast(MadeUpModule, self._module("made_up"))
