"""A classification config as a whole: its sections, and what of them does not go together."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from competition.config.sampler_settings import PositiveColumn
from competition.config.section import Positive, Probability, Section
from competition.config.settings import Config
from competition.tasks.classification.settings.decode import ClassificationDecode, check_decode
from competition.tasks.classification.settings.format import ClassificationFormat
from competition.tasks.classification.settings.loss import OF_CLASSES, ClassificationLoss, check_loss
from competition.tasks.classification.settings.metric_names import METRICS, AnyMetric
from competition.tasks.classification.settings.metrics import (
    check_metric,
    check_metrics_of_several,
    mean_of,
    usual_metrics,
)
from competition.tasks.classification.settings.model import ClassificationModel


class Mix(Section):
    """Training images mixed in pairs, with their answers: mixup (Zhang et al. 2018), cutmix (Yun et al. 2019)."""

    mixup: Positive | None = None  # alpha of the Beta distribution of the shares
    cutmix: Positive | None = None  # with both, each batch takes one of them
    probability: Probability = 1.0  # share of batches


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
        return mean_of(form) if form.targets else usual_metrics(form)

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
            if name not in METRICS:
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
            check_loss(loss, form.target, form.bounds)
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

    def reasons_unused(self) -> dict[str, str]:
        """Describe, by key, what is of a head, of groups or of columns where there are none, and of several answers
        what is of classes or of a loss."""
        forms = self.format.each or {"": self.format}
        reasons = super().reasons_unused() | self.model.reasons_unused()
        for name, form in forms.items():
            loss, where = (self.format.targets[name].loss, f"format.targets.{name}.") if name else (self.loss, "")
            reasons |= loss.reasons_unused(f"{where}loss.")
            of_classes = [key for key in OF_CLASSES if getattr(loss, key)] if form.target == "regression" else []
            reasons |= {f"{where}loss.{key}": "is of classes, and a regression has none" for key in of_classes}
        if self.sampler.weights and all(form.target == "regression" for form in forms.values()):
            reasons["sampler.weights"] = "is of classes, and a regression has none"
        if self.model.join is None and not self.data.is_usual("group_images"):
            reasons["data.group_images"] = "is of model.join, which is off"
        if self.model.join_columns != "concat" and self.data.columns is None:
            reasons["model.join_columns"] = "is of data.columns, and there are none"
        if self.format.join != "mean" and self.format.group is None:
            reasons["format.join"] = "is of format.group, and there is none"
        return reasons

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
