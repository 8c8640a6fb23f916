"""Tables that are no csv file, read as if they were one: json, packed csv files, and the names of files themselves.

`files/csv_file.py` asks here first, so that whatever reads train.csv reads these, too:

- COCO's json: a row an annotation, or an image without any. Columns are those of images (`id` as `image_id`), of
  annotations, and `category_name`.
- a json list, or a JSON line, of records: a row a record.
- parquet, where pandas has what reads it; a csv file in a zip or gz archive.
- a pattern, as `train/{label}/{image_id}`: a row a file; columns are its fields, and `path` below the first
  folder with a field. `{label=cat|dog}` takes files of these labels alone.
- a table and a pattern, as `train.csv & train_images/{StudyInstanceUID}/*.dcm`: a row a file, with the columns of the
  row that has its fields; so every slice of a study is an image.
- some rows of a table, as `sample_submission.csv where id={study}_study`: those whose column follows the pattern, with
  a column more for each field in it; by `!=` those that do not follow it, as `train.json where iscrowd!=1`.
"""

import csv
import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from competition.config.section import IN_BRACES
from competition.files.file_patterns import expression, expression_of_text, field_names, files_below
from competition.support.errors import CompetitionError

LARGEST = 1 << 30  # bytes of a json file, or of what is in an archive
LONGEST_LIST = 1000  # numbers of a list that are kept as text
PATH = "path"  # the column of a file's path in a table of file names
AND = " & "  # between a table and the pattern of the files that its rows have
ONE_OF = "="  # between a field of file names and the texts it may have
WHERE = re.compile(r" where (?P<column>[^=&]*[^=&!])(?P<sign>!?=)(?P<text>[^&]*?)(?= & |$)")


def is_other_table(path: Path) -> bool:
    """Return whether a path is that of a table read here: by its ending, of some rows, or a pattern of file names."""
    table, pattern = table_and_pattern(path)
    return pattern is not None or table != path or path.suffix.lower() in READERS


def has_table(path: Path) -> bool:
    """Return whether there is a table at a path: a file, or for a pattern a folder that may have some."""
    table, pattern = table_and_pattern(path)
    has_files = pattern is None or pattern_folder(pattern).is_dir()
    return has_files and (table is None or table.is_file())


def table_and_pattern(path: Path) -> tuple[Path | None, Path | None]:
    """Return the file of a table, and the pattern of its rows' files; none for what a path does not name."""
    text = WHERE.sub("", str(path), count=1)
    if IN_BRACES.search(text) is None:
        return Path(text), None
    table, joined, pattern = text.partition(AND)
    return (Path(table), Path(table).parent / pattern) if joined else (None, Path(text))


def pattern_folder(path: Path) -> Path:
    """Return the folder below which the files of a pattern are."""
    parts = path.parts
    return Path(*parts[: next(number for number, part in enumerate(parts) if IN_BRACES.search(part))])


def table_name(path: Path) -> str:
    """Return what a table is called, for a file of its own beside it."""
    table, pattern = table_and_pattern(path)
    where = WHERE.search(str(path))
    rows = "" if where is None else re.sub(r"\W+", "_", where[0].replace("!=", " not "))
    if pattern is not None and table is None:
        return pattern_folder(pattern).name + rows
    assert table is not None
    return table.name.partition(".")[0] + rows + ("" if pattern is None else "_files")


def read_other_table(path: Path) -> pd.DataFrame:
    """Return a table as text, empty where there is nothing; the index tells each row as that of `read_csv` does."""
    table, pattern = table_and_pattern(path)
    where = WHERE.search(str(path))
    found = _indexed(_of_file_names(pattern), 1) if pattern is not None else None
    rows = found if table is None else _of_file(table)
    assert rows is not None
    rows = rows if where is None else _selected(rows.rename(columns=str.strip), where, path)
    return rows if table is None or found is None else _indexed(_joined(rows, found, path), 1)


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


def _of_file(path: Path) -> pd.DataFrame:
    try:
        state = path.stat()
        return _read(path, state.st_mtime_ns, state.st_size)
    except (OSError, ValueError, TypeError, KeyError, ImportError, zipfile.BadZipFile, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CompetitionError(f"{path}: cannot be read as a table ({reason})") from None


def _joined(table: pd.DataFrame, files: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return a row a file, with what the table has in the row of the same fields; files of no row are left out."""
    table = table.rename(columns=str.strip)
    shared = [str(name) for name in files if name in table and name != PATH]
    if not shared:
        raise CompetitionError(
            f"{path}: expected a column of the table as a field, as {{{next(iter(table), 'id')}}}; found "
            f"{','.join(str(name) for name in files if name != PATH) or 'none'}"
        )
    if (twice := table.duplicated(shared)).any():
        raise CompetitionError(f"{path}: rows {_example(table, shared, twice)} stand twice; expected one each")
    has_file = pd.MultiIndex.from_frame(table[shared]).isin(pd.MultiIndex.from_frame(files[shared]))
    if not has_file.all():
        raise CompetitionError(
            f"{path}: {(~has_file).sum()} of {len(table)} rows have no file, as {_example(table, shared, ~has_file)}"
        )
    return files.merge(table.drop(columns=PATH, errors="ignore"), on=shared, how="inner")


def _example(table: pd.DataFrame, columns: list[str], are_meant: Any) -> str:
    return "/".join(table.loc[are_meant, columns].iloc[0])


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, size: int) -> pd.DataFrame:
    if size > LARGEST:
        raise CompetitionError(f"{path}: is larger than {LARGEST >> 20} MB; write its rows as a csv file")
    return READERS.get(path.suffix.lower(), _read_plain)(path)


def _indexed(frame: pd.DataFrame, first: int) -> pd.DataFrame:
    """Number the rows so that `line` names the first one `first`."""
    frame.index = pd.RangeIndex(first - 2, first - 2 + len(frame))
    return frame


def _read_json(path: Path) -> pd.DataFrame:
    values = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(values, dict) and isinstance(values.get("images"), list):
        return _indexed(_text(_of_coco(values)), 1)
    if isinstance(values, dict):
        lists = [value for value in values.values() if isinstance(value, list) and _are_records(value)]
        if len(lists) != 1:
            raise ValueError("expected a list of records, or COCO's images, annotations and categories")
        values = lists[0]
    return _indexed(_of_records(values), 1)


def _read_json_lines(path: Path) -> pd.DataFrame:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return _indexed(_of_records([json.loads(line) for line in lines if line.strip()]), 1)


def _read_parquet(path: Path) -> pd.DataFrame:
    return _indexed(_text(pd.read_parquet(path)), 1)


def _read_plain(path: Path) -> pd.DataFrame:
    return _of_csv(path.read_bytes())


def _read_zip(path: Path) -> pd.DataFrame:
    with zipfile.ZipFile(path) as archive:
        names = [one for one in archive.infolist() if one.filename.lower().endswith(".csv")]
        names = [one for one in names if not one.filename.startswith("__MACOSX")]
        if len(names) != 1 or names[0].file_size > LARGEST:
            raise ValueError(f"expected one csv file in it, found {len(names)}")
        return _of_csv(archive.read(names[0]))


def _read_gz(path: Path) -> pd.DataFrame:
    with gzip.open(path) as file:
        return _of_csv(file.read(LARGEST))


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
    ".zip": _read_zip,
    ".gz": _read_gz,
}


def _of_csv(content: bytes) -> pd.DataFrame:
    text = io.StringIO(content.decode("utf-8-sig"), newline="")
    header, *rows = [row for row in csv.reader(text) if row] or [[]]
    if uneven := next((row for row in rows if len(row) != len(header)), None):
        raise ValueError(f"a row has {len(uneven)} fields, the header {len(header)}: {','.join(uneven)[:60]}")
    return _indexed(pd.DataFrame(rows, columns=header, dtype=str), 2)


def _are_records(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def _of_records(values: Any) -> pd.DataFrame:
    if not isinstance(values, list) or not _are_records(values):
        raise ValueError("expected a list of records")
    return _text(pd.DataFrame(values))


def _of_coco(values: dict[str, Any]) -> pd.DataFrame:
    """Join images, annotations and categories, in the order of images."""
    images = pd.DataFrame(values["images"])
    images = images if "image_id" in images else images.rename(columns={"id": "image_id"})
    notes = values.get("annotations")
    if not notes:
        return images
    found = pd.DataFrame(notes)
    names = {one["id"]: one["name"] for one in values.get("categories") or [] if "name" in one}
    if names and "category_id" in found:
        found["category_name"] = found["category_id"].map(names)
    found = found.drop(columns=[name for name in found if name == "id" or (name in images and name != "image_id")])
    images["image_id"], found["image_id"] = images["image_id"].map(str), found["image_id"].map(str)
    return images.merge(found, on="image_id", how="left")


def _text(frame: pd.DataFrame) -> pd.DataFrame:
    """Return every value as text: lists as json, whole numbers without a point, nothing for none."""
    return frame.apply(lambda column: column.map(_as_text)).astype(str).rename(columns=str)


def _as_text(value: Any) -> str:
    if isinstance(value, list) and len(value) > LONGEST_LIST and isinstance(value[0], int | float):
        return f"{len(value)} numbers"  # an image: `competition unpack` makes files of them
    if isinstance(value, list | dict):
        return json.dumps(value)
    if value is None or pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


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
