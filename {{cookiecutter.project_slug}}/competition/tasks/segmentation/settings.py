"""What a segmentation config may hold beside the common sections."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from competition.config.data_settings import ImageSize, regular_expression
from competition.config.encoder_decoder import EncoderDecoder
from competition.config.section import (
    Losses,
    Positive,
    Probability,
    Section,
    names_in,
)
from competition.config.settings import Config
from competition.files.csv_keys import Keys
from competition.support.errors import CompetitionError
from competition.tasks.presence import fault_of_asking

Weight = Annotated[float, Field(ge=0)]
Pixels = Annotated[int, Field(ge=0)]
Byte = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Byte, Byte, Byte]  # red, green, blue


class SegmentationModel(EncoderDecoder):
    """A network of segmentation-models-pytorch; any timm encoder as `tu-NAME`."""

    architecture: Literal[
        "unet",
        "unetplusplus",
        "fpn",
        "deeplabv3",
        "deeplabv3plus",
        "manet",
        "linknet",
        "pspnet",
        "pan",
        "segformer",
        "upernet",
        "dpt",
    ] = "unet"  # dpt takes plain vision transformers, as those of DINO


class SegmentationLoss(Losses):
    """Weights of the losses that are added up; zero leaves one out. Below them the losses' own parameters."""

    has_teachers = True
    parameters: ClassVar[dict[str, str]] = {
        "pos_weight": "bce",
        "label_smoothing": "cross_entropy",
        **dict.fromkeys(("focal_gamma", "focal_alpha"), "focal"),
        **dict.fromkeys(("tversky_alpha", "tversky_beta"), "tversky"),
    }
    bce: Weight = 1.0  # binary cross entropy: each class by itself
    cross_entropy: Weight = 0.0  # over zero, a pixel is of one class or of none: a softmax
    dice: Weight = 1.0
    jaccard: Weight = 0.0
    focal: Weight = 0.0
    tversky: Weight = 0.0
    lovasz: Weight = 0.0
    auxiliary: Weight = 0.0  # over zero, a second head on the encoder says which classes an image has

    pos_weight: Positive | list[Positive] | None = None  # bce: what a pixel of a mask weighs; a list goes by class
    label_smoothing: Probability = 0.0  # cross_entropy: this share of the truth goes to all classes alike
    focal_gamma: Weight = 2.0
    focal_alpha: Probability | None = None  # weight of a mask's pixels, 1 - alpha that of the others
    tversky_alpha: Weight = 0.3  # weight of pixels that are said and not true
    tversky_beta: Weight = 0.7  # weight of pixels that are true and not said

    @model_validator(mode="after")
    def _masks_are_learnt(self) -> Self:
        of_masks = {name: weight for name, weight in self.weights.items() if name != "auxiliary"}
        if not any([*of_masks.values(), *self.files.values(), self.distil]):
            raise ValueError(f"loss: nothing teaches masks; give one of {', '.join(of_masks)} a weight over 0")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """The weights, which stand above the losses' own parameters."""
        fields = list(type(self).model_fields)
        return {name: getattr(self, name) for name in fields[fields.index("bce") : fields.index("auxiliary") + 1]}


class Mix(Section):
    """Mixing the images of a training batch with each other, as timm does; masks follow."""

    mixup: Weight = 0.0  # alpha of the Beta distribution of the share, e.g. 0.2; zero is off
    cutmix: Weight = 0.0  # alpha of the share of area that is cut out, e.g. 1.0; zero is off
    probability: Probability = 0.5  # of a batch to be mixed; with both on, either is as likely


class SegmentationDecode(Section):
    """From probabilities to a mask. A list gives each class its own value, in the order of the classes."""

    threshold: Probability | list[Probability] = 0.5
    min_area: Pixels | list[Pixels] = 0  # with fewer pixels over `threshold` the mask is empty
    bottom_threshold: Probability | list[Probability] | None = None  # the mask, if any; None: `threshold`
    min_component: Pixels | list[Pixels] = 0  # connected parts of fewer pixels are dropped
    presence_threshold: Probability | list[Probability] = 0.0  # less likely by the head of `loss.auxiliary`: no mask

    def of_class(self, number: int) -> tuple[float, int, float, int]:
        """Return threshold, min_area, bottom threshold and min_component of a class."""
        bottom = self.threshold if self.bottom_threshold is None else self.bottom_threshold
        top, area, low, part = (
            value[number] if isinstance(value, list) else value
            for value in (self.threshold, self.min_area, bottom, self.min_component)
        )
        return float(top), int(area), float(low), int(part)

    def check_length(self, num_classes: int, classes: Sequence[str] = ()) -> None:
        """Raise CompetitionError if a list has not one value a class."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, list) and len(value) != num_classes:
                named = f": {', '.join(classes)}" if classes else ""
                raise CompetitionError(
                    f"decode.{name}: found {len(value)} values; expected one, or one a class of {num_classes}{named}"
                )


class RunLengths(Section):
    """How run lengths are written."""

    order: Literal["columns", "rows"] = "columns"  # pixels are counted down the columns, or along the rows
    base: Literal[0, 1] = 1  # number of the first pixel
    relative: bool = False  # true: pixels since the end of the last run, instead of the number of a run's first pixel
    empty: str = ""  # what stands for no mask


class TrainLayout(Section):
    """Where image ids, classes and masks of training images stand."""

    # Columns of train.csv; null: there is no train.csv, images are those of data.train_images (with `files`), or of
    # `polygons`.
    keys: Keys | None = {"image_id": "{image_id}", "class_id": "{class_id}"}
    mask: str = "rle"  # column of run lengths, unless `files` is given
    # Mask files below data.dir, as "train_masks/{image_id}.png" (png, tif, npy ...): non-zero is inside; of several
    # classes pixel value 1 is the first of data.classes, unless {class_id} tells a file a class.
    files: str | None = None
    # Of masks of one class, or of a file a class: the highest pixel value that is still outside, as 127 where shades
    # between 0 and 255 are traces of JPEG or of scaling.
    threshold: Annotated[int, Field(ge=0, lt=1 << 16)] = 0
    # In them: a pixel value, or a colour, that neither loss nor score look at, as 255; and of masks of colours a colour
    # a class, as {urban: [0, 255, 255]}, beside black for none.
    ignore: int | Color | None = None
    colors: dict[str, Color] = {}
    polygons: str | None = (
        None  # or a file of polygons below data.dir, a JSON line an image; see formats/mask_polygons.py
    )

    @model_validator(mode="after")
    def _colors_fit(self) -> Self:
        if self.files is None and (self.colors or self.ignore is not None):
            raise ValueError("format.train.colors and ignore are of mask files; name them in format.train.files")
        if self.threshold and (self.files is None or self.colors):
            raise ValueError("format.train.threshold is of mask files (format.train.files) without format.train.colors")
        if self.colors and "{class_id}" in str(self.files):
            raise ValueError("format.train.colors is for a mask file an image, not one a class ({class_id} in files)")
        if isinstance(self.ignore, tuple) != bool(self.colors) and self.ignore is not None:
            word = "a colour, as [255, 255, 255], beside" if self.colors else "a pixel value, as 255, without"
            raise ValueError(f"format.train.ignore: expected {word} format.train.colors")
        named = [(0, 0, 0), *self.colors.values(), *([self.ignore] if isinstance(self.ignore, tuple) else [])]
        if twice := [color for color in named if named.count(color) > 1]:
            raise ValueError(f"format.train.colors: {list(twice[0])} has two meanings; black is no class")
        return self

    @field_validator("files")
    @classmethod
    def _names_an_image(cls, pattern: str | None) -> str | None:
        names = ["image_id"] if pattern is None else names_in(pattern)
        if "image_id" not in names or set(names) - {"image_id", "class_id"}:
            raise ValueError(
                "format.train.files needs {image_id}, and {class_id} at most beside it, as in "
                "'train_masks/{image_id}.png'"
            )
        return pattern


class SubmissionLayout(Section):
    """Where they stand in the submission."""

    keys: Keys | None = None  # None: those of train.csv
    mask: str | None = None  # None: that of train.csv
    # rle: a row an image and class; instances: `class confidence mask ...` for every object of an image, masks as
    # COCO's run lengths in zlib and base64, classes by number.
    style: Literal["rle", "instances"] = "rle"


class SegmentationFormat(Section):
    """How train.csv and the submission are written."""

    like: str | None = None  # a known competition's name in formats/known.yaml, whose settings stand under these
    # What a row of train.csv and of the submission is: the mask of an image and class (of several rows all together),
    # or a single object, of which an image has any number and one empty row if it has none.
    rows: Literal["masks", "objects"] = "masks"
    train: TrainLayout = TrainLayout()
    submission: SubmissionLayout = SubmissionLayout()
    rle: RunLengths = RunLengths()
    size: ImageSize | None = None  # height, width of the masks that are handed in; None: the image's
    # What of an image's id is its volume, of which it is a slice, for metrics of volumes: what a regular expression
    # finds, or its brackets, as 'case\d+_day\d+'. Slices follow each other as their ids do.
    volume: Annotated[str, AfterValidator(regular_expression)] | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.train.keys is None and self.train.files is None and self.train.polygons is None:
            raise ValueError("format.train.keys: null (no train.csv) needs format.train.files: say where masks are")
        if self.train.keys is None and self.submission.keys is None:
            raise ValueError("format.train.keys: null (no train.csv) needs format.submission.keys")
        return self

    @model_validator(mode="after")
    def _rows_can_be_objects(self) -> Self:
        layout = self.train
        if self.rows == "objects" and (layout.keys is None or layout.files is not None or layout.polygons is not None):
            raise ValueError("format.rows: objects needs run lengths in train.csv (format.train.keys and mask)")
        if self.rows == "objects" and self.submission.style == "instances":
            raise ValueError("format.rows: objects hands in a row an object; leave out submission.style: instances")
        if self.rows == "objects" and self.size is not None:
            raise ValueError("format.rows: objects hands objects in at their image's size; leave out format.size")
        return self

    @property
    def submission_keys(self) -> Keys:
        """The key columns of the submission."""
        keys = self.submission.keys or self.train.keys
        assert keys is not None
        return keys

    @property
    def submission_mask(self) -> str:
        """The column of masks of the submission."""
        return self.submission.mask or self.train.mask


# All from pixel counts of an image and class, but dsb2018, airbus and map60, which look at objects, and uw_madison,
# which looks at volumes; see score.py.
Metric = Literal[
    "dice",
    "iou",
    "global_dice",
    "dice_positive",
    "dice_negative",
    "f05",
    "f1",
    "f2",
    "tgs",
    "dsb2018",
    "airbus",
    "map60",
    "uw_madison",
]


class TaskConfig(Config):
    """A segmentation experiment."""

    task: Literal["segmentation"]
    model: SegmentationModel = SegmentationModel()
    format: SegmentationFormat = SegmentationFormat()
    mix: Mix = Mix()
    loss: SegmentationLoss = SegmentationLoss()
    metrics: Annotated[list[Metric], Field(min_length=1)] = ["dice", "iou"]  # the first is the score that is reported
    decode: SegmentationDecode = SegmentationDecode()

    @model_validator(mode="after")
    def _metrics_have_what_they_need(self) -> Self:
        if "map60" in self.metrics and self.format.submission.style != "instances":
            raise ValueError("metrics: map60 ranks objects by confidence, which format.submission.style: instances has")
        if "uw_madison" in self.metrics and self.format.volume is None:
            raise ValueError(
                "metrics: uw_madison is of volumes; say what of an id is that of its volume: format.volume, as "
                "'case\\d+_day\\d+'"
            )
        return self

    @model_validator(mode="after")
    def _presence_is_told(self) -> Self:
        if fault := fault_of_asking("presence_threshold", self.decode.presence_threshold, self.loss.auxiliary):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _host_counts_every_pixel(self) -> Self:
        if self.host_metric is not None and self.format.train.ignore is not None:
            raise ValueError(
                "host_metric: a host's file is handed whole masks, and would count the pixels that format.train.ignore "
                "leaves out; leave out either: the metrics by name look at the other pixels only"
            )
        return self

    def reasons_unused(self) -> dict[str, str]:
        """Return why keys change nothing, also the width of a decoder that has the encoder's."""
        return super().reasons_unused() | self.model.reasons_unused()

    def answer_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the answer for an image of this size."""
        return self.format.size or (height, width)

    @property
    def has_many_rows_an_id(self) -> bool:
        """Whether an image and class may have several rows: of objects, which are as many as there are."""
        return self.format.rows == "objects"

    @property
    def train_keys(self) -> Mapping[str, str] | None:
        """By column of train.csv, how it holds {image_id}; none where there is no train.csv."""
        return self.format.train.keys

    @property
    def submission_keys(self) -> Mapping[str, str]:
        """The same of the submission."""
        return self.format.submission_keys
