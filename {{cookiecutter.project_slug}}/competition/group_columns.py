"""What tells that images are of one patient, video or place: a column of train.csv, or a part of their ids.

Torn over folds they leak. No torch.
"""

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from competition.csv_file import read_header, read_image_column
from competition.errors import CompetitionError
from competition.image_groups import groups_of_ids
from competition.settings import Config
from competition.task import Table

# What such columns are called, alone or among other words: patient_id, StudyInstanceUID.
NAMES = (
    "patient|subject|participant|person|individual|animal|user|group|video|sequence|series|case|study|scan|slide|"
    "volume|site|location"
)
GROUP_NAMES = re.compile(rf"({NAMES})(u?id)?", re.IGNORECASE)
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
# The same in an id, with a number behind: case12_day3_slice_0004, video_0/17.
IN_ID = re.compile(rf"(?<![A-Za-z])({NAMES})([_-]?)\d+", re.IGNORECASE)
NUMBERED = r"^(.+)[_/-]\d+(?:\.\w+)?$"  # the frames of something: a1b2_0001.png


def hint_at_groups(config: Config, table: Table) -> list[str]:
    """Return a line for each column that looks like a group, or for a part of the ids that does, where the config names
    none that folds keep together."""
    data = config.data
    if any(given is not None for given in (data.group, data.group_file, data.group_pattern)):
        return []
    return _hint_at_columns(config, table) or _hint_at_ids(config, table)


def _hint_at_ids(config: Config, table: Table) -> list[str]:
    """Return a line on the part of the image ids that looks like a group: of several the one with the fewest values."""
    ids, least = table.image_ids, config.data.num_folds
    if not len(ids):
        return []
    named = {f"{found[1]}{found[2]}\\d+" for found in IN_ID.finditer(str(ids[0]))}
    counted = []
    for pattern in [*sorted(named), NUMBERED]:
        groups = groups_of_ids(pattern, ids)
        number = len(set(groups))
        # Files are often named after their class, and numbered: that is no group.
        if not groups.all() or {str(group).lower() for group in groups} & {name.lower() for name in table.classes}:
            continue
        if least <= number <= len(ids) * (0.5 if pattern == NUMBERED else 1) and number < len(ids):
            counted.append((pattern == NUMBERED, number, pattern, groups[0]))
    if not counted:
        return []
    _, number, pattern, first = min(counted)
    return [
        f"image ids: '{pattern}' finds {number} values in {len(ids)} ids, as {first!r} of {str(ids[0])!r}: where "
        f"images of one patient, video or slide share it, data.group_pattern: '{pattern}' keeps those in the same fold"
    ]


def _hint_at_columns(config: Config, table: Table) -> list[str]:
    if not config.train_csv.is_file():
        return []
    try:
        header = read_header(config.train_csv)
    except (CompetitionError, ValueError):  # no csv file, where images are listed elsewhere
        return []
    in_use = {*_texts(config.format.model_dump()), *table.classes}
    lines = []
    for column in (name.strip() for name in header):
        if column in in_use or not _is_called_a_group(column):
            continue
        try:
            values = pd.Series(read_image_column(config.train_csv, column, table.image_ids, table.lines))
        except CompetitionError:  # it has several values for an image
            continue
        values = values[values != ""]
        # Of fewer values than folds some fold would have no image.
        if config.data.num_folds <= (number := values.nunique()) < len(values):
            lines.append(
                f"{config.data.train_csv}: column {column} has {number} values in {len(values)} images: "
                f"data.group: {column} keeps those of one in the same fold"
            )
    return lines


def _is_called_a_group(column: str) -> bool:
    return any(GROUP_NAMES.fullmatch(word) for word in WORDS.findall(column))


def _texts(values: Any) -> Iterator[str]:
    """Yield every text in plain values, keys as well."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield key
            yield from _texts(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value)
