"""A task type: the modules in its folder, found by name, so that a new task type is a new folder.

Their contract stands here in the order of an item's life: row -> sample -> batch -> outputs -> loss -> prediction ->
answer -> score -> submission row; then what tuning, pages and `check` ask. Only signatures: what a function does, its
shapes and errors, is said where it is, in `competition/tasks/<task>/<module>.py`.
"""

import importlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, cast, overload

import numpy as np

if TYPE_CHECKING:  # verbs that need no tensor must not import torch
    import pandas as pd
    from torch import Tensor, nn

    from competition.config.data_settings import Data
    from competition.config.settings import Config
    from competition.config.views import View
    from competition.tasks.windows import Place

# What is known of one image's answer, in the words of albumentations: `mask`, or `bboxes` and `labels`, or `keypoints`
# and `labels`, or `label`.
Target = dict[str, Any]
# What a network says of one image, as numpy arrays: the same keys for every image; stored in oof.npz and test.npz.
Prediction = dict[str, np.ndarray]
# What the metrics need to know of one image: arrays that can be gathered from all processes by image id.
Evidence = dict[str, np.ndarray]

TRIAL_SIZE = (64, 64)  # height and width of the images of trial predictions


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

    def read_table(self, config: "Config", path: Path | None = None) -> Table: ...
    def renumbered(self, target: Target, numbers: np.ndarray, num_classes: int) -> Target: ...


class DatasetModule(Protocol):
    """dataset.py: from an answer to tensors; images of a batch mixed with each other (mixup, cutmix, mosaic)."""

    def target_tensors(self, target: Target) -> "dict[str, Tensor]": ...
    def collate_targets(self, targets: "Sequence[dict[str, Tensor]]") -> dict[str, Any]: ...
    def mix_batch(self, batch: dict[str, Any], config: "Config", rng: np.random.Generator) -> dict[str, Any]: ...
    def batch_targets(self, batch: dict[str, Any]) -> list[Target]: ...


class ModelModule(Protocol):
    """model.py: the network, which maps images (B, channels, H, W) to outputs."""

    def build_network(self, config: "Config", num_classes: int) -> "nn.Module": ...


class LossModule(Protocol):
    """loss.py: (B,) losses, one an image, so that their mean depends neither on batch size nor on processes."""

    def image_losses(self, network: "nn.Module", outputs: Any, batch: dict[str, Any], config: "Config") -> "Tensor": ...
    def weights(self, config: "Config") -> Mapping[str, float]: ...


class Joining(Protocol):
    """What the windows of one image have said so far."""

    def add(self, prediction: Prediction, place: "Place") -> None:
        """Take the prediction of a window, made as if of an image."""
        ...

    def joined(self) -> Prediction:
        """Return that of the image, once all windows have been added."""
        ...


class PredictionModule(Protocol):
    """prediction.py: from outputs to what is stored; of a view back to the image, of windows to that of the whole."""

    def predictions(self, network: "nn.Module", outputs: Any, batch: dict[str, Any]) -> list[Prediction]: ...
    def undo_view(self, prediction: Prediction, view: "View", height: int, width: int) -> Prediction: ...
    def joining(self, height: int, width: int) -> Joining: ...


class DecodeModule(Protocol):
    """decode.py: from stored predictions to answers in pixels of the original image. No torch."""

    def average(
        self, predictions: Sequence[Prediction], config: "Config", weights: Sequence[float] | None = None
    ) -> Prediction: ...
    def hands_in_decisions(self, config: "Config") -> bool: ...
    def unused_settings(self, config: "Config") -> dict[str, str]: ...
    def decode(self, prediction: Prediction, height: int, width: int, config: "Config") -> Target: ...
    def difference(self, found: Prediction, stored: Prediction) -> float: ...
    def unseen(self, prediction: Prediction, known: Iterable[Prediction]) -> Prediction: ...
    def trial_predictions(self, num_classes: int, config: "Config") -> Iterator[Prediction]: ...


class ScoreModule(Protocol):
    """score.py: the metrics, computed once over the whole set from evidence of each image. No torch."""

    def evidence(self, answer: Target, truth: Target, metrics: Collection[str]) -> Evidence: ...
    def scores(self, evidence: Sequence[Evidence], metrics: Iterable[str], num_classes: int) -> dict[str, float]: ...
    def lower_is_better(self, metric: str) -> bool: ...
    def constant_answers(self, table: Table) -> tuple[str, Target]: ...


class SubmissionModule(Protocol):
    """submission.py: the csv file that is handed in, in the format of `format:`, written and read back. No torch."""

    def id_columns(self, config: "Config") -> list[str]: ...
    def number_columns(self, config: "Config", classes: Sequence[str]) -> list[str]: ...
    def read_test_ids(self, config: "Config", classes: Sequence[str]) -> np.ndarray: ...
    def asked_classes(self, config: "Config", classes: Sequence[str]) -> set[str] | None: ...
    def write_submission(
        self, path: Path, config: "Config", answers: Iterable[tuple[str, Target]], classes: Sequence[str]
    ) -> None: ...
    def rows(
        self, config: "Config", answers: Iterable[tuple[str, Target]], classes: Sequence[str]
    ) -> tuple[list[str], Iterator[list[str]]]: ...
    def perfect_answer(self, truth: Target, num_classes: int) -> Target: ...
    def read_submission(
        self, path: Path, config: "Config", classes: Sequence[str], sizes: Mapping[str, tuple[int, int]]
    ) -> Iterator[tuple[str, Target]]: ...


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


class TuningModule(Protocol):
    """tuning.py: which thresholds score best on out-of-fold predictions. No torch."""

    def search(self, config: "Config", images: Scored, num_classes: int) -> Search: ...
    def regression_sample(
        self, predictions: Sequence[Prediction], truth: Target, seed: int
    ) -> tuple[np.ndarray, np.ndarray] | None: ...


class PseudoLabelsModule(Protocol):
    """pseudo_labels.py: predictions of test images as training rows, in a format of the project's own. No torch."""

    def own_format(self, config: "Config", columns: Sequence[str] = ()) -> Any: ...
    def confidence(self, prediction: Prediction, answer: Target, config: "Config") -> float: ...
    def confidence_name(self, config: "Config") -> str: ...
    def is_soft(self, config: "Config") -> bool: ...
    def label_columns(self, classes: tuple[str, ...], config: "Config") -> list[str]: ...
    def label_rows(
        self, image_id: str, answer: Target, height: int, width: int, classes: tuple[str, ...], config: "Config"
    ) -> list[list[str]]: ...


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
    ) -> None: ...
    def caption(self, answer: Target, classes: tuple[str, ...]) -> str: ...
    def parts(self, table: Table, index: int, target: Target, height: int, width: int) -> list[Part]: ...
    def part_name(self) -> str | None: ...
    def amount_name(self, config: "Config") -> str | None: ...


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
    """outcome.py: what an answer says of its image, and how it compares with the truth and with other runs'. No
    torch."""

    def present(self, answer: Target, num_classes: int) -> np.ndarray: ...
    def summary(self, prediction: Prediction, height: int, width: int, num_classes: int) -> np.ndarray: ...
    def outcome(self, prediction: Prediction, answer: Target, truth: Target, num_classes: int) -> Outcome: ...
    def score_name(self, config: "Config") -> str: ...
    def threshold_names(self, config: "Config") -> Sequence[str]: ...


class RecogniseModule(Protocol):
    """formats/recognise.py: which `format:` the files of a competition may have, the likeliest first; what of it only
    answers and images tell, and what is assumed. No torch."""

    def readings(
        self, train: "pd.DataFrame", sample: "pd.DataFrame", data: "Data | None" = None
    ) -> list[dict[str, Any]]: ...
    def settle(self, config: "Config", table: Table) -> tuple[dict[str, Any], list[str]]: ...


class MadeUpModule(Protocol):
    """made_up.py: a small made-up competition. No torch."""

    def make_competition(self, folder: Path, num_train: int, num_test: int, seed: int) -> None: ...


Contract = TypeVar("Contract")


class Module(Generic[Contract]):
    """A module of a task's folder that has the functions of a contract, imported when first used."""

    def __init__(self, contract: type[Contract], folder: str = "") -> None:
        self.contract, self.folder = contract, folder

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"{self.folder}.{name}" if self.folder else name

    @overload
    def __get__(self, task: None, owner: type) -> Self: ...

    @overload
    def __get__(self, task: "Task", owner: type) -> Contract: ...

    def __get__(self, task: "Task | None", owner: type) -> "Self | Contract":
        """Return the module of a task."""
        if task is None:
            return self
        return cast(Contract, importlib.import_module(f"competition.tasks.{task.name}.{self.name}"))


@dataclass(frozen=True)
class Task:
    """The modules of one task type: `Task("detection").decode` is competition/tasks/detection/decode.py."""

    name: str

    # The life of an item.
    table = Module(TableModule)
    dataset = Module(DatasetModule)
    model = Module(ModelModule)
    loss = Module(LossModule)
    prediction = Module(PredictionModule)
    decode = Module(DecodeModule)
    score = Module(ScoreModule)
    submission = Module(SubmissionModule)

    # To tune, compare, look and recognise.
    tuning = Module(TuningModule)
    pseudo_labels = Module(PseudoLabelsModule)
    picture = Module(PictureModule)
    outcome = Module(OutcomeModule)
    recognise = Module(RecogniseModule, "formats")
    made_up = Module(MadeUpModule)
