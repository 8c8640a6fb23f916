"""What a config of points may hold beside the common sections."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from competition.config.data_settings import named_step
from competition.config.encoder_decoder import EncoderDecoder
from competition.config.section import Count, Losses, Positive, Probability, Section
from competition.config.settings import Config

Weight = Annotated[float, Field(ge=0)]
Units = Literal["pixels", "shares"]
COORDINATES = ("x", "y")
OF_STRINGS = (*COORDINATES, "w", "h", "class", "conf")  # words that say something of a point; others are passed over
F_SCORE = re.compile(r"f(\d+(\.\d+)?)(_mean)?")


def _of_points(words: str) -> str:
    found = words.split()
    if any(found.count(name) != 1 for name in COORDINATES) or any(found.count(name) > 1 for name in OF_STRINGS):
        raise ValueError(f"expected x and y once, as in 'class x y'; known words: {', '.join(OF_STRINGS)}")
    return words


def _refuse_other_numbers(points: list[str] | str, key: str) -> None:
    if isinstance(points, list) and len(points) != len(COORDINATES):
        raise ValueError(f"{key} lists {len(points)} columns; expected those of x and y, or the name of one")


class PointsModel(EncoderDecoder):
    """A network of segmentation-models-pytorch that draws a heatmap a class; any timm encoder as `tu-NAME`."""

    architecture: Literal["unet", "fpn", "deeplabv3plus", "segformer", "upernet"] = "unet"
    stride: Literal[1, 2, 4] = 4  # pixels that the network sees to a cell of its heatmaps


class PointsLoss(Losses):
    """Weights of the losses, which are added up, and what the heatmaps are that they teach."""

    parameters: ClassVar[dict[str, str]] = {"focal_alpha": "focal", "focal_beta": "focal"}
    focal: Weight = 1.0  # penalty-reduced (Law & Deng 2018; Zhou et al. 2019), as CenterNet learns by
    bce: Weight = 0.0  # binary cross entropy against the heatmap itself, whose heights are learnt, too
    mse: Weight = 0.0  # mean square error against the same
    sigma: Positive = 4.0  # how wide the bump around a point is, in pixels that the network sees
    focal_alpha: Weight = 2.0  # the higher, the less easy cells count
    focal_beta: Weight = 4.0  # the higher, the less cells around a point count

    @model_validator(mode="after")
    def _something_is_learnt(self) -> Self:
        if not self.focal + self.bce + self.mse + sum(self.files.values()):
            raise ValueError("loss: nothing is learnt; give focal, bce or mse a weight over 0")
        return self


class PointsMix(Section):
    """Share of a batch's images that are mixed with others of the batch."""

    mosaic: Probability = 0.0  # four images at half scale
    mixup: Probability = 0.0  # the mean of two images, with the points of both


class Matching(Section):
    """When a point counts as found."""

    distance: Positive | list[Positive] = 10.0  # pixels of the original image, at most; or one a class, in their order
    # Instead anywhere within the true point's box, of a format.point_string with w and h.
    inside_box: bool = False


class PointsDecode(Section):
    """From heatmaps to the points that are handed in."""

    min_score: Probability | list[Probability] = 0.3  # of a point that is handed in; or one a class, in their order
    min_distance: Annotated[float, Field(ge=0)] = 0.0  # pixels to a better one, below which a point is left out
    class_agnostic: bool = False  # whether points of different classes are in each other's way, too
    max_points: Count = 1000  # an image


class PointsSubmission(Section):
    """How submission.csv is written: a row a point, or a row an image with its points in one string."""

    image_id: str = "image_id"  # column
    class_id: str | None = "class_id"  # column of a row a point; null: no class is handed in
    points: list[str] | str = list(COORDINATES)  # two columns of a row a point; or one of strings
    string: str = "class conf x y"  # the words of each point in a string, again and again
    confidence: str | None = "confidence"  # column of a row a point; null: none is handed in
    units: Units | None = None  # None: those of train.csv
    decimals: Annotated[int, Field(ge=0, le=6)] = 2  # of coordinates in pixels; 0: whole pixels
    none: str = ""  # what stands for an image without any point: as the string, or in the columns of its only row

    @property
    def is_rows(self) -> bool:
        """Whether a row is a point."""
        return isinstance(self.points, list)

    @property
    def has_class(self) -> bool:
        """Whether classes are handed in."""
        return self.class_id is not None if self.is_rows else "class" in self.string.split()

    @property
    def point_columns(self) -> list[str]:
        """Columns that points stand in."""
        return self.points if isinstance(self.points, list) else [self.points]

    @field_validator("string")
    @classmethod
    def _tells_points(cls, words: str) -> str:
        return _of_points(words)

    @model_validator(mode="after")
    def _two_columns(self) -> Self:
        _refuse_other_numbers(self.points, "format.submission.points")
        return self


class PointsFormat(Section):
    """How train.csv and the submission are written."""

    like: str | None = None  # a known competition's name in formats/known.yaml, whose settings stand under these
    image_id: str = "image_id"  # column
    class_id: str | None = "class_id"  # column; null: there is one class
    points: list[str] | str = list(COORDINATES)  # the columns of x and y; or one of strings
    # The words of each point in a string, as `class x y` or, of boxes whose centres are asked for, `class x y w h`.
    point_string: str | None = None
    units: Units = "pixels"  # from the image's upper left corner; shares: of its width and height, from 0 to 1
    empty: str = ""  # what stands in the columns of an image without any point beside nothing, as -1
    submission: PointsSubmission = PointsSubmission()

    @property
    def submits_shares(self) -> bool:
        """Whether points are handed in as shares of the image's sides."""
        return (self.submission.units or self.units) == "shares"

    @property
    def point_columns(self) -> list[str]:
        """Columns of train.csv that points stand in."""
        return self.points if isinstance(self.points, list) else [self.points]

    @field_validator("point_string")
    @classmethod
    def _tells_points(cls, words: str | None) -> str | None:
        return words if words is None else _of_points(words)

    @model_validator(mode="after")
    def _points_fit(self) -> Self:
        _refuse_other_numbers(self.points, "format.points")
        if isinstance(self.points, list) == (self.point_string is not None):
            raise ValueError("format.point_string is for points in one column, and needed there, as 'class x y'")
        if self.point_string and "class" in self.point_string.split() and self.class_id is not None:
            raise ValueError("format.point_string tells the classes; expected format.class_id: null")
        return self


def _known_metric(name: str) -> str:
    if name not in ("precision", "recall", "ap") and not F_SCORE.fullmatch(name):
        raise ValueError("expected ap, precision, recall, or f and its beta, as f1, f0.5, f4; f4_mean: of the classes")
    return name


def beta_of(metric: str) -> float | None:
    """Return the beta of an F-score; none of another metric."""
    found = F_SCORE.fullmatch(metric)
    return float(found[1]) if found else None


# Of albumentations 2.0.8, which scales points from the middle of the first pixel.
SCALING = (
    *("RandomScale", "LongestMaxSize", "SmallestMaxSize", "Resize", "RandomResizedCrop", "RandomSizedCrop"),
    *("RandomSizedBBoxSafeCrop", "CropAndPad"),
)


def _names_of(steps: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for step in steps:
        name, arguments = named_step(step)
        yield name
        yield from _names_of(arguments.get("transforms") or ())


class TaskConfig(Config):
    """An experiment that looks for points."""

    task: Literal["points"]
    model: PointsModel = PointsModel()
    format: PointsFormat = PointsFormat()
    mix: PointsMix = PointsMix()
    loss: PointsLoss = PointsLoss()
    matching: Matching = Matching()
    # The first is the score that is reported; see score.py.
    metrics: Annotated[list[Annotated[str, AfterValidator(_known_metric)]], Field(min_length=1)] = ["f1", "ap"]
    decode: PointsDecode = PointsDecode()

    @model_validator(mode="after")
    def _points_stay_exact(self) -> Self:
        if str(precision := self.trainer.get("precision")) in ("16-true", "bf16-true"):
            raise ValueError(
                f"trainer.precision: found {precision}, which rounds the true points, too; give "
                f"{str(precision).replace('true', 'mixed')}"
            )
        return self

    @model_validator(mode="after")
    def _points_are_not_shifted(self) -> Self:
        """Refuse steps that scale images by the middles of pixels and points from there: half a pixel would be lost."""
        found = [name for name in _names_of(self.data.augmentation.more) if name in SCALING]
        if found:
            raise ValueError(
                f"data.augmentation.more: {found[0]} would shift points by up to half a pixel; take crop, "
                "shift_scale_rotate, or data.image_size by epoch"
            )
        return self

    @model_validator(mode="after")
    def _boxes_are_known(self) -> Self:
        if self.matching.inside_box and not {"w", "h"} <= set((self.format.point_string or "").split()):
            raise ValueError(
                "matching.inside_box: found true, but train.csv tells no boxes; expected a format.point_string with w "
                "and h, as 'class x y w h', or matching.distance"
            )
        return self

    @model_validator(mode="after")
    def _a_value_a_class(self) -> Self:
        classes = self.data.classes
        lists = {"decode.min_score": self.decode.min_score, "matching.distance": self.matching.distance}
        for key, values in lists.items():
            if isinstance(values, list) and classes is not None and len(values) != len(classes):
                raise ValueError(f"{key} lists {len(values)} values for {len(classes)} data.classes; give one a class")
        return self

    @property
    def has_many_rows_an_id(self) -> bool:
        """Whether rows are points, of which an image has any number."""
        return self.format.submission.is_rows

    @property
    def train_keys(self) -> Mapping[str, str]:
        """By column of train.csv, how it holds {image_id}."""
        return {self.format.image_id: "{image_id}"}

    @property
    def submission_keys(self) -> Mapping[str, str]:
        """The same of the submission."""
        return {self.format.submission.image_id: "{image_id}"}
