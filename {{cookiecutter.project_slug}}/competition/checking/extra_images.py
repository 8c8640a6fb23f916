"""The sets of `data.extra`: what is wrong with their images, which of them are validation or test images. No torch."""

from collections.abc import Callable, Sequence

import numpy as np

from competition.checking.near_duplicates import Thumbnails, near_duplicates
from competition.config.settings import Config
from competition.data.extra_sets import DUPLICATE_COLUMNS, Extra
from competition.files.item_source import own_part
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.support.freshness import MadeFrom
from competition.tasks.contract import Table

LookAtAll = Callable[[Callable[[int], list[str]], int, str], list[str]]


def check_extras(
    config: Config,
    table: Table,
    extras: Sequence[Extra],
    seen: Sequence[Thumbnails],
    look_at_all: LookAtAll,
    made_from: MadeFrom,
) -> tuple[list[str], list[str]]:
    """Return faults of the images of further sets and, where there are none, what is said of the sets.

    `seen` are thumbnails of training and test images; without any nobody looks for duplicates, else they are written,
    with a note of what they are `made_from`.
    """
    faults, lines, kept = list[str](), list[str](), list[Thumbnails]()
    for extra in extras:
        thumbnails = Thumbnails.of(len(extra.table.image_ids))
        faults += look_at_all(lambda row, of=extra, to=thumbnails: _look(config, of, row, to), *_number_and_name(extra))
        rows = extra.rows(table.image_ids.tolist())
        which = "test images of pseudo-labels" if extra.of_test else "images more in the training part of each fold"
        left = len(extra.table.image_ids) - len(rows)
        lines.append(f"{extra.name}: {len(rows)} {which}" + (f"; {left} others do not count" if left else ""))
        kept.append(thumbnails)
    own = [(extra, one) for extra, one in zip(extras, kept, strict=True) if not extra.of_test]
    if own and seen and not faults:
        lines += _write_duplicates(table, own, seen, made_from)
    return faults, lines


def _number_and_name(extra: Extra) -> tuple[int, str]:
    return len(extra.table.image_ids), f"images of {extra.name}"


def _look(config: Config, extra: Extra, row: int, thumbnails: Thumbnails) -> list[str]:
    try:
        pixels = extra.source(row).read()
    except CompetitionError as error:
        return [f"{error} ({extra.name} line {extra.table.lines[row]})"]
    try:
        extra.target(row, *pixels.shape[:2])
    except CompetitionError as error:
        return str(error).splitlines()
    thumbnails.add(row, own_part(pixels, config.data))
    return []


def _write_duplicates(
    table: Table, extras: Sequence[tuple[Extra, Thumbnails]], seen: Sequence[Thumbnails], made_from: MadeFrom
) -> list[str]:
    """Write which images of the sets are near-duplicates of training images, which some fold validates, and of test
    images; say how many."""
    train, test = seen
    groups = near_duplicates(_joined([train, test, *(one for _, one in extras)]))
    numbers = np.cumsum([0, len(train.digests), len(test.digests), *(len(one.digests) for _, one in extras)])
    of_train, of_test = (set(groups[numbers[k] : numbers[k + 1]].tolist()) - {-1} for k in range(2))
    twins: dict[int, list[str]] = {}
    for row, group in enumerate(groups[: len(train.digests)].tolist()):
        twins.setdefault(group, []).append(str(table.image_ids[row]))
    rows, lines = [], []
    for (extra, _), begin, end in zip(extras, numbers[2:], numbers[3:], strict=False):
        here = groups[begin:end].tolist()
        for image_id, group in zip(extra.table.image_ids, here, strict=True):
            known = [*([""] if group in of_test else []), *(twins[group] if group in of_train else [])]
            rows += [(extra.name, image_id, twin) for twin in known]
        lines.append(
            f"{extra.name}: near-duplicates of training images: {sum(group in of_train for group in here)}, left out "
            f"of the folds that validate these; of test images: {sum(group in of_test for group in here)}, left out"
        )
    write_csv(made_from.path, DUPLICATE_COLUMNS, rows, "data.folds says where else to write")
    made_from.note()
    return lines


def _joined(parts: Sequence[Thumbnails]) -> Thumbnails:
    return Thumbnails(np.concatenate([one.pictures for one in parts]), np.concatenate([one.digests for one in parts]))
