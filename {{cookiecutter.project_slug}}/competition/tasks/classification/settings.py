"""What a classification config may hold beside the common sections."""

from typing import Annotated, Literal

from pydantic import Field

from competition.settings import Config, Model, Probability, Section


class ClassificationModel(Model):
    """Any timm model by name."""

    dropout: Probability = 0.0


class ClassificationLoss(Section):
    """Cross entropy; smoothing moves this share of each label to the other classes."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class ClassificationDecode(Section):
    """Probabilities are handed in as they are; nothing to set yet."""


class ClassificationFormat(Section):
    """How train.csv and the submission are written."""

    like: str | None = None  # a known competition's name in formats.yaml, whose settings stand under these


class TaskConfig(Config):
    """A classification experiment."""

    task: Literal["classification"]
    model: ClassificationModel = ClassificationModel()
    format: ClassificationFormat = ClassificationFormat()
    loss: ClassificationLoss = ClassificationLoss()
    # The first is the score that is reported.
    metrics: Annotated[list[Literal["accuracy", "macro_f1", "log_loss", "roc_auc"]], Field(min_length=1)] = [
        "macro_f1",
        "accuracy",
        "log_loss",
    ]
    decode: ClassificationDecode = ClassificationDecode()
