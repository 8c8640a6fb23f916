"""What may stand in a config: the sections every task shares, in the order data flows through them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from competition.places import here
from competition.views import GEOMETRY

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=16)]


def _both_sides(size: object) -> object:
    """Read `128` as short for `[128, 128]`."""
    if isinstance(size, int):
        return (size, size)
    return tuple(size) if isinstance(size, list) else size


ImageSize = Annotated[tuple[Side, Side], BeforeValidator(_both_sides)]
# A Kaggle notebook has the files elsewhere; a config that is kept says what holds on every machine.
DataFolder = Annotated[
    Path,
    AfterValidator(lambda folder: here().data(folder)),
    PlainSerializer(lambda folder: str(here().as_given(folder)), return_type=str, when_used="json"),
]


class Section(BaseModel):
    """A part of the config: knows all its keys, never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Crop(Section):
    """Cut out a random part and scale it to the image size."""

    probability: Probability = 0.5
    smallest: Annotated[float, Field(gt=0, le=1)] = 0.6  # share of the image's area


class ShiftScaleRotate(Section):
    """Move, zoom and turn; what comes in from outside is black."""

    probability: Probability = 0.5
    shift: Probability = 0.06  # share of the side
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1  # zoom between 1 - scale and 1 + scale
    rotate: Annotated[float, Field(ge=0, le=180)] = 15  # degrees


class BrightnessContrast(Section):
    """Shift brightness and stretch contrast by up to this share."""

    probability: Probability = 0.5
    brightness: Probability = 0.2
    contrast: Probability = 0.2


class Augmentation(Section):
    """Random changes of training images; masks and boxes follow. A missing part is off."""

    horizontal_flip: Probability = 0.0
    vertical_flip: Probability = 0.0
    crop: Crop | None = None
    shift_scale_rotate: ShiftScaleRotate | None = None
    brightness_contrast: BrightnessContrast | None = None


class Window(Section):
    """Look at large images through windows at full resolution, instead of at the image made smaller.

    Training crops a window at random; validation and prediction go over the whole image and blend what overlaps.
    """

    size: ImageSize | None = None  # height, width in pixels of the image; None: data.image_size
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25  # share of a window's side, at least


Split = Literal["stratified", "kfold", "group", "stratified_group", "multilabel", "amount"]


class Data(Section):
    """Where the images are and how they reach the network."""

    dir: DataFolder = Field(default_factory=lambda: here().data(Path("data")))
    train_csv: str = "train.csv"  # this and the next three lie in dir
    sample_submission: str = "sample_submission.csv"
    train_images: str = "train_images"
    test_images: str = "test_images"
    image_file: str = "{image_id}"  # an image's file in its folder, e.g. "{image_id}.png"
    absent_images: Literal["ignore", "empty"] = "ignore"  # images without a row: left out, or without mask and box
    classes: list[str] | None = None  # None: the sorted labels of train.csv
    folds: Path | None = None  # None: folds.csv in dir; name another file where dir cannot be written to
    num_folds: Annotated[int, Field(ge=2)] = 5
    group: str | None = None  # column of train.csv whose values must not be split over folds, e.g. patient_id
    group_file: Path | None = None  # csv of image_id,group, e.g. near_duplicates.csv as `check` writes it
    split: Split = "stratified"  # amount: by mask area, boxes or value; multilabel: every class evenly
    near_duplicates: bool = True  # whether `check` looks for them
    pseudo: Path | None = None  # pseudo.csv of another run: test images that every fold trains on, too
    image_size: ImageSize = (256, 256)  # height, width of what the network sees
    window: Window | None = None
    channels: Count = 3
    # Checked even when left out: the default has three values.
    mean: list[float] = Field([0.485, 0.456, 0.406], validate_default=True)
    std: list[Positive] = Field([0.229, 0.224, 0.225], validate_default=True)
    batch_size: Count = 16  # global: over all devices and accumulated batches
    num_workers: Annotated[int, Field(ge=0)] = 2
    augmentation: Augmentation = Augmentation()

    @field_validator("image_file")
    @classmethod
    def _names_an_image(cls, pattern: str) -> str:
        if pattern.count("{image_id}") != 1:
            raise ValueError("data.image_file needs {image_id} once, as in '{image_id}.png'")
        return pattern

    @field_validator("mean", "std")
    @classmethod
    def _one_a_channel(cls, values: list[float], info: ValidationInfo) -> list[float]:
        channels = info.data.get("channels", len(values))
        if len(values) != channels:
            raise ValueError(
                f"data.{info.field_name} has {len(values)} values for data.channels {channels}; give one a channel"
            )
        return values

    @field_validator("split")
    @classmethod
    def _goes_with_groups(cls, split: str, info: ValidationInfo) -> str:
        is_grouped = any(info.data.get(key) is not None for key in ("group", "group_file"))
        if split in ("group", "stratified_group") and not is_grouped:
            raise ValueError("it needs data.group (a column of train.csv) or data.group_file")
        if split == "kfold" and is_grouped:
            raise ValueError("it would tear groups apart; expected group or stratified_group")
        return split

    @property
    def window_size(self) -> tuple[int, int] | None:
        """Height and width of a window in pixels of the image; none where images are seen whole."""
        return None if self.window is None else self.window.size or self.image_size

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: list[str] | None) -> list[str] | None:
        if classes is not None and len(set(classes)) != len(classes):
            raise ValueError("data.classes names a class twice; list each once")
        return classes


Fold = Annotated[int, Field(ge=0)] | Literal["all"]  # all: train on everything, validate on nothing
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)] | Literal["natural"]


class PositiveColumn(Section):
    """Images whose value in a column of train.csv is not empty, 0 or false count as positive."""

    column: str


class Sampler(Section):
    """Which training images an epoch holds, and how often.

    Without this section: every image once, but for those that do not fill the last batch, others in every epoch.
    """

    positive: Literal["mask", "box"] | list[str] | PositiveColumn | None = None  # a list names classes
    # One share of positives, or its course: [[0, 0.8], [10, natural]], after so many epochs.
    share: Share | list[tuple[Annotated[int, Field(ge=0)], Share]] = "natural"
    course: Literal["hold", "linear", "cosine"] = "hold"  # between the points of `share`
    keep: Literal["positives", "negatives"] = "positives"  # all of these once; the others drawn or repeated
    num_draws: Count | None = None  # so many images an epoch, instead of `keep`
    weights: Literal["balanced", "sqrt"] | None = None  # by class frequency
    group: str | None = None  # column of train.csv, e.g. patient_id
    max_per_group: Count | None = None  # images of a group in an epoch

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.share != "natural" and self.positive is None:
            raise ValueError("sampler.share needs sampler.positive: say what counts as positive")
        if (self.group is None) != (self.max_per_group is None):
            raise ValueError("sampler.group and sampler.max_per_group come together")
        return self


class Model(Section):
    """The network: `pretrained` is true (from the hub), false (random) or a file of weights."""

    encoder: str = "resnet18"
    pretrained: bool | str = False


class Optimizer(Section):
    """Settings of the optimizer."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2


class Scheduler(Section):
    """Learning rate by step: linear warm-up, then the named course from the peak down."""

    name: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of all steps
    final: Probability = 0.01  # last learning rate as a share of the peak


class EarlyStopping(Section):
    """Stop when `checkpoint.monitor` has not improved for `patience` validations."""

    patience: Count = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class Ema(Section):
    """Exponential moving average of the weights: what is validated, kept and used for prediction when on."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    start_step: Annotated[int, Field(ge=0)] = 0


class Logger(Section):
    """Loggers beside metrics.csv, each an extra that must be installed."""

    tensorboard: bool = False
    wandb: bool = False
    mlflow: bool = False


SAME_PRECISION = {"None": "32", "32-true": "32", "16": "16-mixed", "bf16": "bf16-mixed"}  # its other names
InferencePrecision = Literal["32", "16-mixed", "bf16-mixed", "half"]


class Inference(Section):
    """How predictions are computed, here and in a bundle: faster at a small cost in the score (see `--estimate`)."""

    precision: InferencePrecision | None = None  # None: as `trainer.precision`; half: as the card can
    channels_last: bool = False
    compile: bool = False  # torch.compile: minutes at the start, quicker from then on
    limit_hours: Positive = 9.0  # what the competition's host allows for a notebook
    hidden_images: Count | None = None  # how many the host has; None: as many as sample_submission.csv names


def _known_view(name: str) -> str:
    is_scale = re.fullmatch(r"scale([0-9]*\.)?[0-9]+", name) and float(name.removeprefix("scale"))
    if name not in GEOMETRY and not is_scale:
        raise ValueError(f"expected one of {', '.join(GEOMETRY)}, or scale and a factor, as in scale1.25")
    return name


def _good_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError("it names a folder: expected letters, digits and _ . + -, with a letter or digit first")
    return name


ViewName = Annotated[str, AfterValidator(_known_view)]
RunName = Annotated[str, AfterValidator(_good_name)]


Mode = Literal["min", "max"]


class Checkpoint(Section):
    """Which weights are kept as best, and whether prediction uses them or the latest."""

    monitor: str = "val/loss"  # or a score: val/dice, ...
    mode: Mode | None = None  # which value is better; None: the lower loss, the better score
    predict_with: Literal["best", "latest"] = "best"
    every_steps: Count | None = None  # save latest.pt in mid-epoch, too
    every_minutes: Positive | None = None


def _name_of_a_file(given: object) -> object:
    """Read `metric.py` as short for `{file: metric.py}`."""
    return {"file": given} if isinstance(given, str) else given


class HostMetric(Section):
    """The host's own metric: a file with `score(solution, submission, row_id_column_name, ...)`, used unchanged."""

    file: Path
    lower_is_better: bool = False
    arguments: dict[str, Any] = {}  # further arguments of its `score`


class Config(Section):
    """One experiment. A task adds its own sections: model, loss, metrics, decode."""

    name: RunName
    task: str
    data: Data = Data()
    sampler: Sampler = Sampler()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    scheduler: Scheduler = Scheduler()
    ema: Ema | None = None
    early_stopping: EarlyStopping | None = None
    trainer: dict[str, Any] = {}
    checkpoint: Checkpoint = Checkpoint()
    logger: Logger = Logger()
    tta: list[ViewName] = []  # views that are predicted and averaged beside the plain one
    inference: Inference = Inference()
    host_metric: Annotated[HostMetric | None, BeforeValidator(_name_of_a_file)] = None
    fold: Fold = 0
    folds: list[Fold] | None = None  # what `run` trains; a list for `fold` is read as this; None: every fold
    seed: Seed = 0
    seeds: list[Seed] | None = None  # what `run` trains each fold with; a list for `seed` is read as this

    # Declared by each task's TaskConfig, with the task's own keys; common code only passes them on.
    format: Any
    loss: Any
    metrics: Any
    decode: Any

    @field_validator("fold", "folds")
    @classmethod
    def _folds_exist(cls, given: Any, info: ValidationInfo) -> Any:
        is_told = info.field_name == "folds" and "fold" not in info.data
        number = info.data["data"].num_folds if "data" in info.data and not is_told else None
        for fold in given if isinstance(given, list) else [given]:
            if isinstance(fold, int) and number is not None and fold >= number:
                raise ValueError(
                    f"fold {fold} does not exist: data.num_folds is {number}, so folds are 0 to {number - 1}"
                )
        return given

    @property
    def train_csv(self) -> Path:
        """The training answers."""
        return self.data.dir / self.data.train_csv

    @property
    def sample_submission(self) -> Path:
        """The file that says which rows a submission needs."""
        return self.data.dir / self.data.sample_submission

    @property
    def prediction_precision(self) -> str:
        """What predictions are computed in: `inference.precision`, or else `trainer.precision`."""
        given = str(self.trainer.get("precision"))
        return self.inference.precision or SAME_PRECISION.get(given, given)

    @property
    def run_folder(self) -> Path:
        """Folder of the whole run, all folds."""
        return here().outputs / self.name

    @property
    def fold_folder(self) -> Path:
        """Folder of this training: fold0, and fold0_seed1 for further seeds."""
        seed = "" if self.seeds is None or self.seed == self.seeds[0] else f"_seed{self.seed}"
        return self.run_folder / f"fold{self.fold}{seed}"


AnyConfig = TypeVar("AnyConfig", bound=Config)


def with_decode(config: AnyConfig, keys: Mapping[str, Any]) -> AnyConfig:
    """Return the config with some keys of `decode:` set."""
    return config.model_copy(update={"decode": type(config.decode)(**(config.decode.model_dump() | dict(keys)))})
