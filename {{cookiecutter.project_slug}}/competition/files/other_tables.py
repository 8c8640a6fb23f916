"""Files of tables that are no csv file, read as if they were one: json and packed csv files.

- COCO's json: a row an annotation, or an image without any. Columns are those of images (`id` as `image_id`), of
  annotations, and `category_name`. An id that is listed twice, or that an annotation has and no list, is refused.
- a json list, or a JSON line, of records: a row a record.
- parquet, where pandas has what reads it; a csv file in a zip or gz archive.
"""

import csv
import gzip
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from competition.support.errors import CompetitionError

LARGEST = 1 << 30  # bytes of a json file, or of what is in an archive
LONGEST_LIST = 1000  # numbers of a list that are kept as text
MOST_IDS = 12  # in a message
# By list of COCO's json, the keys of an id, of which the first is taken: some competitions call it as annotations do.
COCO_IDS = {"images": ("image_id", "id"), "categories": ("id", "category_id")}


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


def _load_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8-sig"))


def _read_json(path: Path) -> pd.DataFrame:
    values = _load_json(path)
    if isinstance(values, dict) and isinstance(values.get("images"), list):
        return numbered(_text(_of_coco(values, path)), 1)
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


def _of_coco(values: dict[str, Any], path: Path) -> pd.DataFrame:
    """Join images, annotations and categories, in the order of images."""
    listed, notes = _records_of(values, "images"), _records_of(values, "annotations")
    image_ids = _ids_of(listed, "images", path)
    images = pd.DataFrame(listed)
    images = images if "image_id" in images else images.rename(columns={"id": "image_id"})
    if not notes:
        return images
    categories = _records_of(values, "categories")
    _refuse_unlisted(notes, "image_id", image_ids, path)
    _refuse_unlisted(notes, "category_id", _ids_of(categories, "categories", path), path)
    found = pd.DataFrame(notes)
    names = {one["id"]: one["name"] for one in categories if "name" in one}
    if names and "category_id" in found:
        found["category_name"] = found["category_id"].map(names)
    found = found.drop(columns=[name for name in found if name == "id" or (name in images and name != "image_id")])
    images["image_id"] = images["image_id"].map(_as_text)
    found["image_id"] = [_as_text(one.get("image_id")) for one in notes]
    return images.merge(found, on="image_id", how="left")


def read_categories(path: Path) -> dict[str, str]:
    """Return by id, as text, what COCO's categories in a json file are called; nothing of another file."""
    if path.suffix.lower() != ".json":
        return {}
    values = _load_json(path)
    records = _records_of(values, "categories") if isinstance(values, dict) and "images" in values else []
    names = [str(one.get("name", "")) for one in records]
    return dict(zip(_ids_of(records, "categories", path), names, strict=False))


def _records_of(values: dict[str, Any], key: str) -> list[dict[str, Any]]:
    records = values.get(key) or []
    if records and not _are_records(records):
        raise ValueError(f"expected a list of records in its {key}")
    return records


def _ids_of(records: list[dict[str, Any]], key: str, path: Path) -> list[str]:
    """Return the ids of COCO's images or categories as text, nothing where not all have one.

    Raises CompetitionError where one is listed twice: annotations would be those of both.
    """
    name = next((name for name in COCO_IDS[key] if all(name in one for one in records)), None)
    ids = [] if name is None else [_as_text(one[name]) for one in records]
    if len(set(ids)) == len(ids):
        return ids
    first = next(one for one, times in Counter(ids).items() if times > 1)
    called = [one.get("file_name", one.get("name", "")) for one, its in zip(records, ids, strict=True) if its == first]
    raise CompetitionError(
        f"{path}: {key}: found id {first} {len(called)} times, of {', '.join(map(str, called[:3]))}; expected every id "
        f"once, {len(ids) - len(set(ids))} stand again: leave the others out, or give each an id of its own"
    )


def _refuse_unlisted(notes: list[dict[str, Any]], name: str, known: list[str], path: Path) -> None:
    """Raise CompetitionError where annotations have an id that is not among those listed, if there is such a list:
    they would be lost, or be of a class of their own."""
    key, is_needed = ("images", True) if name == "image_id" else ("categories", False)
    if not known and not is_needed:
        return
    ids = set(known)
    odd = [one for one in notes if (is_needed or one.get(name) is not None) and _as_text(one.get(name)) not in ids]
    if odd:
        which = f"annotation {odd[0]['id']}: " if "id" in odd[0] else ""
        raise CompetitionError(
            f"{path}: {which}found {name} {_as_text(odd[0].get(name)) or 'missing'}, which is not listed in {key}, as "
            f"in {len(odd)} of {len(notes)} annotations; expected one of {', '.join(known[:MOST_IDS])}"
            f"{', ...' if len(known) > MOST_IDS else ''}: list it there, or leave these annotations out"
        )


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
