"""What may stand in `loss:`, and in that of each of several answers."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from competition.config.section import Losses, Positive
from competition.tasks.classification.settings.metric_names import CLASSES, TargetKind

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
LOSSES = {
    "cross_entropy": ("single",),
    "bce": ("multi", "regression"),
    "focal": CLASSES,
    "mse": ("regression",),
    "l1": ("regression",),
    "smooth_l1": ("regression",),
}


OF_CLASSES = ("label_smoothing", "class_weights")


class ClassificationLoss(Losses):
    """Losses with the weights by which they are added; without any, the usual one of the target."""

    has_teachers = True
    parameters: ClassVar[dict[str, str]] = {"focal_gamma": "focal"}
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


def check_loss(
    loss: ClassificationLoss, target: TargetKind, bounds: tuple[float, float] | None, where: str = ""
) -> None:
    """Raise ValueError where a loss cannot learn an answer, whose keys stand at `where` if it is one of several."""
    for name in loss.weights:
        if target not in LOSSES[name]:
            usable = ", ".join(other for other, targets in LOSSES.items() if target in targets)
            key = f"{where or 'format.'}target"
            raise ValueError(f"{where}loss.{name} cannot learn {key} {target}; expected some of {usable}")
        if name == "bce" and target == "regression" and bounds is None:
            raise ValueError(f"{where}loss.bce of a regression needs {where or 'format.'}bounds")
    if where and loss.files:
        raise ValueError(f"{where}loss: a file of losses gets the outputs of all targets; expected it under loss")
    if where and loss.distil:
        raise ValueError(f"{where}loss.distil: another run teaches one answer an image, and format.targets are several")
