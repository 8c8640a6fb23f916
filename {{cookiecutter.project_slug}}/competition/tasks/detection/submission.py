"""submission.csv: `image_id,PredictionString`, where the string is `class conf x y w h` for each box."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from competition.csv_file import read_csv, row_faults
from competition.errors import CompetitionError
from competition.files import write_csv
from competition.task import Target
from competition.tasks.detection.settings import TaskConfig

COLUMNS = ("image_id", "PredictionString")


def id_columns(config: TaskConfig) -> list[str]:
    """Return `image_id`."""
    return ["image_id"]


def read_test_ids(config: TaskConfig, classes: Sequence[str]) -> np.ndarray:
    """Return image ids in order; an image may stand there once, and no class may have a space."""
    sample = config.sample_submission
    spaced = [name for name in classes if len(name.split()) != 1]
    if spaced:
        raise CompetitionError(
            f"{sample}: class {spaced[0]!r} has a space, which a PredictionString cannot hold; rename it in train.csv"
        )
    ids = read_csv(sample, COLUMNS[:1])["image_id"]
    faults = row_faults(sample, np.flatnonzero(ids.duplicated()), ids, "a second row of this image")
    if faults:
        raise CompetitionError("\n".join(faults))
    return ids.to_numpy(dtype=object)


def write_submission(
    path: Path, config: TaskConfig, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
) -> None:
    """Write a row per image; an image without boxes gets the empty string."""
    write_csv(path, COLUMNS, ([image_id, _format_boxes(answer, classes)] for image_id, answer in answers))


def _format_boxes(answer: Target, classes: Sequence[str]) -> str:
    boxes = zip(answer["bboxes"].tolist(), answer["scores"].tolist(), answer["labels"].tolist(), strict=True)
    return " ".join(
        f"{classes[label]} {score:.5f} {x1:.2f} {y1:.2f} {x2 - x1:.2f} {y2 - y1:.2f}"
        for (x1, y1, x2, y2), score, label in boxes
    )


def read_submission(
    path: Path, config: TaskConfig, classes: Sequence[str], sizes: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, Target]]:
    """Yield image id and boxes; raise CompetitionError at the first string that is no list of boxes in the image."""
    frame = read_csv(path, COLUMNS)
    for number, (image_id, text) in enumerate(zip(*(frame[c] for c in COLUMNS), strict=True), start=2):
        if image_id not in sizes:
            raise CompetitionError(f"{path}: line {number}: found image {image_id!r}, which is not asked for")
        try:
            yield image_id, _parse_boxes(text, classes, *sizes[image_id])
        except ValueError as error:
            raise CompetitionError(f"{path}: line {number}: PredictionString: {error}") from None


def _parse_boxes(text: str, classes: Sequence[str], height: int, width: int) -> Target:
    words = text.split()
    if len(words) % 6:
        raise ValueError(f"expected `class conf x y w h` for each box, found {len(words)} words")
    unknown = [name for name in words[::6] if name not in classes]
    if unknown:
        raise ValueError(f"found class {unknown[0]!r}; expected one of {', '.join(classes)}")
    numbers = np.array([words[i::6] for i in range(1, 6)], dtype=np.float32).T.reshape(-1, 5)
    if not np.isfinite(numbers).all():
        raise ValueError(f"found {numbers[~np.isfinite(numbers)][0]}; expected finite numbers")
    x, y, w, h = numbers[:, 1:].T
    inside = (x >= 0) & (y >= 0) & (w > 0) & (h > 0) & (x + w <= width + 0.01) & (y + h <= height + 0.01)
    if not inside.all():
        raise ValueError(f"box {numbers[~inside][0, 1:].tolist()} is not inside the image of {width} x {height}")
    return {
        "bboxes": np.stack([x, y, x + w, y + h], axis=1),
        "scores": numbers[:, 0],
        "labels": np.array([classes.index(name) for name in words[::6]], dtype=np.int64),
    }
