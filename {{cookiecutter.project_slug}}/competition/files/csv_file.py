"""Reading a csv file into columns of text, with messages that name file and line; long texts stay in the file."""

import csv
import io
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pandas as pd

from competition.files.joined_tables import absent_part, has_table, is_other_table, read_other_table
from competition.files.other_tables import READERS
from competition.support.errors import CompetitionError

UNNAMED = re.compile(r"|Unnamed: \d+")  # columns without a name, as pandas calls them
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
LONGEST_NAMES = 1000  # characters of column names in a message
BEGINNING = 100  # characters that are kept of a long text
ROWS_AT_ONCE = 5000  # read before what nobody asked for is let go
csv.field_size_limit(2**31 - 1)  # the module's own limit is 131,072 characters
OTHER_SEPARATORS = {"semicolons": ";", "tabs": "\t"}
MOST_LINES = 20  # faults of one kind that are listed before "and N more"
MOST_COLUMNS = 10_000  # more take minutes and gigabytes to read
LONGEST_HEADER, LONGEST_LINE = 1 << 22, 1 << 28  # bytes
BLANKS = b" \t\r\n"  # a line of these alone is no row


def _other_form(column: str, header: Sequence[str]) -> str:
    """Say where a column is there with accents written as characters of their own, which looks the same."""
    is_there = normalize("NFC", column) in (normalize("NFC", name) for name in header)
    return f"; it has {column!r} with accents as characters of their own (Unicode NFC and NFD)" if is_there else ""


def read_csv(path: Path, columns: Sequence[str], *, long: str | None = None) -> pd.DataFrame:
    """Read `columns` of a csv file as text; empty fields become empty strings.

    A column's name is matched without the blanks around it. Of the column `long` only the beginnings are kept:
    `LongTexts` has the rest. The index tells the lines: see `line`. Raises CompetitionError if the file is missing, no
    csv, lacks a column, has no row, or rows of more or fewer fields than the header.
    """
    if not has_table(path):
        raise CompetitionError(_absent(path, columns))
    try:
        header = [name.strip() for name in read_header(path)]
        missing = [column for column in columns if column not in header]
        if missing:
            found = " ".join(",".join(header).split())[:LONGEST_NAMES]
            raise CompetitionError(
                f"{path}: column {missing[0]!r} is missing; found {found}, expected {','.join(columns)}"
                f"{_other_form(missing[0], header)}"
            )
        if is_other_table(path):
            return _columns_of_other(path, header, columns)
        lines = _row_lines(path, header)
        places = [header.index(column) for column in columns]
        frame = _read_texts(path, places, None if long is None else header.index(long))
    except (csv.Error, ValueError) as error:  # pandas' own errors are ValueErrors
        if "read(nbytes) on source failed" in str(error):
            raise KeyboardInterrupt from None  # what pandas 2.2 on Python 3.11 makes of it
        if isinstance(error, UnicodeDecodeError):
            raise not_utf8(path, error) from None
        raise CompetitionError(f"{path}: not a csv file: {' '.join(str(error).split())}") from None
    if frame.empty:
        raise CompetitionError(f"{path}: has a header but no row")
    frame.columns = list(columns)
    if len(lines) != len(frame):
        raise CompetitionError(f"{path}: not a csv file: quotes stand where they may mean one thing or another")
    frame.index = lines
    return frame


def _columns_of_other(path: Path, header: list[str], columns: Sequence[str]) -> pd.DataFrame:
    frame = read_other_table(path)
    if frame.empty:
        raise CompetitionError(f"{path}: names no file" if "{" in path.name else f"{path}: has no row")
    found = frame.iloc[:, [header.index(column) for column in columns]].copy()
    found.columns = list(columns)
    return found


def _absent(path: Path, columns: Sequence[str]) -> str:
    """Return what is to be said of a table that is not there, or of that one of its files."""
    file = absent_part(path)
    if file is None or file == path:
        return f"{path}: no such file; expected columns {','.join(columns)}{_tables_beside(path)}"
    return f"{path}: {file}: no such file{_tables_beside(file)}"


def _tables_beside(path: Path) -> str:
    """Return a word on the tables that are in the folder of one that is not."""
    try:
        there = sorted(one.name for one in path.parent.iterdir() if one.suffix in (".csv", *READERS) and one.is_file())
    except OSError:
        return ""
    return f"; there are {', '.join(there[:8])}" if there else ""


def _read_texts(path: Path, places: Sequence[int], long: int | None) -> pd.DataFrame:
    """Return the columns at these places, read some rows at a time: the others may be far larger."""
    if has_lone_returns(path):
        return _read_texts_slowly(path, places, long)
    parts = []
    as_text: dict[str, Any] = {"dtype": str, "keep_default_na": False, "na_filter": False, "index_col": False}
    with pd.read_csv(path, chunksize=ROWS_AT_ONCE, **as_text) as reader:
        for part in reader:
            columns = {place: part.iloc[:, place] for place in places}
            if long is not None:
                columns[long] = columns[long].str.slice(0, BEGINNING)
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _read_texts_slowly(path: Path, places: Sequence[int], long: int | None) -> pd.DataFrame:
    """Do the same with Python's reader: pandas takes a comma behind a lone return for the one before it."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [[row[place] for place in places] for row in csv.reader(file) if _is_row(row)]
    frame = pd.DataFrame(rows[1:], columns=list(places), dtype=str)
    if long is not None:
        frame[long] = frame[long].str.slice(0, BEGINNING)
    return frame


def has_lone_returns(path: Path) -> bool:
    """Return whether lines, or parts of quoted fields, end as on old Macs."""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            if block.endswith(b"\r"):
                block += file.read(1)
            if block.count(b"\r") != block.count(b"\r\n"):
                return True
    return False


def _is_row(fields: Sequence[str]) -> bool:
    return len(fields) > 1 or fields == [""] or any(field.strip(" \t") for field in fields)


def _row_lines(path: Path, header: Sequence[str]) -> pd.Index:
    """Return for each row its line less the two of header and counting from 0.

    Raises CompetitionError that names the rows of more or fewer fields than the header: pandas fills up what is missing
    without a word.
    """
    faults, uneven = list[str](), 0
    starts = array("q")
    for first_line, number in _rows(path):
        uneven_here = np.flatnonzero(number != len(header))
        uneven += len(uneven_here)
        faults += [
            f"{path}: line {first_line[row] + 1}: has {number[row]} fields; expected {len(header)}, as the header has: "
            f"a field that holds a comma needs quotes, an empty one its comma"
            for row in uneven_here[: MOST_LINES - len(faults)].tolist()
        ]
        starts.frombytes(first_line.astype(np.int64).tobytes())
    if uneven > len(faults):
        faults.append(f"{path}: and {uneven - len(faults)} more lines like the last")
    if faults:
        raise CompetitionError("\n".join(faults))
    found = np.frombuffer(starts, dtype=np.int64)[1:] - 2 + 1
    return pd.RangeIndex(len(found)) if (found == np.arange(len(found))).all() else pd.Index(found)


def _rows(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, some rows at a time, the line on which each begins, from 0, and how many fields it has."""
    line_number = 0
    with path.open("rb") as file:
        while block := _whole_lines(path, file.read(1 << 20), file.readline):
            if b'"' in block or block.count(b"\r") != block.count(b"\r\n"):  # lines are not rows
                break
            first, number, num_lines = _plain_rows(block)
            yield first + line_number, number
            line_number += num_lines
        else:
            return
        begin = file.tell() - len(block)
    yield from _quoted_rows(path, begin, line_number)


def _whole_lines(path: Path, block: bytes, readline: Any) -> bytes:
    """Return a block with the rest of its last line; raise CompetitionError where it is no text of lines."""
    rest = readline(LONGEST_LINE) if block and not block.endswith(b"\n") else b""
    refuse_no_text(path, block + rest)
    if len(rest) == LONGEST_LINE and not rest.endswith(b"\n"):
        raise CompetitionError(f"{path}: not a csv file: a line of more than {LONGEST_LINE} bytes")
    return block + rest


def refuse_no_text(path: Path, block: bytes) -> None:
    """Raise CompetitionError for bytes that no csv file has."""
    if b"\0" in block:
        raise CompetitionError(f"{path}: not a csv file: it has zero bytes, as UTF-16 has; expected text in UTF-8")


def _plain_rows(block: bytes) -> tuple[np.ndarray, np.ndarray, int]:
    """Return of lines without quotes those that are rows, from 0, how many fields these have, and how many lines."""
    text = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    if not len(ends) or ends[-1] != len(text) - 1:
        ends = np.append(ends, len(text))
    begins = np.append(0, ends[:-1] + 1)
    number = np.diff(np.searchsorted(np.flatnonzero(text == ord(",")), ends), prepend=0) + 1
    is_row = np.ones(len(ends), dtype=bool)
    starts_blank = np.isin(text[np.minimum(begins, len(text) - 1)], np.frombuffer(BLANKS, dtype=np.uint8))
    for at in np.flatnonzero(starts_blank).tolist():
        is_row[at] = bool(block[begins[at] : ends[at]].strip(BLANKS))
    return np.flatnonzero(is_row), number[is_row], len(ends)


def _quoted_rows(path: Path, begin: int, line_number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what `_rows` does from a byte of the file on, with line breaks and commas within quotes."""
    with path.open("rb") as binary:
        while block := binary.read(1 << 20):
            refuse_no_text(path, block)
        binary.seek(begin)
        reader, end = csv.reader(io.TextIOWrapper(binary, "utf-8-sig", newline="")), 0
        firsts, numbers = array("q"), array("q")
        for row in reader:
            if _is_row(row):
                firsts.append(end + line_number)
                numbers.append(len(row))
            end = reader.line_num
    yield np.array(firsts, dtype=np.int64), np.array(numbers, dtype=np.int64)


def read_header(path: Path) -> list[str]:
    """Return the column names of a csv file; raise CompetitionError where they are not separated by commas."""
    if is_other_table(path):
        return [str(column) for column in read_other_table(path).columns]
    first = refuse_no_header(path)
    if (plain := _plain_header(first)) is not None:
        refuse_other_separator(path, plain)
        return plain
    try:
        header = [str(column) for column in pd.read_csv(path, nrows=0).columns]
    except UnicodeDecodeError as error:  # pandas 2 decodes more than the first line
        raise not_utf8(path, error) from None
    except ValueError as error:  # pandas' own errors are ValueErrors
        raise CompetitionError(f"{path}: not a csv file: {' '.join(str(error).split())}") from None
    refuse_other_separator(path, header)
    return header


def _plain_header(first: bytes) -> list[str] | None:
    """Return the column names of a first line that can be read in one way only, in a tenth of the time that pandas
    takes; None of others: with quotes, blank, or where a name is empty or stands twice."""
    text = first.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8-sig", errors="replace")
    names = text.split(",")
    is_plain = text.strip() and not {'"', "\r"} & set(text) and all(names) and len(set(names)) == len(names)
    return names if is_plain and len(first) < LONGEST_HEADER else None


def not_utf8(path: Path, error: UnicodeDecodeError) -> CompetitionError:
    """Return what is to be said of a csv file in another encoding."""
    return CompetitionError(f"{path}: not a csv file in UTF-8 ({error}); save it anew as CSV UTF-8")


def refuse_no_header(path: Path) -> bytes:
    """Return the first line; raise CompetitionError for what would take long to read a header from, as no csv file
    does."""
    if path.exists() and not path.is_file():
        raise CompetitionError(f"{path}: not a csv file: it is a folder, a pipe or a device")
    with path.open("rb") as file:
        first = file.readline(LONGEST_HEADER)
    refuse_no_text(path, first)
    if not first:
        raise CompetitionError(f"{path}: not a csv file: it is empty; expected one whose first line names its columns")
    try:
        first.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(first) < LONGEST_HEADER:
            raise not_utf8(path, error) from None
    if len(first) == LONGEST_HEADER and b"\r" not in first:
        raise CompetitionError(f"{path}: not a csv file: its first line has more than {LONGEST_HEADER} bytes")
    if (number := first.count(b",") + 1) > MOST_COLUMNS:
        raise CompetitionError(f"{path}: has {number} columns; expected at most {MOST_COLUMNS}")
    return first


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


def second_rows(path: Path, ids: "pd.Series", way_on: str = "") -> list[str]:
    """Describe the rows of images that have one already."""
    faulty = np.flatnonzero(ids.duplicated())
    return row_faults(path, faulty, ids, f"a second row of this image; expected one{way_on}")


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
    has_ids = has_table(path) and "image_id" in [name.strip() for name in read_header(path)]
    frame = read_csv(path, ("image_id", column) if has_ids else (column,))
    if has_ids and ((several := frame.groupby("image_id", sort=False)[column].nunique()) > 1).any():
        raise CompetitionError(f"{path}: image {several.idxmax()!r} has several values of {column}; expected one")
    values = pd.Series(frame[column].to_numpy(), index=line(frame.index.to_numpy()))
    return values.reindex(lines).fillna("").to_numpy(dtype=object)


class LongTexts:
    """What stands in a column, row by row; kept is only where rows begin, 8 bytes each."""

    def __init__(self, path: Path, column: str, index: pd.Index) -> None:
        """Look for the rows of a file whose `read_csv` has this index."""
        self._path = path
        self._all: list[str] | None = None
        if is_other_table(path):
            self._all = read_csv(path, [column])[column].tolist()
            return
        self._column = [name.strip() for name in read_header(path)].index(column)
        begins = _line_begins(path)
        lines = index.to_numpy() + 1  # of each row, from 0 at the header
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
