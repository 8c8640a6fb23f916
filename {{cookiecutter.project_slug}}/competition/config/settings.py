"""What may stand in a config: the sections every task shares, in the order data flows through them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from competition.config.data_settings import Data
from competition.config.optimizer_settings import Optimizer, Scheduler
from competition.config.sampler_settings import Sampler
from competition.config.section import MOST_PIXELS, Count, Positive, Section
from competition.config.views import GEOMETRY, fault_of_view, view_of
from competition.support.paths import here

Fold = Annotated[int, Field(ge=0)] | Literal["all"]  # all: train on everything, validate on nothing
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # as numpy and Lightning take it


class Lora(Section):
    """Low-rank adapters in the linear layers of an encoder, which itself rests (Hu et al. 2022); the package peft is an
    extra. Merged into the weights where these are exported."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Positive = 16.0  # over `rank` what their sum weighs
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of what goes into them


class Model(Section):
    """The network: `pretrained` is true (from the hub), false (random) or a file of weights."""

    answers_places: ClassVar[bool] = True  # in the image, and not what the image as a whole is
    knows_other_encoders: ClassVar[bool] = False  # than timm's, which are `tu-NAME` there

    encoder: str = "resnet18"
    pretrained: bool | str = False
    channels_last: bool = False  # how weights and images lie in memory: on a GPU convolutions can be twice as fast
    # What does not learn: the encoder, or this share of its layers from the image on; norms and dropout rest, too.
    freeze: Literal["encoder"] | Annotated[float, Field(gt=0, le=1)] | None = None
    unfreeze_epoch: Count | None = None  # after so many epochs it learns, too; None: never
    gradient_checkpointing: bool = False  # compute the encoder's insides twice instead of keeping them: less memory
    lora: Lora | None = None  # in place of the encoder's weights small matrices learn
    volume: bool = False  # convolutions of the encoder go over the slices of data.stack, too; see networks/volume.py

    @field_validator("encoder")
    @classmethod
    def _by_its_name_in_timm(cls, encoder: str) -> str:
        return encoder if cls.knows_other_encoders else encoder.removeprefix("tu-")

    @model_validator(mode="after")
    def _something_is_frozen(self) -> Self:
        if self.unfreeze_epoch is not None and self.freeze is None:
            raise ValueError("model.unfreeze_epoch needs model.freeze: say what is frozen until then")
        if self.lora is not None and self.freeze is not None:
            raise ValueError("model.lora freezes the encoder's own weights for good; leave out model.freeze")
        return self

    @property
    def network_name(self) -> str:
        """What the network is called in messages and reports."""
        return self.encoder


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


def _one_name(given: object) -> object:
    """Return the name of a precision that `inference.precision` knows; YAML reads 32 as a number."""
    return given if given is None else SAME_PRECISION.get(str(given), str(given))


class Inference(Section):
    """How predictions are computed, here and in a bundle: faster at a small cost in the score (see `--estimate`)."""

    # None: as `trainer.precision`; half: as the card can
    precision: Annotated[InferencePrecision | None, BeforeValidator(_one_name)] = None
    channels_last: bool | None = None  # None: as `model.channels_last`
    compile: bool = False  # torch.compile: minutes at the start, quicker from then on
    python: Annotated[Literal["3.12", "3.13"], BeforeValidator(str)] = "3.12"  # of the notebook's image: for wheels/
    limit_hours: Positive = 9.0  # what the competition's host allows for a notebook
    hidden_images: Count | None = None  # how many the host has; None: as many as sample_submission.csv names


LARGEST_SCALE = 16


def _known_view(name: str) -> str:
    is_scale = re.fullmatch(r"scale([0-9]*\.)?[0-9]+", name) and 0 < float(name.removeprefix("scale")) <= LARGEST_SCALE
    if name not in GEOMETRY and not is_scale:
        raise ValueError(
            f"expected one of {', '.join(GEOMETRY)}, or scale and a factor up to {LARGEST_SCALE}, as in scale1.25"
        )
    return name


LONGEST_NAME = 200  # bytes; file systems take 255, and files beside it are called after it


def _good_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.+-]*", name) or len(name.encode()) > LONGEST_NAME:
        raise ValueError("it names a folder: expected letters, digits and _ . + -, with a letter or digit first")
    return name


ViewName = Annotated[str, AfterValidator(_known_view)]
RunName = Annotated[str, AfterValidator(_good_name)]


Mode = Literal["min", "max"]


class Checkpoint(Section):
    """Which weights are kept, and which of them predict: of `soup` and `auto` the better ones on the fold's images."""

    monitor: str = "val/loss"  # or a score: val/dice, ...
    mode: Mode | None = None  # which value is better; None: the lower loss, the better score
    # soup: or best; auto: also latest, and of `ema` unaveraged
    predict_with: Literal["best", "latest", "soup", "auto"] = "best"
    keep: Annotated[int, Field(ge=2, le=100)] | None = None  # epochs whose weights a soup is the average of
    every_steps: Count | None = None  # save latest.pt in mid-epoch, too
    every_minutes: Positive | None = None

    @model_validator(mode="after")
    def _soup_has_epochs(self) -> Self:
        if self.chooses and self.keep is None:
            raise ValueError(f"predict_with: {self.predict_with} needs keep: how many epochs are averaged, as 5")
        if self.keep is not None and not self.chooses:
            raise ValueError(
                f"keep: {self.keep} does nothing with predict_with: {self.predict_with}; expected soup or auto"
            )
        return self

    @property
    def chooses(self) -> bool:
        """Whether the weights that predict are chosen after training, among the averages of several epochs, too."""
        return self.predict_with in ("soup", "auto")


def _name_of_a_file(given: object) -> object:
    """Read `metric.py` as short for `{file: metric.py}`."""
    return {"file": given} if isinstance(given, str) else given


class HostMetric(Section):
    """The host's own metric: a file with `score(solution, submission, row_id_column_name, ...)`, used unchanged."""

    file: Path
    lower_is_better: bool = False
    arguments: dict[str, Any] = {}  # further arguments of its `score`


MetricFile = Annotated[str, Field(pattern=r"^.+\.py:[^\W\d]\w*$")]


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
    # Options of sbatch by their long names, for `run --slurm`; null and false leave one out.
    slurm: dict[str, str | int | float | bool | list[str] | None] = {}
    checkpoint: Checkpoint = Checkpoint()
    logger: Logger = Logger()
    tta: list[ViewName] = []  # views that are predicted and averaged beside the plain one
    inference: Inference = Inference()
    host_metric: Annotated[HostMetric | None, BeforeValidator(_name_of_a_file)] = None
    metric_files: list[MetricFile] = []  # those among `metrics:`, as mine.py:NAME
    fold: Fold = 0
    folds: list[Fold] | None = None  # what `run` trains; a list for `fold` is read as this; None: every fold
    seed: Seed = 0
    seeds: list[Seed] | None = None  # what `run` trains each fold with; a list for `seed` is read as this

    # Declared by each task's TaskConfig, with the task's own keys; common code only passes them on.
    format: Any
    loss: Any
    metrics: Any
    decode: Any

    @model_validator(mode="after")
    def _averages_once(self) -> Self:
        name = self.optimizer.name
        if self.optimizer.is_schedule_free and self.scheduler.name != "constant":
            raise ValueError(
                f"scheduler.name: {name} needs no rate that falls; expected constant, which may have a warmup"
            )
        if self.optimizer.is_schedule_free and self.ema is not None:
            raise ValueError(f"ema: {name} averages the weights itself; leave out either")
        return self

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
        schedule = info.data.get("scheduler")
        if (
            "all" in (given if isinstance(given, list) else [given])
            and schedule is not None
            and schedule.name == "plateau"
        ):
            raise ValueError(
                "scheduler.name plateau goes by validation, and fold=all has none; expected another course"
            )
        return given

    @field_validator("tta")
    @classmethod
    def _views_differ(cls, given: list[str], info: ValidationInfo) -> list[str]:
        known: dict[object, str] = {}
        for name in given if "data" in info.data else []:
            view, size = view_of(name), info.data["data"].image_size
            if fault := fault_of_view(name, *size):
                raise ValueError(fault)
            height, width = view.scaled_size(*size)
            if height * width > MOST_PIXELS:
                raise ValueError(f"{name} of {size[0]} x {size[1]} has more than {MOST_PIXELS:,} pixels")
            seen = (view.flip_rows, view.flip_columns, view.swap_axes, height, width)
            if seen in known:
                raise ValueError(f"{name} is the view {known[seen]} once more; list each once")
            known[seen] = name
        return given

    @model_validator(mode="after")
    def _task_has_use_for(self) -> Self:
        if self.data.columns is not None and not hasattr(self.model, "join_columns"):
            raise ValueError(f"data.columns: networks of {self.task} look at images alone; leave it out")
        if self.data.crop is not None and self.model.answers_places:
            raise ValueError(
                f"data.crop: answers of {self.task} are places in the whole image; only a classification sees a part"
            )
        return self

    @model_validator(mode="after")
    def _volume_has_slices(self) -> Self:
        if not self.model.volume:
            return self
        take = [] if self.data.stack is None else self.data.stack.take
        if len(take) < 2:
            raise ValueError(
                "model.volume: a volume is a stack of slices; say which, as data.stack: "
                "{by: 'case{case}_slice_{slice}', take: [-1, 0, 1]}, or leave it out"
            )
        if take != sorted(set(take)):
            raise ValueError(f"model.volume: slices of a volume ascend; found data.stack.take {take}")
        if self.data.maps is not None:
            raise ValueError("model.volume: data.maps are of the image alone, and no slice; leave one of them out")
        if 0 not in take and self.model.answers_places:
            raise ValueError(
                f"model.volume: answers of {self.task} are places in one slice, the image itself; expected 0 in "
                f"data.stack.take, found {take}"
            )
        return self

    def unused(self) -> dict[str, str]:
        """Describe, by key, those that change nothing, by which a training is not begun."""
        reasons = self.reasons_unused()
        given = self.model_dump(mode="json") if reasons else {}
        return {key: f"{key}: found {_value_at(given, key)}; it {reason}: delete it" for key, reason in reasons.items()}

    def reasons_unused(self) -> dict[str, str]:
        """Return why keys change nothing, as what is said of each."""
        return self.loss.reasons_unused("loss.") | self.optimizer.reasons_unused() | self.scheduler.reasons_unused()

    @property
    def metric_names(self) -> list[str]:
        """What it is scored by beside a host's metric, the task's own first."""
        return [*self.metrics, *(one.rpartition(":")[2] for one in self.metric_files)]

    @property
    def packages(self) -> list[str]:
        """What this config needs beside the project's own requirements: a bundle brings what the image lacks."""
        return []

    @property
    def has_many_rows_an_id(self) -> bool:
        """Whether rows of a submission that are called the same are any number, and not one each."""
        return False

    @property
    def train_csv(self) -> Path:
        """The training answers."""
        return self.data.dir / self.data.train_csv

    @property
    def sample_submission(self) -> Path:
        """The file that says which rows a submission needs."""
        return self.data.dir / self.data.sample_submission

    @property
    def train_keys(self) -> Mapping[str, str] | None:
        """By column of train.csv, how it holds {image_id}; none where there is no train.csv."""
        raise NotImplementedError

    @property
    def submission_keys(self) -> Mapping[str, str]:
        """The same of the submission."""
        raise NotImplementedError

    @property
    def prediction_precision(self) -> str:
        """What predictions are computed in: `inference.precision`, or else `trainer.precision`."""
        given = str(self.trainer.get("precision"))
        return self.inference.precision or SAME_PRECISION.get(given, given)

    @property
    def predicts_channels_last(self) -> bool:
        """How weights and images lie in memory when predicting."""
        given = self.inference.channels_last
        return self.model.channels_last if given is None else given

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


def _value_at(values: Mapping[str, Any], key: str) -> Any:
    """Return what stands at a key as `loss.mse`; names in between may have points, as those of targets."""
    if key in values:
        return values[key]
    name = max((one for one in values if key.startswith(f"{one}.")), key=len)
    return _value_at(values[name], key.removeprefix(f"{name}."))


def with_classes(config: AnyConfig, classes: Sequence[str]) -> AnyConfig:
    """Return the config with the classes that were found, in their order."""
    return config.model_copy(update={"data": config.data.model_copy(update={"classes": list(classes)})})


def with_decode(config: AnyConfig, keys: Mapping[str, Any]) -> AnyConfig:
    """Return the config with some keys of `decode:` set."""
    return config.model_copy(update={"decode": type(config.decode)(**(config.decode.model_dump() | dict(keys)))})


def metric_files_apart(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's plain values with those of `metrics:` that are functions of files as `metric_files`.

    Not by a validator: behind one that sees all values, lists would not do for tuples. Raises ValueError.
    """
    named = values.get("metrics")
    files = [one for one in named if isinstance(one, str) and ".py:" in one] if isinstance(named, list) else []
    if not isinstance(named, list) or not files:
        return dict(values)
    if named[0] in files:
        raise ValueError(
            f"metrics: {named[0]} is the first, for which thresholds are tuned; expected one of the task's before it, "
            "or host_metric"
        )
    own = [one for one in named if one not in files]
    names = [one.rpartition(":")[2] for one in files]
    if twice := [one for one in names if names.count(one) > 1 or one in own]:
        raise ValueError(f"metrics: {twice[0]} stands twice; give the function of a file another name")
    return {**values, "metrics": own, "metric_files": [*(values.get("metric_files") or []), *files]}
