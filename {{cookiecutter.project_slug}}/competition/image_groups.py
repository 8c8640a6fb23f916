"""Which images must stay in one fold: those of a patient, a video, or that are near-duplicates. No torch."""

import numpy as np
import pandas as pd

from competition.csv_file import read_csv, read_image_column
from competition.settings import Config
from competition.task import Table

GROUP_FILE_COLUMNS = ("image_id", "group")


def read_groups(config: Config, table: Table) -> np.ndarray | None:
    """Return (n,) int: images of an equal number stay together; none where nothing says which belong together.

    Images that share a value of `data.group`, or one of `data.group_file`, or are answered as one, or are linked over
    others that do, are of one group. An image without a value is a group by itself.
    """
    columns = [] if table.groups is None else [table.groups]
    if config.data.group is not None:
        columns.append(read_image_column(config.train_csv, config.data.group, table.image_ids, table.lines))
    if config.data.group_file is not None:
        frame = read_csv(config.data.group_file, GROUP_FILE_COLUMNS).drop_duplicates("image_id")
        columns.append(frame.set_index("image_id")["group"].reindex(table.image_ids).fillna("").to_numpy(dtype=object))
    return join_groups(columns) if columns else None


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
