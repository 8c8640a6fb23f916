"""What may stand in `format.targets:`, several answers an image; of one answer nothing here is looked at."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from competition.config.section import Positive, Section
from competition.tasks.classification.settings.loss import ClassificationLoss, Weight
from competition.tasks.classification.settings.metric_names import MetricName, TargetKind

Separator = Annotated[str, Field(min_length=1, max_length=3)]


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
