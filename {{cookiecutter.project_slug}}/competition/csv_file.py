"""Reading a csv file into columns of text, with messages that name file and line."""

import csv
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.errors import CompetitionError

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
BEGINNING = 100  # characters that are kept of a long text
ROWS_AT_ONCE = 5000  # read before what nobody asked for is let go
csv.field_size_limit(2**31 - 1)  # the module's own limit is 131,072 characters
OTHER_SEPARATORS = {"semicolons": ";", "tabs": "\t"}
MOST_LINES = 20  # faults of one kind that are listed before "and N more"


def read_csv(path: Path, columns: Sequence[str], *, long: str | None = None) -> pd.DataFrame:
    """Read `columns` of a csv file as text; empty fields become empty strings.

    A column's name is matched without the blanks around it. Of the column `long` only the beginnings are kept:
    `LongTexts` has the rest. The index tells the lines: see `line`. Raises CompetitionError if the file is missing, no
    csv, lacks a column or has no row.
    """
    if not path.is_file():
        raise CompetitionError(f"{path}: no such file; expected columns {','.join(columns)}")
    try:
        header = [name.strip() for name in read_header(path)]
        missing = [column for column in columns if column not in header]
        if missing:
            raise CompetitionError(
                f"{path}: column {missing[0]!r} is missing; found {','.join(header)}, expected {','.join(columns)}"
            )
        with warnings.catch_warnings():
            # A row with more fields than the header would lose them, or shift the columns, without a word.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            places = [header.index(column) for column in columns]
            frame = _read_texts(path, places, None if long is None else header.index(long))
    except (pd.errors.ParserWarning, ValueError) as error:  # pandas' own errors are ValueErrors
        if "read(nbytes) on source failed" in str(error):
            raise KeyboardInterrupt from None  # what pandas 2.2 on Python 3.11 makes of it
        raise CompetitionError(f"{path}: not a csv file: {' '.join(str(error).split())}") from None
    if frame.empty:
        raise CompetitionError(f"{path}: has a header but no row")
    frame.columns = list(columns)
    frame.index = _line_index(path, len(frame))
    return frame


def _read_texts(path: Path, places: Sequence[int], long: int | None) -> pd.DataFrame:
    """Return the columns at these places, read some rows at a time: the others may be far larger.

    With `usecols` pandas would not look at how many fields a row has.
    """
    parts = []
    as_text: dict[str, Any] = {"dtype": str, "keep_default_na": False, "na_filter": False, "index_col": False}
    with pd.read_csv(path, chunksize=ROWS_AT_ONCE, **as_text) as reader:
        for part in reader:
            columns = {place: part.iloc[:, place] for place in places}
            if long is not None:
                columns[long] = columns[long].str.slice(0, BEGINNING)
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _line_index(path: Path, num_rows: int) -> pd.Index:
    """Return for each row its line less the two of header and counting from 0."""
    with path.open("rb") as file:
        num_lines = 0
        while block := file.read(1 << 20):
            num_lines += block.count(b"\n")
    if num_lines <= num_rows + 1:
        return pd.RangeIndex(num_rows)
    # Blank lines, or line breaks within a field: only then is it worth walking through the file once more.
    starts, end = [], 0
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        for row in reader:
            if any(field.strip() for field in row) or len(row) > 1:
                starts.append(end)
            end = reader.line_num
    return pd.Index(starts[1:]) - 1 if len(starts) == num_rows + 1 else pd.RangeIndex(num_rows)


def read_header(path: Path) -> list[str]:
    """Return the column names of a csv file; raise CompetitionError where they are not separated by commas."""
    header = [str(column) for column in pd.read_csv(path, nrows=0).columns]
    refuse_other_separator(path, header)
    return header


def refuse_other_separator(path: Path, header: Sequence[str]) -> None:
    """Raise CompetitionError if what was read as column names by commas is separated by semicolons or tabs."""
    text = ",".join(header)
    for name, separator in OTHER_SEPARATORS.items():
        if text.count(separator) >= len(header):
            raise CompetitionError(
                f"{path}: columns are separated by {name}, found {text[:BEGINNING]!r}; expected commas; to write it "
                f'anew: python -c "import pandas; pandas.read_csv({str(path)!r}, sep={separator!r}, dtype=str, '
                f'keep_default_na=False).to_csv({str(path)!r}, index=False)"'
            )


def line(row: Any) -> Any:
    """Return the line in the csv file of an index of `read_csv` (one or an array): line 1 is the header."""
    return row + 2


def row_faults(
    path: Path, rows: Iterable[int], column: "pd.Series", expected: str, *, show_found: bool = True
) -> list[str]:
    """Describe faulty rows by number, at most MOST_LINES of them: `column` of `read_csv` holds every row's text."""
    rows = np.asarray(list(rows))
    lines = []
    for row in rows[:MOST_LINES]:
        found = f"found {str(column.iloc[row])[:60]!r}; " if show_found else ""
        lines.append(f"{path}: line {line(int(column.index[row]))}: {found}{expected}")
    if len(rows) > MOST_LINES:
        lines.append(f"{path}: and {len(rows) - MOST_LINES} more lines like the last")
    return lines


def resolve_classes(found: "pd.Series", listed: list[str] | None, path: Path) -> tuple[tuple[str, ...], list[str]]:
    """Return the classes in order and the faults of labels that are not listed.

    Without a list in the config, classes are the distinct labels: numbers sorted as numbers, else as text.
    """
    distinct = [str(label) for label in found[found != ""].unique()]
    if listed is not None:
        unknown = (found != "") & ~found.isin(listed)
        expected = f"expected one of data.classes: {', '.join(listed[:12])}"
        return tuple(listed), row_faults(path, np.flatnonzero(unknown), found, expected)
    if all(NUMBER.fullmatch(label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (float(label), label))), []
    return tuple(sorted(distinct)), []


def group_by_image(image_id: "pd.Series") -> tuple[np.ndarray, np.ndarray]:
    """Return (codes, first_rows): the image number of each row in order of first appearance, and each image's
    first row."""
    codes, uniques = pd.factorize(image_id)
    first = np.full(len(uniques), len(codes), dtype=np.int64)
    np.minimum.at(first, codes, np.arange(len(codes)))
    return codes, first


def read_image_column(path: Path, column: str, image_ids: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Return (n,) text: the value each image has in a column of train.csv, which must be one value an image.

    An image is found by the line on which it first appears, as ids may be joined from several columns; one without a
    row (line 0) has the empty text.
    """
    has_ids = path.is_file() and "image_id" in [name.strip() for name in read_header(path)]
    frame = read_csv(path, ("image_id", column) if has_ids else (column,))
    if has_ids and ((several := frame.groupby("image_id", sort=False)[column].nunique()) > 1).any():
        raise CompetitionError(f"{path}: image {several.idxmax()!r} has several values of {column}; expected one")
    values = pd.Series(frame[column].to_numpy(), index=line(frame.index.to_numpy()))
    return values.reindex(lines).fillna("").to_numpy(dtype=object)
