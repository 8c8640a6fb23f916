"""The texts of a csv column that would fill the memory, such as run lengths: read from the file when asked for."""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

from competition.csv_file import has_lone_returns, read_csv, read_header


class LongTexts:
    """What stands in a column, row by row; kept is only where rows begin, 8 bytes each."""

    def __init__(self, path: Path, column: str, index: pd.Index) -> None:
        """Look for the rows of a file whose `read_csv` has this index."""
        self._path = path
        self._column = [name.strip() for name in read_header(path)].index(column)
        begins = _line_begins(path)
        lines = index.to_numpy() + 1  # of each row, from 0 at the header
        self._all: list[str] | None = None
        if has_lone_returns(path):  # lines end in a way of their own
            self._all = read_csv(path, [column])[column].tolist()
        self._begins = np.append(begins[np.minimum(lines, len(begins) - 1)], begins[-1])

    def __getitem__(self, row: int) -> str:
        """Read the text of a row."""
        if self._all is not None:
            return self._all[row]
        begin, end = self._begins[row : row + 2].tolist()
        with self._path.open("rb") as file:
            file.seek(begin)
            text = file.read(end - begin).decode("utf-8")
        is_quoted = '"' in text
        fields = next(csv.reader(io.StringIO(text, newline=""))) if is_quoted else _first_line(text).split(",")
        return fields[self._column]


def _first_line(text: str) -> str:
    return text.partition("\n")[0].removesuffix("\r")


def _line_begins(path: Path) -> np.ndarray:
    """Return (lines + 1,) where each line of a file begins, and where the file ends."""
    begins, place = [np.zeros(1, dtype=np.int64)], 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            begins.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + place + 1)
            place += len(block)
    found = np.concatenate(begins)
    return found if found[-1] == place else np.append(found, place)
