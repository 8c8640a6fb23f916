"""Images in a bson file, as MongoDB writes documents: made files of, document by document. No torch.

Of `train.bson` become train.csv, with a row a document and a column for each number or text in it, and
train_images/ID/0.jpg, 1.jpg and so on: the images in its binary fields, wherever they stand in it.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from competition.files.image_folder import file_name
from competition.files.image_search import IDS
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError

LARGEST = 1 << 26  # bytes of a document: four times what MongoDB takes
LONGEST_NAME = 1000  # bytes of a field's name
SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp"}
SCALARS = {1: "<d", 8: "<?", 16: "<i", 18: "<q"}  # by type, as bsonspec.org has them
DOCUMENT, LIST = 3, 4
TEXT, BINARY, OBJECT_ID, NULL = 2, 5, 7, 10


def write_bson(path: Path) -> list[str]:
    """Write the images and the table of a bson file beside it; return a line on them."""
    folder, table = path.with_name(f"{path.stem}_images"), path.with_suffix(".csv")
    if table.exists() and not folder.exists():
        raise CompetitionError(f"{table}: is there, and {path} would be written to it; move it away and start again")
    counts = [0, 0]
    columns = ["_id", *(name for name in _scalars(next(_documents(path))) if name != "_id")]
    write_csv(table, columns, _rows(path, folder, columns, counts))
    return [f"{path}: {counts[0]} documents in {table.name}, {counts[1]} images in {folder.name}/"]


def _rows(path: Path, folder: Path, columns: list[str], counts: list[int]) -> Iterator[list[str]]:
    """Yield a row a document, and write its images."""
    for document in _documents(path):
        scalars = _scalars(document)
        key = next((scalars[name] for name in ("_id", *IDS) if name in scalars), str(counts[0]))
        place = folder / file_name("{image_id}", key)
        place.mkdir(parents=True, exist_ok=True)
        for number, (content, suffix) in enumerate(_images(document)):
            (place / f"{number}{suffix}").write_bytes(content)
            counts[1] += 1
        counts[0] += 1
        yield [key if name == "_id" else scalars.get(name, "") for name in columns]


def _scalars(document: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in document.items() if isinstance(value, str | int | float)}


def _images(value: Any) -> Iterator[tuple[bytes, str]]:
    """Yield the images that stand anywhere in a value, with their endings."""
    if isinstance(value, bytes):
        suffix = next((suffix for begin, suffix in SIGNATURES.items() if value.startswith(begin)), None)
        if suffix is not None:
            yield value, suffix
    elif isinstance(value, dict):
        for one in value.values():
            yield from _images(one)


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the documents of a file, one in memory at a time."""
    with path.open("rb") as file:
        number = 0
        while size := file.read(4):
            number += 1
            try:
                document = _document(_rest(file, size))
            except (ValueError, IndexError, struct.error, RecursionError) as error:
                raise CompetitionError(f"{path}: document {number}: no bson ({error}); download it again") from None
            yield document
        if number == 0:
            raise CompetitionError(f"{path}: has no document; download it again")


def _rest(file: BinaryIO, size: bytes) -> memoryview:
    (length,) = struct.unpack("<i", size)
    content = file.read(length - 4) if 5 <= length <= LARGEST else b""
    if len(content) != length - 4:
        raise ValueError(f"it ends in its middle, or is of {length} bytes")
    return memoryview(content)


def _document(content: memoryview) -> dict[str, Any]:
    """Return the fields of a document behind its size; lists as documents, whose fields are numbers."""
    found, at = dict[str, Any](), 0
    while kind := content[at]:
        end = at + 1 + bytes(content[at + 1 : at + 1 + LONGEST_NAME]).index(0)
        name, at = bytes(content[at + 1 : end]).decode(), end + 1
        found[name], at = _value(kind, content, at)
    return found


def _value(kind: int, content: memoryview, at: int) -> tuple[Any, int]:
    """Return the value at a place, and where the next field begins."""
    if kind in SCALARS:
        return struct.unpack_from(SCALARS[kind], content, at)[0], at + struct.calcsize(SCALARS[kind])
    if kind == NULL:
        return None, at
    if kind == OBJECT_ID:
        return bytes(content[at : at + 12]).hex(), at + 12
    (length,) = struct.unpack_from("<i", content, at)
    if length < 0 or at + length > len(content):
        raise ValueError("a field is longer than its document")
    if kind in (DOCUMENT, LIST):
        return _document(content[at + 4 : at + length]), at + length
    if kind == TEXT:
        return bytes(content[at + 4 : at + 3 + length]).decode(), at + 4 + length
    if kind == BINARY:
        return bytes(content[at + 5 : at + 5 + length]), at + 5 + length
    raise ValueError(f"a field of type {kind} is not known here")
