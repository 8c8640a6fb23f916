"""Columns of train.csv by which images are of one patient, video or place: torn over folds they leak. No torch."""

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from competition.csv_file import read_header, read_image_column
from competition.errors import CompetitionError
from competition.settings import Config
from competition.task import Table

# What such columns are called, alone or among other words: patient_id, StudyInstanceUID.
GROUP_NAMES = re.compile(
    r"(patient|subject|participant|person|individual|animal|user|group|video|sequence|series|case|study|scan|slide|"
    r"volume|site|location)(u?id)?",
    re.IGNORECASE,
)
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def hint_at_groups(config: Config, table: Table) -> list[str]:
    """Return a line for each column that looks like a group, where the config names none that folds keep together."""
    if config.data.group is not None or config.data.group_file is not None or not config.train_csv.is_file():
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
