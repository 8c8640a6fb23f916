"""Which images are the neighbours of an image, by `data.stack`. No torch."""

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from competition.config.optional_data import Stack
from competition.files.file_patterns import STALE, expression, field_names
from competition.files.image_folder import ImageFolder, folders_in, ids_below, rows_by_image
from competition.files.joined_tables import TableState
from competition.support.errors import CompetitionError

Group = tuple[str, ...]
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")


@dataclass(frozen=True)
class Series:
    """The images of each group in order, and where each is."""

    groups: Mapping[Group, Sequence[str]]
    places: Mapping[str, tuple[Group, int]]

    @classmethod
    def of(cls, images: Iterable[tuple[str, Group, str]]) -> "Series":
        """Sort images, each with its group and its order."""
        found = defaultdict[Group, list[tuple[tuple, str]]](list)
        for image_id, group, order in images:
            found[group].append((_natural(order), image_id))
        groups = {group: [image_id for _, image_id in sorted(its)] for group, its in found.items()}
        places = {one: (group, place) for group, its in groups.items() for place, one in enumerate(its)}
        return cls(groups, places)


def neighbours(folder: ImageFolder, stack: Stack, image_id: str) -> list[str | None]:
    """Return the images that `stack.take` means for an image; none beyond an end where `stack.edge` is zero.

    Of an image that is not there itself it is that image alone: where it is read, it is told.
    """
    series = _by_columns(folder, stack) if stack.by is None else _by_pattern(folder, stack, stack.by, image_id)
    if image_id not in series.places:
        return [image_id] * len(stack.take)
    group, place = series.places[image_id]
    members = series.groups[group]
    found = [place_within(place + step, len(members), stack) for step in stack.take]
    return [None if one is None else members[one] for one in found]


def place_within(place: int, number: int, stack: Stack) -> int | None:
    """Return a place among so many; none beyond an end where `stack.edge` is zero."""
    if 0 <= place < number:
        return place
    if stack.edge == "zero":
        return None
    if stack.edge == "repeat" or number == 1:
        return min(max(place, 0), number - 1)
    turned = abs(place) % (2 * number - 2)  # there and back again, the ends once
    return min(turned, 2 * number - 2 - turned)


def _natural(text: str) -> tuple:
    """Return what texts are sorted by: numbers by their value, before texts by the numbers in them."""
    stripped = text.strip()
    if NUMBER.fullmatch(stripped):
        return 0, float(stripped), ()
    parts = re.split(r"(\d+)", stripped)
    return 1, 0.0, tuple(int(part) if number % 2 else part for number, part in enumerate(parts))


def _by_columns(folder: ImageFolder, stack: Stack) -> Series:
    assert stack.group is not None
    assert stack.order is not None
    return _series_of_table(*folder.table_state(), (stack.group, stack.order))


@lru_cache(maxsize=4)
def _series_of_table(
    path: Path, keys: tuple[tuple[str, str], ...], changed: TableState, names: tuple[str, str]
) -> Series:
    rows = rows_by_image(path, keys, changed, names)
    return Series.of((image_id, (group,), order) for image_id, (group, order) in rows.items())


def _by_pattern(folder: ImageFolder, stack: Stack, by: str, image_id: str) -> Series:
    if not re.fullmatch(expression(by), image_id):
        raise CompetitionError(f"image {image_id!r}: does not follow data.stack.by {by!r}")
    root, order = folder.data.dir / folder.folder, stack.order or field_names(by)[-1]
    for is_second_look in (False, True):
        if is_second_look and time.monotonic() - _looked[root] > STALE:
            _series_of_files.cache_clear()
        changed = root.stat().st_mtime_ns if root.is_dir() else 0
        series = _series_of_files(root, folder.pattern, folder.data.id_parts, by, order, changed)
        if image_id in series.places:
            return series
    if folder.file(image_id).is_file():
        raise CompetitionError(
            f"data.stack.by: {folder.file(image_id)} is that of image {image_id!r}, which the names of files do not "
            f"tell by {folder.pattern!r}; say by columns where an image belongs: data.stack.order and data.stack.group"
        )
    return series


_looked: dict[Path, float] = {}  # when a folder was looked into


@lru_cache(maxsize=4)
def _series_of_files(root: Path, pattern: str, id_parts: str | None, by: str, order: str, changed: int) -> Series:
    _looked[root] = time.monotonic()
    whole, images = re.compile(expression(by)), []
    for image_id in ids_below(root, pattern, id_parts, folders_in([by])):
        if (found := whole.fullmatch(image_id)) is not None:
            fields = found.groupdict()
            place = fields.pop(order)
            images.append((image_id, tuple(fields.values()), place))
    return Series.of(images)


def group_pattern(stack: Stack) -> str | None:
    """Return the `data.group_pattern` that keeps the groups of a stack together; none where ids begin otherwise."""
    before = "" if stack.by is None else stack.by.partition(f"{{{stack.order or field_names(stack.by)[-1]}}}")[0]
    if not field_names(before) or (stack.by or "").count("{") > before.count("{") + 1:
        return None
    return f"^({re.sub(r'[(]?[?]P<.*?>(.*?)[)]', r'.+', expression(before))})"
