"""Files of tables that are no csv file, read as if they were one: json and packed csv files.

- COCO's json: a row an annotation, or an image without any. Columns are those of images (`id` as `image_id`), of
  annotations, and `category_name`.
- a json list, or a JSON line, of records: a row a record.
- parquet, where pandas has what reads it; a csv file in a zip or gz archive.
"""

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from competition.support.errors import CompetitionError

LARGEST = 1 << 30  # bytes of a json file, or of what is in an archive
LONGEST_LIST = 1000  # numbers of a list that are kept as text


def read_file(path: Path) -> pd.DataFrame:
    """Return a table as text, empty where there is nothing; the index tells each row as that of `read_csv` does."""
    try:
        state = path.stat()
        return _read(path, state.st_mtime_ns, state.st_size)
    except (OSError, ValueError, TypeError, KeyError, ImportError, zipfile.BadZipFile, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CompetitionError(f"{path}: cannot be read as a table ({reason})") from None


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, size: int) -> pd.DataFrame:
    if size > LARGEST:
        raise CompetitionError(f"{path}: is larger than {LARGEST >> 20} MB; write its rows as a csv file")
    return READERS.get(path.suffix.lower(), _read_plain)(path)


def numbered(frame: pd.DataFrame, first: int) -> pd.DataFrame:
    """Number the rows so that `line` names the first one `first`."""
    frame.index = pd.RangeIndex(first - 2, first - 2 + len(frame))
    return frame


def _read_json(path: Path) -> pd.DataFrame:
    values = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(values, dict) and isinstance(values.get("images"), list):
        return numbered(_text(_of_coco(values)), 1)
    if isinstance(values, dict):
        lists = [value for value in values.values() if isinstance(value, list) and _are_records(value)]
        if len(lists) != 1:
            raise ValueError("expected a list of records, or COCO's images, annotations and categories")
        values = lists[0]
    return numbered(_of_records(values), 1)


def _read_json_lines(path: Path) -> pd.DataFrame:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return numbered(_of_records([json.loads(line) for line in lines if line.strip()]), 1)


def _read_parquet(path: Path) -> pd.DataFrame:
    return numbered(_text(pd.read_parquet(path)), 1)


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
    return numbered(pd.DataFrame(rows, columns=header, dtype=str), 2)


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
