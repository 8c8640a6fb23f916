"""What may stand in `format:`: how train.csv and the submission tell the answers."""

from collections.abc import Iterator
from functools import cached_property
from typing import Literal, Self

from pydantic import ValidationError, field_validator, model_validator

from competition.config.section import Count, Positive, Section, names_in
from competition.files.csv_keys import Keys, has_class
from competition.tasks.classification.settings.loss import check_loss
from competition.tasks.classification.settings.metric_names import CLASSES, TargetKind
from competition.tasks.classification.settings.targets import MaybeSeveral, Separator, TargetFormat, TargetName

TRAIN_LAYOUTS = {"label": ("single",), "label_string": ("multi",), "probabilities": CLASSES}
SUBMISSION_LAYOUTS = {"label": ("single",), "label_string": ("multi",), "top": ("single",), "boxes": CLASSES}


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
        return {name: _of_one(self, name) for name in self.targets}

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
                own = _of_one(self, name)
            except ValueError as error:
                raise ValueError(f"format.targets.{name}: {_reason(error)}") from None
            check_loss(target.loss, own.target, own.bounds, f"format.targets.{name}.")
        return self

    def _said_of_one_answer(self) -> Iterator[tuple[str, str]]:
        """Yield the keys that are set and of one answer, each with what says it of one of several."""
        keys: list[tuple[str, Section, str, str]] = [
            *(("format", self, key, key) for key in ("target", "none", "new", "bounds", "class_weights", "unknown")),
            *(("format.train", self.train, key, "columns") for key in ("layout", "column", "separator")),
            *(("format.submission", self.submission, key, "hand_in") for key in ("value", "separator")),
        ]
        for section, values, key, means in keys:
            if not values.is_usual(key):
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


def _of_one(form: ClassificationFormat, name: str) -> ClassificationFormat:
    """Return the format of one of several answers, as if it were the only one."""
    target = form.targets[name]
    column = target.column or name
    layout = "label" if target.target == "single" else "label_string" if target.target == "multi" else "columns"
    keys = {key: text for key, text in form.submission_keys.items() if "{image_id}" in text}
    is_text = target.hand_in in ("label", "label_string")
    return ClassificationFormat(
        target=target.target,
        train=TrainFormat(
            keys=form.train.keys,
            layout=layout if target.columns is None else "columns",
            column=column,
            separator=target.separator,
            names={**form.train.names, **target.names},
        ),
        submission=SubmissionFormat(
            keys={key: text.replace("{class_id}", name) for key, text in keys.items()},
            layout=target.hand_in if is_text else "columns",
            value="decision" if target.hand_in == "decision" else "probability",
        ),
        none=target.none,
        group=form.group,
        join=form.join,
        test_csv=form.test_csv,
        bounds=target.bounds,
        class_weights=target.class_weights,
        unknown=target.unknown if target.knows_some_labels else [],
    )


def _reason(error: ValueError) -> str:
    """Return the first of what is wrong, without the words that pydantic puts around it."""
    found = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return found.removeprefix("Value error, ")
