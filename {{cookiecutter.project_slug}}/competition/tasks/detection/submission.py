"""submission.csv: a row an image, its boxes in one string, `class conf x y w h` for each or as `format:` has it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from competition.files.csv_file import NUMBER, line, read_csv, read_header, row_faults
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.tasks.contract import Target
from competition.tasks.detection.boxes import in_units
from competition.tasks.detection.settings import DetectionSubmission, TaskConfig
from competition.tasks.found_items import ONE_CLASS

POINT = 1e-3  # pixels: the side of a box that is read from its centre
SHARE_DIGITS = 8  # of shares of an image's sides: enough for hundredths of a pixel


def id_columns(config: TaskConfig) -> list[str]:
    """Return the column of image ids."""
    return [config.format.submission.image_id]


def number_columns(config: TaskConfig, classes: Sequence[str]) -> list[str]:
    """Return none: answers are strings."""
    return []


def read_test_ids(config: TaskConfig, classes: Sequence[str]) -> np.ndarray:
    """Return image ids in order; an image may stand there once, and no class may have a space."""
    sample, form = config.sample_submission, config.format.submission
    names = _written_classes(classes, form)
    if form.class_names is not None and len(set(names)) != len(classes):
        raise CompetitionError(
            f"format.submission.class_names: found {', '.join(form.class_names)}; expected {len(classes)} that differ, "
            f"one for each of {', '.join(classes)}"
        )
    if form.with_class and (spaced := [name for name in names if len(name.split()) != 1]):
        raise CompetitionError(
            f"{sample}: class {spaced[0]!r} has a space, which a {form.boxes} cannot hold; name it otherwise there "
            "(format.submission.class_names), or write its number: format.submission.class_as: index"
        )
    frame = read_csv(sample, [form.image_id, form.boxes])
    ids = frame[form.image_id]
    more = [name for name in _columns(sample) if name not in (form.image_id, form.boxes)]
    if more:
        raise CompetitionError(f"{sample}: column {more[0]!r} is not expected beside {form.image_id},{form.boxes}")
    faults = row_faults(sample, np.flatnonzero(ids.duplicated()), ids, "a second row of this image")
    faults += islice(_other_words(config, frame, names), 1)
    if faults:
        raise CompetitionError("\n".join(faults))
    return ids.to_numpy(dtype=object)


def _other_words(config: TaskConfig, frame: pd.DataFrame, names: Sequence[str]) -> Iterator[str]:
    """Describe strings of the sample that have a class where none is handed in, none where one is, or, where train.csv
    has no column of classes, that of another than is handed in."""
    form = config.format.submission
    is_nameless = list(names) == [ONE_CLASS] and config.format.class_id is None
    length = len(form.words)
    for row, text in zip(frame.index, frame[form.boxes], strict=True):
        words, wanted = text.split(), ""
        if not words or words == form.none.split():
            continue
        is_number = NUMBER.fullmatch(words[0]) is not None
        if len(words) % length and form.with_class and is_number and not len(words) % (length - 1):
            wanted = f"a class, and has none; expected format.submission.with_class: false, or {length} words a box"
        elif not form.with_class and not is_number and not len(words) % (length + 1):
            wanted = f"no class, and begins with {words[0]!r}; expected format.submission.with_class: true"
        elif form.with_class and is_nameless and not len(words) % length and words[0] != ONE_CLASS:
            wanted = (
                f"class {ONE_CLASS!r}, and begins with {words[0]!r}; expected format.submission.class_names: "
                f"[{words[0]!r}], format.class_id: COLUMN, or, where it says that there is no box, "
                "format.submission.none"
            )
        if wanted:
            yield f"{config.sample_submission}: line {line(row)}: {form.boxes} is to be handed in with {wanted}"


def asked_classes(config: TaskConfig, classes: Sequence[str]) -> set[str] | None:
    """Return none: a row is of an image."""
    return None


def write_submission(
    path: Path, config: TaskConfig, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
) -> None:
    """Write a row per image under the header of sample_submission.csv."""
    names, written = rows(config, answers, classes)
    order = [names.index(name) for name in _columns(config.sample_submission)]
    write_csv(path, read_header(config.sample_submission), ([row[i] for i in order] for row in written))


def rows(
    config: TaskConfig, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
) -> tuple[list[str], Iterator[list[str]]]:
    """Return columns and rows of a submission of any images."""
    form, shares = config.format.submission, config.format.submits_shares
    written = ([image_id, _format_boxes(answer, classes, form, shares)] for image_id, answer in answers)
    return [form.image_id, form.boxes], written


def perfect_answer(truth: Target, num_classes: int) -> Target:
    """Return the true boxes, each with score 1."""
    return {**truth, "scores": np.ones(len(truth["labels"]), dtype=np.float32)}


def read_submission(
    path: Path, config: TaskConfig, classes: Sequence[str], sizes: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, Target]]:
    """Yield image id and boxes; raise CompetitionError at the first string that is no list of boxes in the image."""
    form = config.format.submission
    frame = read_csv(path, [form.image_id, form.boxes])
    for row, image_id, text in zip(frame.index, frame[form.image_id], frame[form.boxes], strict=True):
        if image_id not in sizes:
            raise CompetitionError(f"{path}: line {line(row)}: found image {image_id!r}, which is not asked for")
        try:
            yield image_id, _parse_boxes(text, classes, config, *sizes[image_id])
        except ValueError as error:
            raise CompetitionError(f"{path}: line {line(row)}: {form.boxes}: {error}") from None


def _columns(sample: Path) -> list[str]:
    return [name.strip() for name in read_header(sample)]


def _written_classes(classes: Sequence[str], form: DetectionSubmission) -> list[str]:
    """Return what classes are called in a submission."""
    return [str(i) for i in range(len(classes))] if form.class_as == "index" else form.class_names or list(classes)


def _format_boxes(answer: Target, classes: Sequence[str], form: DetectionSubmission, shares: bool) -> str:
    if not len(answer["labels"]):
        return form.none
    names = _written_classes(classes, form)
    units = in_units(answer["bboxes"], form.decimals)
    first, second = units[:, :2], units[:, 2:]
    by_layout = {"xywh": [first, second - first], "xyxy": [first, second], "cxcy": [(first + second) / 2]}
    numbers = np.concatenate(by_layout[form.layout], axis=1) / 10**form.decimals
    if shares:
        numbers /= np.tile(answer["size"][::-1], numbers.shape[1] // 2)
    digits = SHARE_DIGITS if shares else form.decimals
    boxes = zip(answer["labels"].tolist(), answer["scores"], numbers.tolist(), strict=True)
    return " ".join(
        (f"{names[label]} " if form.with_class else "")
        # The shortest text that is this number again.
        + (f"{np.float32(score)!s} " if form.with_conf else "")
        + " ".join(f"{number:.{digits}f}" for number in box)
        for label, score, box in boxes
    )


def _parse_boxes(text: str, classes: Sequence[str], config: TaskConfig, height: int, width: int) -> Target:
    form, words = config.format.submission, text.split()
    if words == form.none.split():
        words = []
    length = len(form.words)
    if len(words) % length:
        raise ValueError(f"expected `{' '.join(form.words)}` for each box, found {len(words)} words")
    number_of = {name: number for number, name in enumerate(_written_classes(classes, form))}
    names = words[::length] if form.with_class else []
    unknown = [name for name in names if name not in number_of]
    if unknown:
        raise ValueError(f"found class {unknown[0]!r}; expected one of {', '.join(number_of)}")
    columns = range(form.with_class, length)
    numbers = np.array([words[i::length] for i in columns], dtype=np.float64).T.reshape(-1, len(columns))
    if not form.with_conf:
        numbers = np.concatenate([np.ones((len(numbers), 1)), numbers], axis=1)
    if not np.isfinite(numbers).all():
        raise ValueError(f"found {numbers[~np.isfinite(numbers)][0]}; expected finite numbers")
    return {
        "bboxes": _corners(numbers[:, 1:], config, height, width).astype(np.float32),
        "scores": numbers[:, 0].astype(np.float32),
        "labels": np.array([number_of[name] for name in names] or [0] * len(numbers), dtype=np.int64),
        **({"size": np.array([height, width])} if config.format.submits_shares else {}),
    }


def _corners(numbers: np.ndarray, config: TaskConfig, height: int, width: int) -> np.ndarray:
    """Return (k, 4) x1, y1, x2, y2 in pixels of what boxes are written as; raise ValueError for one not inside."""
    form = config.format.submission
    if config.format.submits_shares:
        sides = np.tile([width, height], numbers.shape[1] // 2)
        numbers = (numbers * sides).round(form.decimals)
    if form.layout == "cxcy":  # a box of no size that says where it is
        numbers = np.concatenate([numbers - POINT / 2, np.full_like(numbers, POINT)], axis=1)
    x1, y1, x2, y2 = numbers.T
    if form.layout != "xyxy":
        x2, y2 = x1 + x2, y1 + y2
    inside = (x1 >= 0) & (y1 >= 0) & (x2 > x1) & (y2 > y1) & (x2 <= width + 1e-6) & (y2 <= height + 1e-6)
    if not inside.all():
        raise ValueError(f"box {numbers[~inside][0].tolist()} is not inside the image of {width} x {height}")
    return np.stack([x1, y1, x2, y2], axis=1)
