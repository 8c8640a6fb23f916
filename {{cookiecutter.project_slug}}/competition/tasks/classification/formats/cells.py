"""One image's answer as text in a submission, in each layout of `format.submission`, both ways. No torch."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from competition.files.csv_numbers import exact, numbers_in
from competition.tasks.classification.decode import NEW, best_classes, decided, hands_in_ranks, whole
from competition.tasks.classification.formats.answers import parted
from competition.tasks.classification.kinds.heads import handed_in, head_classes, of_head, side_by_side
from competition.tasks.classification.kinds.kind import said_labels
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.contract import Target

NOWHERE = "0 0 1 1"  # the box of a class that is of the whole image, as hosts write it


def write_cells(answer: Target, config: TaskConfig, classes: Sequence[str]) -> list[str]:
    """Return the text of one column, or of a column (or row) a class; of several targets those of one after the other.
    The answer must be decided: see `settle`."""
    form = config.format
    if form.targets:
        each = handed_in(config).items()
        return [t for name, one in each for t in write_cells(of_head(answer, name), one, head_classes(classes, name))]
    match form.submission.layout:
        case "label":
            return [classes[answer["choice"]]]
        case "label_string":
            names = [classes[number] for number in np.flatnonzero(answer["labels"])]
            return [form.submission_separator.join(names) if names else (form.none or "")]
        case "top":
            top = answer["top"] if "top" in answer else best_classes(answer["probabilities"], config)
            return [" ".join(str(form.new) if number == NEW else classes[number] for number in top)]
        case "boxes":
            pairs = zip(classes, answer["probabilities"], strict=True)
            return [" ".join(f"{name} {exact(probability)} {NOWHERE}" for name, probability in pairs)]
    if form.target == "regression":
        # A constant answer, which others are compared with, has not been decoded.
        values = whole(answer["value"]) if hands_in_ranks(config) else answer["value"]
        return [exact(value) for value in values]
    if form.submission.value == "probability":
        return [exact(probability) for probability in answer["probabilities"]]
    return [str(int(is_chosen)) for is_chosen in said_labels(answer, len(classes))]


def is_text(config: TaskConfig) -> bool:
    """Return whether a cell holds an image's whole answer in words."""
    return config.format.submission.layout in ("label", "label_string", "top", "boxes")


def number_of_cells(config: TaskConfig, classes: Sequence[str]) -> int:
    """Return how many cells the answer of one target has."""
    return 1 if is_text(config) else len(classes)


class WrongCellError(Exception):
    """A text that is no answer: where it stands among the cells, and what was expected."""

    def __init__(self, cell: int, expected: str) -> None:
        super().__init__(expected)
        self.cell = cell
        self.expected = expected


def read_cells(cells: Sequence[str], config: TaskConfig, numbers: dict[str, int]) -> Target:
    """Return the answer that the texts of one image hold; `numbers` are those of the classes by name.

    Raises WrongCellError at one that is not valid.
    """
    if config.format.targets:
        return _read_several(cells, config, numbers)
    match config.format.submission.layout:
        case "label":
            return _read_label(cells[0], numbers)
        case "label_string":
            return _read_label_string(cells[0], config, numbers)
        case "top":
            return _read_top(cells[0], config, numbers)
        case "boxes":
            return _read_boxes(cells[0], config, numbers)
    return _read_numbers(cells, config)


def _read_several(cells: Sequence[str], config: TaskConfig, numbers: dict[str, int]) -> Target:
    found, first = {}, 0
    for name, one in handed_in(config).items():
        own = head_classes(list(numbers), name)
        after = first + number_of_cells(one, own)
        try:
            found[name] = read_cells(cells[first:after], one, {each: number for number, each in enumerate(own)})
        except WrongCellError as error:
            raise WrongCellError(first + error.cell, f"{error.expected} of {name}") from None
        first = after
    return side_by_side(found)


def _read_label(text: str, numbers: dict[str, int]) -> Target:
    if text not in numbers:
        raise WrongCellError(0, f"expected one of the classes {_some(numbers)}")
    return {"probabilities": np.eye(1, len(numbers), numbers[text])[0], "choice": numbers[text]}


def _read_label_string(text: str, config: TaskConfig, numbers: dict[str, int]) -> Target:
    none, separator = config.format.none, config.format.submission_separator
    names = [] if text == none else parted(text, separator)
    if not names and text != none:
        between = "blanks" if separator == " " else repr(separator)
        raise WrongCellError(0, f"expected classes with {between} between them{f' or {none!r}' if none else ''}")
    _check_names(names, set(numbers), numbers)
    labels = np.zeros(len(numbers), dtype=bool)
    labels[[numbers[name] for name in names]] = True
    return {"probabilities": labels.astype(np.float64), "labels": labels}


def _read_top(text: str, config: TaskConfig, numbers: dict[str, int]) -> Target:
    most, new = config.format.submission.top, config.format.new
    names = text.split()
    if not 1 <= len(names) <= most:
        raise WrongCellError(0, f"expected 1 to {most} classes with blanks between them")
    _check_names(names, {*numbers, *([new] if new else [])}, numbers)
    top = np.array([NEW if name == new else numbers[name] for name in names], dtype=np.int64)
    probabilities = np.zeros(len(numbers))
    places = 1 - np.arange(len(top)) / most
    probabilities[top[top != NEW]] = places[top != NEW] / places.sum()
    # Padded, so that the answers of all images are equally long; -2 is no class.
    return {"probabilities": probabilities, "top": np.pad(top, (0, most - len(top)), constant_values=-2)}


def _read_boxes(text: str, config: TaskConfig, numbers: dict[str, int]) -> Target:
    words = text.split()
    boxes = [words[at : at + 6] for at in range(0, len(words), 6)]
    if not boxes or any(" ".join(box[2:]) != NOWHERE for box in boxes):
        raise WrongCellError(0, f"expected `class probability {NOWHERE}` for each class")
    names = [box[0] for box in boxes]
    _check_names(names, set(numbers), numbers)
    said = numbers_in(pd.Series([box[1] for box in boxes]))
    if not ((said >= 0) & (said <= 1)).all():
        raise WrongCellError(0, "expected probabilities from 0 to 1")
    probabilities = np.zeros(len(numbers))
    probabilities[[numbers[name] for name in names]] = said
    return decided(probabilities, config)


def _check_names(names: list[str], known: set[str], numbers: dict[str, int]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise WrongCellError(0, f"{unknown[0]!r} is not one of the classes {_some(numbers)}")
    if len(set(names)) < len(names):
        raise WrongCellError(0, "a class stands twice; expected each once")


def _read_numbers(cells: Sequence[str], config: TaskConfig) -> Target:
    form = config.format
    values = numbers_in(pd.Series(cells))
    if form.target == "regression":
        fits, expected = np.isfinite(values), "expected a number"
    elif form.submission.value == "decision":
        fits, expected = np.isin(values, (0, 1)), "expected 0 or 1"
    else:
        fits, expected = (values >= 0) & (values <= 1), "expected a probability"
    if not fits.all():
        raise WrongCellError(int(np.argmin(fits)), expected)
    if form.target == "regression":
        return {"value": values}
    if form.submission.value == "probability":
        return decided(values, config)
    if form.target == "multi":
        return {"probabilities": values, "labels": values == 1}
    if values.sum() != 1:
        raise WrongCellError(0, "expected 1 in exactly one of the classes")
    return {"probabilities": values, "choice": int(values.argmax())}


def _some(numbers: dict[str, int]) -> str:
    names = list(numbers)[:12]
    return ", ".join(names) + (", ..." if len(numbers) > len(names) else "")
