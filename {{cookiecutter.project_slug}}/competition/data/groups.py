"""Which images must stay in one fold: of a patient, a video, or near-duplicates; and what looks like it. No torch."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from competition.config.data_settings import Data, GroupFile
from competition.config.section import IN_BRACES
from competition.config.settings import Config
from competition.files.csv_file import read_csv, read_header, read_image_column
from competition.files.file_patterns import field_names, filled
from competition.files.joined_tables import has_table
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table

# What such columns are called, alone or among other words: patient_id, StudyInstanceUID.
NAMES = (
    "patient|subject|participant|person|individual|animal|user|group|video|sequence|series|case|study|scan|slide|"
    "volume|site|location"
)
GROUP_NAMES = re.compile(rf"({NAMES})(u?id)?", re.IGNORECASE)
# With one of these words a column tells something of them that many share: Patient Age, scan_type.
OF_A_GROUP = re.compile("age|sex|gender|race|height|width|weight|date|year|type|class|label|count|size", re.IGNORECASE)
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
    return _hint_at_columns(config, table) or ([] if table.groups is not None else _hint_at_ids(config, table))


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
    if not has_table(config.train_csv):
        return []
    try:
        header = read_header(config.train_csv)
    except (CompetitionError, ValueError):  # no csv file, where images are listed elsewhere
        return []
    texts = list(_texts(config.format.model_dump()))
    in_use = {*texts, *table.classes, *(name for text in texts for name in IN_BRACES.findall(text))}
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
    words = WORDS.findall(column)
    return any(map(GROUP_NAMES.fullmatch, words)) and not any(map(OF_A_GROUP.fullmatch, words))


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


GROUP_FILE_COLUMNS = ("image_id", "group")


def read_groups(config: Config, table: Table) -> np.ndarray | None:
    """Return (n,) int: images of an equal number stay together; none where nothing says which belong together.

    Images that share a value of `data.group`, of `data.group_file` or of `data.group_pattern`, or are answered as one,
    or are linked over others that do, are of one group. An image without a value is a group by itself.
    """
    columns = [] if table.groups is None else [table.groups]
    if config.data.group is not None:
        columns.append(read_image_column(config.train_csv, config.data.group, table.image_ids, table.lines))
    if config.data.group_file is not None:
        columns.append(_groups_of_file(config.data, config.data.group_file, table))
    if config.data.group_pattern is not None:
        columns.append(groups_of_ids(config.data.group_pattern, table.image_ids))
        if not columns[-1].all():
            image_id = table.image_ids[np.flatnonzero(columns[-1] == "")[0]]
            raise CompetitionError(
                f"data.group_pattern: {config.data.group_pattern!r} finds no group in the image id {image_id!r}; "
                "expected one in each; ids that are a group by themselves: add |.+"
            )
    return join_groups(columns) if columns else None


def groups_of_ids(pattern: str, image_ids: np.ndarray) -> np.ndarray:
    """Return (n,) str: what a regular expression finds in each id, in its first brackets if it has some; else ""."""
    search = re.compile(pattern).search
    found = (search(image_id) for image_id in image_ids)
    texts = [next((text for text in (*one.groups(), one[0]) if text), "") if one else "" for one in found]
    return np.array(texts, dtype=object)


def _groups_of_file(data: Data, asked: GroupFile, table: Table) -> np.ndarray:
    """Return (n,) str: the group that a csv file names for each image; "" where it names none."""
    is_named_alone = asked.file.name == str(asked.file)  # that it lies in data.dir is then likelier
    path = data.dir / asked.file if is_named_alone and not asked.file.is_file() else asked.file
    if not path.is_file():
        raise CompetitionError(
            f"{path}: no such file; expected the csv of data.group_file, columns {asked.image_id},{asked.group}, which "
            "says what images are of one patient, video or slide; without it (data.group_file=null) those lie in "
            "different folds and flatter the score"
        )
    frame = read_csv(path, (asked.image_id, asked.group)).drop_duplicates(asked.image_id)
    known = frame.set_index(asked.image_id)[asked.group]
    groups = known.reindex(table.image_ids).fillna("").to_numpy(dtype=object)
    if field_names(data.image_file) == ["image_id"]:
        files = [filled(data.image_file, {"image_id": image_id}) for image_id in table.image_ids]
        named = known.reindex(files).fillna("")
    else:
        named = known.reindex(table.image_ids).fillna("")
    groups = np.where(groups == "", named.to_numpy(dtype=object), groups)
    if not groups.any():
        raise CompetitionError(
            f"{path}: names no group for any image of {data.train_csv}, as {table.image_ids[0]!r}; column "
            f"{asked.image_id} has {frame[asked.image_id].iloc[0]!r}"
        )
    return groups


def join_groups(columns: list[np.ndarray]) -> np.ndarray:
    """Return (n,) int: one number for images that are linked by equal texts in any of the columns (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number, images, values = len(columns[0]), [], []
    for column in columns:
        has_value = np.flatnonzero(column != "")
        codes, _ = pd.factorize(column[has_value])
        images.append(has_value)
        values.append(codes + number + sum(len(other) for other in values))
    pairs = np.concatenate(images), np.concatenate(values)
    nodes = number + len(pairs[0])
    links = coo_array((np.ones(len(pairs[0]), dtype=bool), pairs), shape=(nodes, nodes))
    return connected_components(links, directed=False)[1][:number]
