"""What an image counts in the loss: `data.weight`, `data.weights_csv`. No torch."""

from pathlib import Path

import numpy as np
import pandas as pd

from competition.config.settings import Config
from competition.files.csv_file import read_csv, read_image_column, row_faults
from competition.files.csv_numbers import numbers_in
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table

WEIGHT_COLUMNS = ("image_id", "weight")


def column_weights(path: Path, column: str, table: Table) -> np.ndarray:
    """Return (n,) float, what each image of a table counts by a column of its csv file; 1 for one without a row."""
    texts = pd.Series(read_image_column(path, column, table.image_ids, table.lines), index=table.lines - 2)
    has_row = table.lines > 0
    return _numbers(path, texts.where(has_row, "1"), f" in column {column}")


def _numbers(path: Path, texts: "pd.Series", where: str) -> np.ndarray:
    weights = numbers_in(texts)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        expected = f"expected a weight of 0 or more{where}"
        raise CompetitionError("\n".join(row_faults(path, np.flatnonzero(wrong), texts, expected)))
    return weights


def own_weights(config: Config, table: Table) -> np.ndarray:
    """Return (n,) float: what each image of train.csv counts in the loss, by `data.weight` and `data.weights_csv`."""
    weights = np.ones(len(table.image_ids))
    if config.data.weight is not None:
        weights = column_weights(config.train_csv, config.data.weight, table)
    path = config.data.weights_csv
    if path is None:
        return weights
    frame = read_csv(path, WEIGHT_COLUMNS)
    place = pd.Index(table.image_ids).get_indexer(pd.Index(frame["image_id"]))
    twice = frame["image_id"].duplicated()
    faults = row_faults(path, np.flatnonzero(place < 0), frame["image_id"], f"no image of {config.data.train_csv}")
    faults += row_faults(path, np.flatnonzero(twice), frame["image_id"], "a second row of this image; expected one")
    if faults:
        raise CompetitionError("\n".join(faults))
    weights[place] *= _numbers(path, frame["weight"], "")
    return weights
