"""What may stand in `decode:`."""

from typing import Annotated

from pydantic import Field, field_validator

from competition.config.section import Probability
from competition.tasks.classification.settings.format import ClassificationFormat
from competition.tasks.classification.settings.targets import MaybeSeveral

Threshold = Annotated[float, Field(gt=0, le=1)]


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
