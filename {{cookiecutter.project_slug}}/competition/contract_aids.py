"""What a task's folder has beside the life of an item (contract.py): to recognise formats, tune, compare and look."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from competition.contract import Prediction, Table, Target

if TYPE_CHECKING:
    import pandas as pd

    from competition.data_settings import Data
    from competition.settings import Config


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


class RecogniseModule(Protocol):
    """recognise.py: which `format:` the files of a competition have. No torch."""

    def recognise(
        self, train: "pd.DataFrame", sample: "pd.DataFrame", data: "Data | None" = None
    ) -> dict[str, Any] | None:
        """Return the part of a config (`format:`, `data:`) that reads these files, of which the first rows are given as
        text; none where they are not of this task. `data` says where other files lie, if answers may be files."""
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


class PseudoLabelsModule(Protocol):
    """pseudo_labels.py: predictions of test images as training rows, in a format of the project's own. No torch."""

    def own_format(self, config: "Config") -> Any:
        """Return the `format:` by which `read_table` reads these rows; raise CompetitionError where there is none."""
        ...

    def confidence(self, prediction: Prediction, answer: Target, config: "Config") -> float:
        """Return how sure a prediction is of its decoded answer, from 0 to 1."""
        ...

    def confidence_name(self, config: "Config") -> str:
        """Return what that number of an image is, in a few words."""
        ...

    def label_columns(self, classes: tuple[str, ...], config: "Config") -> list[str]:
        """Return the columns of the csv file."""
        ...

    def label_rows(
        self, image_id: str, answer: Target, height: int, width: int, classes: tuple[str, ...], config: "Config"
    ) -> list[list[str]]:
        """Return the rows of an image of height x width pixels."""
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

    def threshold_names(self, config: "Config") -> Sequence[str]:
        """Return the keys of `decode:` that one number for all classes is to stand for; none where nothing is decided
        so."""
        ...


class MadeUpModule(Protocol):
    """made_up.py: a small made-up competition. No torch."""

    def make_competition(self, folder: Path, num_train: int, num_test: int, seed: int) -> None:
        """Write train.csv, train_images/, test_images/, sample_submission.csv and solution.csv."""
        ...
