"""Which images must stay in one fold: those of a patient, a video, or that are near-duplicates. No torch."""

import re

import numpy as np
import pandas as pd

from competition.csv_file import read_csv, read_image_column
from competition.data_settings import Data, GroupFile
from competition.errors import CompetitionError
from competition.settings import Config
from competition.task import Table

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
    named = known.reindex([data.image_file.format(image_id=image_id) for image_id in table.image_ids]).fillna("")
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
