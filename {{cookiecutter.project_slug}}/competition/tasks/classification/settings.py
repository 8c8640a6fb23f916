"""What a classification config may hold beside the common sections."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from competition.config.data_settings import PositiveColumn
from competition.config.section import Count, Losses, Positive, Probability, Section, names_in
from competition.config.settings import Config, Model
from competition.files.csv_keys import Keys, has_class

# single: one class an image; multi: any number of them, also the yes or no of one; regression: a number or several.
TargetKind = Literal["single", "multi", "regression"]
MetricName = Literal[
    "accuracy",
    "error",
    "balanced_accuracy",
    "macro_recall",
    "log_loss",
    "rsna2022",
    "roc_auc",
    "group_roc_auc",
    "alaska",
    "macro_f1",
    "micro_f1",
    "samples_f1",
    "pf1",
    "voc_map",
    "map5",
    "qwk",
    "rmse",
    "mae",
    "r2",
    "weighted_r2",
]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Threshold = Annotated[float, Field(gt=0, le=1)]
Separator = Annotated[str, Field(min_length=1, max_length=3)]

# With `format.targets`: the weighted mean of their metrics, the more or the less the better, or a metric of one, as
# grapheme/macro_recall.
MEANS = ("mean", "mean_loss")
OF_SEVERAL = (*MEANS, "rsna2024")  # what looks at all targets together
TargetMetric = Annotated[str, Field(pattern=r"^[\w/]+$")]
AnyMetric = Annotated[
    Annotated[MetricName, Tag("of one")] | Annotated[TargetMetric, Tag("of several")],
    Discriminator(lambda name: "of several" if name in OF_SEVERAL or "/" in str(name) else "of one"),
]
LOWER_IS_BETTER = ("log_loss", "rsna2022", "rsna2024", "error", "rmse", "mae", "mean_loss")

NUM_GRADES = 3
SPINE_CONDITIONS = ("spinal", "foraminal", "subarticular")  # of which rsna2024 takes the mean, by targets' names

CLASSES: tuple[TargetKind, ...] = ("single", "multi")
SCORABLE: dict[str, tuple[TargetKind, ...]] = {
    "accuracy": CLASSES,
    "error": ("single",),
    "balanced_accuracy": CLASSES,
    "macro_recall": ("single",),
    "log_loss": CLASSES,
    "rsna2022": ("multi",),
    "roc_auc": CLASSES,
    "group_roc_auc": CLASSES,
    "alaska": ("multi",),
    "macro_f1": CLASSES,
    "micro_f1": CLASSES,
    "samples_f1": ("multi",),
    "pf1": ("multi",),
    "voc_map": CLASSES,
    "map5": ("single",),
    "qwk": ("single", "regression"),
    "rmse": ("regression",),
    "mae": ("regression",),
    "r2": ("regression",),
    "weighted_r2": ("regression",),
}
TRAIN_LAYOUTS = {"label": ("single",), "label_string": ("multi",), "probabilities": CLASSES}
SUBMISSION_LAYOUTS = {"label": ("single",), "label_string": ("multi",), "top": ("single",), "boxes": CLASSES}
LOSSES = {
    "cross_entropy": ("single",),
    "bce": ("multi", "regression"),
    "focal": CLASSES,
    "mse": ("regression",),
    "l1": ("regression",),
    "smooth_l1": ("regression",),
}


class MetricLearning(Section):
    """What a head learns that is not `linear`: see tasks/classification/metric_head.py."""

    size: Count = 512  # of an embedding
    margin: Annotated[float, Field(ge=0, lt=1.5)] = 0.3  # an angle in radians, or of cosface a cosine
    scale: Positive = 30.0  # of cosines, before cross entropy
    centers: Count = 3  # of each class, with subcenter_arcface


Join = Literal["attention", "gated_attention", "max", "mean", "lse"]  # of the features of a group's images


class ClassificationModel(Model):
    """Any timm model by name."""

    # linear, or what learns distances for many classes of few images each, and answers by the nearest training images.
    head: Literal["linear", "arcface", "subcenter_arcface", "cosface"] = "linear"
    metric_learning: MetricLearning = MetricLearning()

    dropout: Probability = 0.0
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of times that a block is left out, as transformers do
    pool: str | None = None  # how features become one vector: avg, max, avgmax, gem, token ...; None: the network's own
    # What becomes of data.columns: concat puts them beside the features, film scales and shifts features by them.
    join_columns: Literal["concat", "film"] = "concat"
    # With format.group: a sample is a group, whose images the network joins. None: it answers each image by itself, and
    # format.join says what becomes of the answers.
    join: Join | None = None


class TrainFormat(Section):
    """How train.csv tells the answers.

    label: a class in `column`. label_string: classes in `column` with `separator` between them. columns: a column a
    class with 0 or 1, or a column a number. rows: a row an image and class, 0 or 1 in `column`. probabilities: a column
    a class with its probability; scores take the likeliest class, or those over one half.
    """

    keys: Keys = {"image_id": "{image_id}"}
    layout: Literal["label", "label_string", "columns", "rows", "probabilities"] = "label"
    column: str = "label"
    separator: Separator = " "  # of a label string, as "|" or ","; " ": any blanks
    names: dict[str, str | float] = {}  # what is read in place of a cell of train.csv, as {Cover: 0, UERD: 1}


class SubmissionFormat(Section):
    """How the submission tells the answers; a single column beside the ids has the name it has in the sample.

    columns: a column a class. rows: a row an image and class. label: the best class. label_string: the classes over
    their threshold. top: the `top` best classes. boxes: `class p 0 0 1 1` of each class behind one another, with its
    probability p.
    """

    keys: Keys | None = None  # None: those of train.csv
    layout: Literal["columns", "rows", "label", "label_string", "top", "boxes"] = "columns"
    value: Literal["probability", "decision"] = "probability"  # of columns and rows; a decision is 0 or 1
    top: Count = 5
    separator: Separator | None = None  # of a label string; None: that of train.csv
    keep: list[str] = []  # columns of the sample that are handed in as they are
    names: dict[str, str] = {}  # what classes are called there, where it is not as in train.csv


class ClassificationLoss(Losses):
    """Losses with the weights by which they are added; without any, the usual one of the target."""

    has_teachers = True
    cross_entropy: Weight | None = None  # of one class an image
    bce: Weight | None = None  # binary cross entropy of each class, or of a number within format.bounds
    focal: Weight | None = None  # Lin et al. 2017
    mse: Weight | None = None  # this and the next two: numbers, from 0 to 1 within format.bounds where those are given
    l1: Weight | None = None
    smooth_l1: Weight | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0  # moves this share of each label to the other classes
    focal_gamma: Weight = 2.0
    class_weights: list[Positive] | None = None  # in the order of classes

    @model_validator(mode="after")
    def _something_is_learnt(self) -> Self:
        if self.weights and not any([*self.weights.values(), *self.files.values(), self.distil]):
            raise ValueError(f"loss: nothing is learnt; give one of {', '.join(self.weights)} a weight over 0")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Weights by name, of the losses that are set."""
        return {name: weight for name in LOSSES if (weight := getattr(self, name)) is not None}


class TargetFormat(Section):
    """One of several answers an image has, by its name under `format.targets`."""

    target: TargetKind = "single"
    # In train.csv: labels in `column`, its name if none is given, with `separator` between several; or `columns`, one a
    # class with 0 or 1, or one a number.
    column: str | None = None
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    separator: Separator = " "
    names: dict[str, str | float] = {}  # as of format.train
    classes: list[str] | None = None  # of a column of labels, in this order; None: those it has, sorted
    none: str | None = None  # this and the next three: as of `format`
    bounds: tuple[float, float] | None = None
    class_weights: dict[str, Positive] = {}
    # Cells that say that nobody knows, as [""]: of columns of 0 and 1 each label by itself, else the image's answer.
    # Neither loss nor score look at it.
    unknown: list[float | str] = []
    loss: ClassificationLoss = ClassificationLoss()
    loss_weight: Weight = 1.0
    metric: MetricName | None = None  # None: the usual one of the target
    score_weight: Weight = 1.0  # of its metric in the mean
    submit: bool = True  # False: learnt only because it helps the others
    # What is handed in: of classes probabilities, 0 or 1 each (decision), the best label or those over their threshold
    hand_in: Literal["probability", "decision", "label", "label_string"] = "probability"

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        if self.columns is not None and (self.column is not None or self.classes is not None):
            raise ValueError("columns are named by their classes: leave out column and classes")
        return self

    @property
    def knows_some_labels(self) -> bool:
        """Whether each label of an image may be known or not by itself."""
        return self.target == "multi" and self.columns is not None

    @property
    def counts(self) -> bool:
        """Whether its metric is part of the mean."""
        return self.submit and self.score_weight > 0

    def own_format(self, name: str, form: "ClassificationFormat") -> "ClassificationFormat":
        """Return the format of this answer alone, as if it were the only one."""
        column = self.column or name
        layout = "label" if self.target == "single" else "label_string" if self.target == "multi" else "columns"
        keys = {key: text for key, text in form.submission_keys.items() if "{image_id}" in text}
        is_text = self.hand_in in ("label", "label_string")
        return ClassificationFormat(
            target=self.target,
            train=TrainFormat(
                keys=form.train.keys,
                layout=layout if self.columns is None else "columns",
                column=column,
                separator=self.separator,
                names={**form.train.names, **self.names},
            ),
            submission=SubmissionFormat(
                keys={key: text.replace("{class_id}", name) for key, text in keys.items()},
                layout=self.hand_in if is_text else "columns",
                value="decision" if self.hand_in == "decision" else "probability",
            ),
            none=self.none,
            group=form.group,
            join=form.join,
            test_csv=form.test_csv,
            bounds=self.bounds,
            class_weights=self.class_weights,
            unknown=self.unknown if self.knows_some_labels else [],
        )

    def own_classes(self, name: str) -> list[str] | None:
        """Return the classes that are named here, in order; None where train.csv tells them."""
        numbers = [self.column or name] if self.target == "regression" else self.classes
        return numbers if self.columns is None else self.columns


def _is_a_name(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(f"{name!r} names a target: expected letters, digits and _, with a letter first")
    return name


TargetName = Annotated[str, AfterValidator(_is_a_name)]


class MaybeSeveral(Section):
    """A section that has `targets` where an image has several answers, and is written without them where it has one."""

    @model_serializer(mode="wrap")
    def _without_empty_targets(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if key != "targets" or value}


class ClassificationFormat(MaybeSeveral):
    """How train.csv and the submission are written."""

    like: str | None = None  # a known competition's name in formats/known.yaml, whose settings stand under these
    # Several answers an image, each by its name; what else tells of one answer is said there. Layout rows of the
    # submission is a row an image and target, {class_id} its name. Folds are spread by the first.
    targets: dict[TargetName, TargetFormat] = {}
    target: TargetKind = "single"
    train: TrainFormat = TrainFormat()
    submission: SubmissionFormat = SubmissionFormat()
    none: str | None = None  # label string that means no class; without it an image is given its best one at least
    new: str | None = None  # label of classes that train.csv does not have, e.g. new_individual; for `top`
    group: str | None = None  # from columns of train.csv, "{patient_id}_{laterality}": its images are answered as one
    join: Literal["mean", "max"] = "mean"  # how the predictions of a group become one, and its images' truth
    test_csv: str = "test.csv"  # with `group`: in data.dir, the test images with those columns
    bounds: tuple[float, float] | None = None  # lowest and highest number of a regression; the network keeps to them
    class_weights: dict[str, Positive] = {}  # in log_loss, rsna2022 and weighted_r2, by class; 1 for the others
    score_by: str | None = None  # column of train.csv: group_roc_auc is the mean over what stands there, as a site
    # What stands in the csv file where nobody knows whether an image has a class, as [-1, ""]: neither loss nor score
    # look at it. For columns and rows of several labels.
    unknown: list[float | str] = []

    @field_validator("group")
    @classmethod
    def _names_columns(cls, pattern: str | None) -> str | None:
        if pattern is not None and not names_in(pattern):
            raise ValueError("expected columns in braces, as '{patient_id}_{laterality}'")
        return pattern

    @property
    def submission_separator(self) -> str:
        """What stands between the classes of one cell of a submission."""
        form, train = self.submission, self.train
        return " " if form.layout in ("top", "boxes") else form.separator or train.separator

    @property
    def submission_keys(self) -> Keys:
        """The columns that tell the rows of a submission apart."""
        return self.submission.keys or self.train.keys

    @cached_property
    def each(self) -> dict[str, "ClassificationFormat"]:
        """The format of each of several targets by itself; none where there is one."""
        return {name: target.own_format(name, self) for name, target in self.targets.items()}

    @model_validator(mode="after")
    def _targets_are_told_apart(self) -> Self:
        if not self.targets:
            return self
        if (said := next(self._said_of_one_answer(), None)) is not None:
            raise ValueError(f"{said[0]} is of one answer; with format.targets say it of each, as {self._as(said[1])}")
        if self.submission.layout not in ("columns", "rows"):
            raise ValueError(
                f"format.submission.layout {self.submission.layout} is of one answer; with format.targets expected "
                f"columns, or rows of an image and target, and what stands there is {self._as('hand_in')}"
            )
        if not any(target.submit for target in self.targets.values()):
            raise ValueError("format.targets: none is handed in; expected submit: true of one at least")
        for name, target in self.targets.items():
            try:
                own = target.own_format(name, self)
            except ValueError as error:
                raise ValueError(f"format.targets.{name}: {_reason(error)}") from None
            check_loss(own, target.loss, f"format.targets.{name}.")
        return self

    def _said_of_one_answer(self) -> Iterator[tuple[str, str]]:
        """Yield the keys that are set and of one answer, each with what says it of one of several."""
        keys: list[tuple[str, Section, str, str]] = [
            *(("format", self, key, key) for key in ("target", "none", "new", "bounds", "class_weights", "unknown")),
            *(("format.train", self.train, key, "columns") for key in ("layout", "column", "separator")),
            *(("format.submission", self.submission, key, "hand_in") for key in ("value", "separator")),
        ]
        for section, values, key, means in keys:
            if getattr(values, key) != type(values).model_fields[key].default:
                yield f"{section}.{key}", means

    def _as(self, key: str) -> str:
        return f"format.targets.{next(iter(self.targets))}.{key}"

    @model_validator(mode="after")
    def _layouts_fit_the_target(self) -> Self:
        for name, layout, known in (
            ("train", self.train.layout, TRAIN_LAYOUTS),
            ("submission", self.submission.layout, SUBMISSION_LAYOUTS),
        ):
            if self.target not in known.get(layout, (self.target,)):
                raise ValueError(f"format.{name}.layout {layout} is for format.target {' or '.join(known[layout])}")
        if self.target == "regression" and self.submission.value == "decision":
            raise ValueError("format.submission.value decision is for classes, not for format.target regression")
        for name, layout, keys in (
            ("train", self.train.layout, self.train.keys),
            ("submission", self.submission.layout, self.submission_keys),
        ):
            if has_class(keys) != (layout == "rows"):
                word = "needs" if layout == "rows" else "is without"
                raise ValueError(f"format.{name}.layout {layout} {word} {{class_id}} in format.{name}.keys")
        return self

    @model_validator(mode="after")
    def _tokens_fit(self) -> Self:
        if self.new is not None and self.submission.layout != "top":
            raise ValueError("format.new is for format.submission.layout top")
        if self.group is not None and self.submission.layout == "top":
            raise ValueError("format.group does not go with format.submission.layout top")
        if self.score_by is not None and self.group is not None:
            raise ValueError("format.score_by is of images, and format.group answers several as one; leave out either")
        if self.none is not None and self.target != "multi":
            raise ValueError("format.none is for format.target multi")
        if self.bounds is not None and (self.target != "regression" or self.bounds[0] >= self.bounds[1]):
            raise ValueError("format.bounds are lowest and highest number, ascending, of format.target regression")
        if self.class_weights and self.target == "single":
            raise ValueError("format.class_weights is for format.target multi or regression")
        if self.unknown and (self.target != "multi" or self.train.layout == "label_string"):
            raise ValueError("format.unknown is for format.target multi with columns or rows of 0 and 1")
        if {0, 1, "0", "1"} & set(self.unknown):
            raise ValueError("format.unknown: 0 and 1 say that an image has a class or not; expected other values")
        return self


def _reason(error: ValueError) -> str:
    """Return the first of what is wrong, without the words that pydantic puts around it."""
    found = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return found.removeprefix("Value error, ")


class Mix(Section):
    """Training images mixed in pairs, with their answers: mixup (Zhang et al. 2018), cutmix (Yun et al. 2019)."""

    mixup: Positive | None = None  # alpha of the Beta distribution of the shares
    cutmix: Positive | None = None  # with both, each batch takes one of them
    probability: Probability = 1.0  # share of batches


class ClassificationDecode(MaybeSeveral):
    """From probabilities to decisions, from numbers to ranks; what `competition tune` finds.

    Thresholds and quantiles are for decisions; probabilities that are handed in are scored by the best class, or 0.5.
    """

    # One for all, or one a class. With one class an image, the class that is largest against its threshold.
    thresholds: Threshold | list[Threshold] = 0.5
    quantile: Probability | list[Probability] | None = None  # thresholds are this quantile of the set's predictions
    # Between the ranks of a regression, from format.bounds[0] or 0 up; without them qwk, as the score, rounds.
    cut_points: list[float] | None = None
    new_threshold: Probability = 0.5  # format.new stands before classes less likely than this
    targets: dict[str, "ClassificationDecode"] = {}  # the same of each of format.targets

    @field_validator("cut_points")
    @classmethod
    def _ascend(cls, points: list[float] | None) -> list[float] | None:
        if points is not None and sorted(points) != points:
            raise ValueError("decode.cut_points must ascend")
        return points


class TaskConfig(Config):
    """A classification experiment."""

    task: Literal["classification"]
    model: ClassificationModel = ClassificationModel()
    format: ClassificationFormat = ClassificationFormat()
    loss: ClassificationLoss = ClassificationLoss()
    # The first is the score that is reported.
    metrics: Annotated[list[AnyMetric], Field(min_length=1)] = Field(None, validate_default=True)
    decode: ClassificationDecode = ClassificationDecode()
    mix: Mix = Mix()

    @field_validator("metrics", mode="before")
    @classmethod
    def _usual_metrics(cls, given: Any, info: ValidationInfo) -> Any:
        """Take metrics that the format can be scored by where none are given."""
        if given is not None:
            return given
        form: ClassificationFormat = info.data.get("format") or ClassificationFormat()
        return _mean_of(form) if form.targets else usual_metrics(form)

    @field_validator("metrics")
    @classmethod
    def _can_score(cls, metrics: list[str], info: ValidationInfo) -> list[str]:
        form: ClassificationFormat = info.data.get("format") or ClassificationFormat()
        if "format" not in info.data:
            return metrics
        if form.targets:
            check_metrics_of_several(form, metrics)
            return metrics
        for name in metrics:
            if name not in SCORABLE:
                raise ValueError(f"{name} is for format.targets, several answers an image")
            check_metric(form, name, "format.target")
        return metrics

    @field_validator("loss")
    @classmethod
    def _can_learn(cls, loss: ClassificationLoss, info: ValidationInfo) -> ClassificationLoss:
        form: ClassificationFormat = info.data.get("format") or ClassificationFormat()
        if "format" not in info.data:
            return loss
        said = [key for key, field in type(loss).model_fields.items() if getattr(loss, key) != field.default]
        if form.targets and (said := [key for key in said if key not in ("files", "distil")]):
            raise ValueError(f"loss.{said[0]}: with format.targets the loss is said of each, as {form._as('loss')}")
        if not form.targets:
            check_loss(form, loss)
        return loss

    @field_validator("decode")
    @classmethod
    def _can_decide(cls, decode: ClassificationDecode, info: ValidationInfo) -> ClassificationDecode:
        form: ClassificationFormat | None = info.data.get("format")
        if form is None:
            return decode
        model: ClassificationModel | None = info.data.get("model")
        joins = model is not None and model.join is not None
        for name, of_target in decode.targets.items():
            if name not in form.targets:
                known = f"; expected some of {', '.join(form.targets)}" if form.targets else ""
                raise ValueError(f"decode.targets: {name!r} is none of format.targets{known}")
            check_decode(form.each[name], of_target, f"decode.targets.{name}.", joins)
        if not form.targets:
            check_decode(form, decode, joins=joins)
        return decode

    @model_validator(mode="after")
    def _distances_can_be_learnt(self) -> Self:
        if self.model.head == "linear":
            return self
        others = [name for name, weight in self.loss.weights.items() if weight and name != "cross_entropy"]
        others += [] if self.loss.distil is None else ["distil"]
        if self.format.target != "single" or others or self.loss.files:
            found = self.format.target if self.format.target != "single" else [*others, *self.loss.files][0]
            raise ValueError(
                f"model.head: {self.model.head} is for format.target single and loss.cross_entropy alone; found {found}"
            )
        if self.optimizer.is_schedule_free:
            raise ValueError(
                f"model.head: {self.model.head} does not go with {self.optimizer.name}: what it remembers is of the "
                "weights between two steps, which that one averages; take another optimizer, with ema"
            )
        if self.data.window is not None:
            raise ValueError(f"model.head: {self.model.head} does not go with data.window: it compares whole images")
        return self

    @model_validator(mode="after")
    def _host_knows_the_truth(self) -> Self:
        unknown = self.format.unknown or any(target.unknown for target in self.format.targets.values())
        if self.host_metric is not None and unknown:
            raise ValueError(
                "host_metric: a host's file takes labels of 0 and 1 only, and would count what format.unknown names as "
                "0; leave out either: the metrics by name look at known labels only"
            )
        return self

    @model_validator(mode="after")
    def _what_is_of_one_answer(self) -> Self:
        if not self.format.targets:
            return self
        if self.data.classes is not None:
            raise ValueError(f"data.classes is of one answer; with format.targets: {self.format._as('classes')}")
        used = {
            "model.head": self.model.head != "linear",
            "loss.distil": self.loss.distil is not None,
            "data.extra": bool(self.data.extra),
            "data.pseudo": self.data.pseudo is not None,
        }
        if name := next((name for name, is_used in used.items() if is_used), None):
            raise ValueError(f"{name} is of one answer an image, and format.targets are several; leave out either")
        return self

    @model_validator(mode="after")
    def _groups_can_be_joined(self) -> Self:
        if self.model.join is None:
            return self
        if self.format.group is None:
            raise ValueError("model.join needs format.group: columns whose images are one sample, as '{study}'")
        used = {
            "data.window": self.data.window is not None,
            "data.pseudo": self.data.pseudo is not None,
            "data.extra": bool(self.data.extra),
            "data.weights_csv": self.data.weights_csv is not None,
            "data.weight": self.data.weight is not None,
            "mix": self.mix.mixup is not None or self.mix.cutmix is not None,
            "sampler.positive": isinstance(self.sampler.positive, PositiveColumn),
        }
        if name := next((name for name, is_used in used.items() if is_used), None):
            raise ValueError(f"{name} is of single images, and model.join makes a sample of a group; leave out either")
        return self

    @property
    def averaged_groups(self) -> str | None:
        """The pattern of groups whose images are answered one by one, and their answers joined; none where the network
        itself joins them."""
        return self.format.group if self.model.join is None else None

    @property
    def train_keys(self) -> Mapping[str, str]:
        """By column of train.csv, how it holds {image_id}."""
        return self.format.train.keys

    @property
    def submission_keys(self) -> Mapping[str, str]:
        """The same of the submission."""
        return self.format.submission_keys


def usual_metrics(form: ClassificationFormat) -> list[str]:
    """Return metrics of one answer an image that it can be scored by."""
    if form.target == "regression":
        return ["rmse", "mae"]
    return ["map5", "accuracy"] if form.submission.layout == "top" else ["macro_f1", "accuracy", "log_loss"]


def metric_of(form: ClassificationFormat, name: str) -> str:
    """Return the metric of one of several targets."""
    return form.targets[name].metric or usual_metrics(form.each[name])[0]


def _mean_of(form: ClassificationFormat) -> list[str]:
    """Return the mean of the targets' metrics, and each of them."""
    counted = [metric_of(form, name) for name, target in form.targets.items() if target.counts]
    mean = "mean_loss" if counted and counted[0] in LOWER_IS_BETTER else "mean"
    return [mean, *(f"{name}/{metric_of(form, name)}" for name in form.targets)]


def check_metrics_of_several(form: ClassificationFormat, metrics: list[str]) -> None:
    """Raise ValueError where one of the metrics cannot score `format.targets`."""
    for name in form.targets:
        check_metric(form.each[name], metric_of(form, name), f"format.targets.{name}.target")
    for metric in metrics:
        name, _, own = metric.partition("/")
        if name in form.targets and own in SCORABLE:
            check_metric(form.each[name], own, f"format.targets.{name}.target")
        elif metric in MEANS:
            _check_mean(form, metric)
        elif metric == "rsna2024":
            _check_spine(form, metric)
        else:
            raise ValueError(
                f"{metric} cannot score format.targets; expected mean or mean_loss, and metrics of each, as "
                f"{_mean_of(form)[1]}, or null for {', '.join(_mean_of(form))}"
            )


def _check_mean(form: ClassificationFormat, mean: str) -> None:
    """Raise ValueError where the metrics that are to be averaged are better in different directions."""
    words = {True: "lower", False: "higher"}
    for name, target in form.targets.items():
        metric = metric_of(form, name)
        if target.counts and (metric in LOWER_IS_BETTER) != (mean in LOWER_IS_BETTER):
            raise ValueError(
                f"{mean} is of metrics of which {words[mean in LOWER_IS_BETTER]} is better, and of "
                f"format.targets.{name}.metric {metric} {words[metric in LOWER_IS_BETTER]} is; give all targets of "
                f"score_weight over 0 metrics of one kind, or name the one that counts, as metrics: [{name}/{metric}]"
            )


def _check_spine(form: ClassificationFormat, metric: str) -> None:
    """Raise ValueError where targets that count have no three grades, or their names no condition of the spine."""
    for name, target in form.targets.items():
        is_graded = target.target == "single" and len(target.classes or ()) in (0, NUM_GRADES)
        if target.counts and not (is_graded and any(one in name for one in SPINE_CONDITIONS)):
            raise ValueError(
                f"{metric} is of three grades, the worst last, of {', '.join(SPINE_CONDITIONS)} conditions, and "
                f"format.targets.{name} is none by its name, target and classes; give it score_weight: 0, or take "
                "another metric"
            )


def check_metric(form: ClassificationFormat, metric: str, key: str) -> None:
    """Raise ValueError where a metric cannot score a format of one answer."""
    if form.target not in SCORABLE[metric]:
        usable = ", ".join(other for other, targets in SCORABLE.items() if form.target in targets)
        raise ValueError(f"{metric} cannot score {key} {form.target}; expected some of {usable}")
    if metric == "group_roc_auc" and form.score_by is None:
        raise ValueError("group_roc_auc needs format.score_by: the column of train.csv whose values are groups")
    if form.submission.layout == "top" and metric in ("log_loss", "roc_auc", "group_roc_auc", "voc_map"):
        raise ValueError(f"{metric} needs probabilities, and format.submission.layout top hands in none")


def check_loss(form: ClassificationFormat, loss: ClassificationLoss, where: str = "") -> None:
    """Raise ValueError where a loss cannot learn a format of one answer, whose keys stand at `where`."""
    for name in loss.weights:
        if form.target not in LOSSES[name]:
            usable = ", ".join(other for other, targets in LOSSES.items() if form.target in targets)
            key = f"{where or 'format.'}target"
            raise ValueError(f"{where}loss.{name} cannot learn {key} {form.target}; expected some of {usable}")
        if name == "bce" and form.target == "regression" and form.bounds is None:
            raise ValueError(f"{where}loss.bce of a regression needs {where or 'format.'}bounds")
    if where and loss.files:
        raise ValueError(f"{where}loss: a file of losses gets the outputs of all targets; expected it under loss")
    if where and loss.distil:
        raise ValueError(f"{where}loss.distil: another run teaches one answer an image, and format.targets are several")


def check_decode(
    form: ClassificationFormat, decode: ClassificationDecode, where: str = "decode.", joins: bool = False
) -> None:
    """Raise ValueError where answers of a format of one answer are not decided in this way."""
    if decode.targets and not form.targets:
        raise ValueError(f"{where}targets is for format.targets, several answers an image")
    if decode.quantile is not None and form.target != "multi":
        raise ValueError(f"{where}quantile is for format.target multi")
    if decode.cut_points is not None and form.target != "regression":
        raise ValueError(f"{where}cut_points is for format.target regression")
    if decode.cut_points is not None and form.group is not None and not joins:
        raise ValueError(f"{where}cut_points does not go with format.group, whose images are joined after it")
