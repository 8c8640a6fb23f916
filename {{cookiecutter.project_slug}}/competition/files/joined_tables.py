"""Tables made of several files, read as if they were one csv file: what `data.train_csv` and keys like it may say.

- a pattern, as `train/{label}/{image_id}`: a row a file; columns are its fields, and `path` below the first
  folder with a field. `{label=cat|dog}` takes files of these labels alone.
- a table and a pattern, as `train.csv & train_images/{StudyInstanceUID}/*.dcm`: a row a file, with the columns of the
  row that has its fields; so every slice of a study is an image.
- a table and another, as `train.csv & patients.csv`: the columns of both, joined by those that both have, or by
  `train.csv & scans.csv on image_id=scan,site`. Every row of the first must have one in the other; where it has
  several, as a study has series, each of them is a row.
- some rows of a table, as `sample_submission.csv where id={study}_study`: those whose column follows the pattern, with
  a column more for each field in it; by `!=` those that do not follow it, as `train.json where iscrowd!=1`.

`files/csv_file.py` asks here first, so that whatever reads train.csv reads these, too.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from competition.config.section import IN_BRACES
from competition.files.file_patterns import expression, expression_of_text, field_names, files_below
from competition.files.other_tables import READERS, numbered, read_file
from competition.support.errors import CompetitionError
from competition.support.freshness import state_of

PATH = "path"  # the column of a file's path in a table of file names
AND = " & "  # between tables, and before the pattern of the files that their rows have
LONGEST_NAMES = 1000  # characters of column names in a message
ONE_OF = "="  # between a field of file names and the texts it may have
ON = re.compile(r"(?<=\w) on (?P<columns>[^/{}]+)$")
WHERE = re.compile(r" where (?P<column>[^=]*[^=!])(?P<sign>!?=)(?P<text>.*)$")
SUFFIXES = (".csv", ".txt", *READERS)  # of what may stand before AND: a folder may be called `R & D`

TableState = tuple[tuple[int, int], ...]  # of each of its files


class Part(NamedTuple):
    """One of the tables that a table is made of, or the pattern of the files that its rows have."""

    file: Path
    where: re.Match[str] | None = None  # which of its rows
    on: tuple[tuple[str, str], ...] = ()  # columns of what stands before it and its own, which must be equal

    @property
    def is_pattern(self) -> bool:
        """Return whether rows are files."""
        return IN_BRACES.search(str(self.file)) is not None


def parts_of(path: Path) -> list[Part]:
    """Return what a table is made of: of a plain csv file itself alone."""
    first, *others = str(path).split(AND)
    while others and IN_BRACES.search(first) is None and Path(WHERE.sub("", first)).suffix.lower() not in SUFFIXES:
        first = f"{first}{AND}{others.pop(0)}"
    folder = Path(WHERE.sub("", first)).parent
    found = [_part(Path(first)), *(_part(folder / text, is_joined=True) for text in others)]
    if any(part.is_pattern for part in found[:-1]):
        raise CompetitionError(f"{path}: expected a pattern of files behind the tables that are joined to it")
    return found


def _part(path: Path, *, is_joined: bool = False) -> Part:
    where = WHERE.search(str(path))
    text = WHERE.sub("", str(path))
    on = ON.search(text) if is_joined and IN_BRACES.search(text) is None else None
    pairs = [pair.partition("=") for pair in on["columns"].split(",")] if on else []
    named = tuple((mine.strip(), (theirs or mine).strip()) for mine, _, theirs in pairs)
    return Part(Path(text if on is None else text[: on.start()]), where, named)


def is_other_table(path: Path) -> bool:
    """Return whether a path is that of a table read here: by its ending, of some rows, several files or a pattern."""
    first, *others = parts_of(path)
    is_some = bool(others) or first.where is not None
    return is_some or first.is_pattern or first.file.suffix.lower() in READERS


def table_files(path: Path) -> list[Path]:
    """Return the files that a table's rows are read from: of a plain csv file itself, of a pattern none."""
    return [part.file for part in parts_of(path) if not part.is_pattern]


def state_of_table(path: Path) -> TableState:
    """Return what changes whenever one of a table's files does, for what a process remembers of it."""
    return tuple(map(state_of, table_files(path) or [path]))


def has_table(path: Path) -> bool:
    """Return whether there is a table at a path: its files, or for a pattern a folder that may have some."""
    return absent_part(path) is None


def absent_part(path: Path) -> Path | None:
    """Return the first of a table's files, or the folder of its pattern, that is not there."""
    for part in parts_of(path):
        if not (pattern_folder(part.file).is_dir() if part.is_pattern else part.file.is_file()):
            return part.file
    return None


def pattern_folder(path: Path) -> Path:
    """Return the folder below which the files of a pattern are."""
    parts = path.parts
    return Path(*parts[: next(number for number, part in enumerate(parts) if IN_BRACES.search(part))])


def whole_table(path: Path) -> Path | None:
    """Return the table with the rows, too, that a ` where ` leaves out of it; none where nothing does, or where it adds
    columns, which the other rows have not."""
    where = parts_of(path)[0].where
    return None if where is None or field_names(where["text"]) else Path(str(path).replace(where[0], "", 1))


def table_name(path: Path) -> str:
    """Return what a table is called, for a file of its own beside it."""
    names = []
    for number, part in enumerate(parts_of(path)):
        of_files = "files" if number else pattern_folder(part.file).name if part.is_pattern else ""
        rows = "" if part.where is None else re.sub(r"\W+", "_", part.where[0].replace("!=", " not "))
        names.append((of_files if part.is_pattern else part.file.name.partition(".")[0]) + rows)
    return "_".join(names)


def read_other_table(path: Path) -> pd.DataFrame:
    """Return a table as text, empty where there is nothing; the index tells each row as that of `read_csv` does."""
    first, *others = parts_of(path)
    rows = _rows_of(first, path)
    for part in others:
        rows = _joined(rows.rename(columns=str.strip), _rows_of(part, path).rename(columns=str.strip), part, path)
    return rows


def _rows_of(part: Part, path: Path) -> pd.DataFrame:
    if part.is_pattern:
        return numbered(_of_file_names(part.file), 1)
    rows = read_file(part.file)
    return rows if part.where is None else _selected(rows.rename(columns=str.strip), part.where, path)


def _selected(table: pd.DataFrame, where: re.Match[str], path: Path) -> pd.DataFrame:
    """Return the rows that ` where COLUMN=PATTERN` means, with the fields of the pattern as columns."""
    column, pattern = where["column"].strip(), where["text"].strip()
    if column not in table:
        raise CompetitionError(f"{path}: column {column!r} is missing; found {','.join(map(str, table))}")
    fields = field_names(pattern)
    odd = [name for name in IN_BRACES.findall(pattern) if not name.isidentifier() or name in table]
    if odd or (fields and where["sign"] == "!="):
        name = odd[0] if odd else fields[0]
        raise CompetitionError(
            f"{path}: found the field {{{name}}}; expected, behind `=` alone, a name of letters that is no column yet"
        )
    whole = re.compile(expression(pattern))
    found = [whole.fullmatch(text) for text in table[column]]
    is_asked = pd.Series([(one is not None) == (where["sign"] == "=") for one in found], index=table.index)
    if not is_asked.any():
        raise CompetitionError(
            f"{path}: no row of {len(table)} is so, as {column} of the first is {_first(table[column])}"
        )
    more = {name: [one[name] for one in found if one] for name in fields}
    return table[is_asked].assign(**more)


def _first(texts: pd.Series) -> str:
    return repr(texts.iloc[0][:60]) if len(texts) else "not there"


def _joined(rows: pd.DataFrame, more: pd.DataFrame, part: Part, path: Path) -> pd.DataFrame:
    """Return the columns of both, of rows whose keys are equal; of what only `more` has nothing.

    Of files, and where `more` has several rows to a key, each is a row; else each of `rows` stays one, on its line.
    """
    pairs = _keys(rows, more, part, path)
    rows = rows.drop(columns=PATH, errors="ignore") if part.is_pattern else rows
    own = {theirs: mine for mine, theirs in pairs}
    others = [name for name in more if name not in own and name not in rows]
    more, keys = more[[*own, *others]].rename(columns=own), list(own.values())
    is_one_each = not part.is_pattern and not more.duplicated(keys).any()
    if not is_one_each and (twice := rows.duplicated(keys)).any():
        here = "" if part.is_pattern else f" here, or in {part.file.name}, which has some twice"
        raise CompetitionError(f"{path}: rows {_example(rows, keys, twice)} stand twice; expected one each{here}")
    is_there = pd.MultiIndex.from_frame(rows[keys]).isin(pd.MultiIndex.from_frame(more[keys]))
    if not is_there.all():
        lacks = "file" if part.is_pattern else f"row in {part.file.name}"
        raise CompetitionError(
            f"{path}: {(~is_there).sum()} of {len(rows)} rows have no {lacks}, as {_example(rows, keys, ~is_there)}"
        )
    if is_one_each:
        return rows.merge(more, on=keys, how="left").set_axis(rows.index)
    return numbered(more.merge(rows, on=keys, how="inner"), 1)


def _keys(rows: pd.DataFrame, more: pd.DataFrame, part: Part, path: Path) -> tuple[tuple[str, str], ...]:
    """Return the columns by which two tables are joined, as each calls them."""
    for name, table in [each for mine, theirs in part.on for each in ((mine, rows), (theirs, more))]:
        if name not in table:
            where = part.file.name if table is more else "what stands before it"
            raise CompetitionError(f"{path}: column {name!r} is missing in {where}; found {_listed(table)}")
    shared = [name for name in map(str, more) if name in rows and not (part.is_pattern and name == PATH)]
    if shared or part.on:
        return part.on or tuple((name, name) for name in shared)
    if part.is_pattern:
        found = ",".join(name for name in map(str, more) if name != PATH) or "none"
        raise CompetitionError(
            f"{path}: expected a column of the table as a field, as {{{next(iter(rows), 'id')}}}; found {found}"
        )
    raise CompetitionError(
        f"{path}: {part.file.name} shares no column with what stands before it; name two, as "
        f"'{AND.lstrip()}{part.file.name} on {next(iter(rows), 'id')}={next(iter(more), 'id')}'; found {_listed(more)}"
    )


def _listed(table: pd.DataFrame) -> str:
    return ",".join(map(str, table))[:LONGEST_NAMES]


def _example(table: pd.DataFrame, columns: list[str], are_meant: Any) -> str:
    return "/".join(table.loc[are_meant, columns].iloc[0])


def _of_file_names(path: Path) -> pd.DataFrame:
    """Return a row a file whose path follows the pattern, in the order of paths."""
    folder = pattern_folder(path)
    pattern = path.relative_to(folder).as_posix()
    fields = list(dict.fromkeys(text.partition(ONE_OF)[0] for text in IN_BRACES.findall(pattern)))
    if odd := next((name for name in fields if not _is_field(name)), None):
        raise CompetitionError(f"{path}: found a field {odd!r}; expected a name of letters other than {PATH!r}")
    expression = re.compile(_expression(pattern))
    found = ((name, expression.fullmatch(name)) for name in sorted(files_below(folder)))
    return pd.DataFrame([[*one.groups(), name] for name, one in found if one], columns=[*fields, PATH], dtype=str)


def _is_field(name: str) -> bool:
    return name.isidentifier() and name != PATH


def _expression(pattern: str) -> str:
    seen: set[str] = set()
    pieces = []
    for number, piece in enumerate(IN_BRACES.split(pattern)):
        if number % 2 == 0:
            pieces.append(expression_of_text(piece))
            continue
        name, _, texts = piece.partition(ONE_OF)
        if name in seen:
            pieces.append(f"(?P={name})")
        else:
            known = "|".join(re.escape(text) for text in texts.split("|"))
            pieces.append(f"(?P<{name}>{known or '[^/]+'})")
            seen.add(name)
    return "".join(pieces)
