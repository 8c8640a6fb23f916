"""Writing files so that a reader, or a crash, never meets half of one."""

import csv
import io
import os
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

# What a killed prediction leaves in a folder, and with it what any killed process does.
OF_PREDICTION = (".predictions.*", ".*.rank*.npz", ".*.npz.*.tmp", ".views")
LEFTOVERS = (*OF_PREDICTION, ".*.tmp")


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it to `path`, on failure delete it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same folder is the same file system: only there is the rename atomic.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def delete_leftovers(folder: Path, patterns: Iterable[str] = LEFTOVERS) -> None:
    """Delete what killed processes left half written in a folder where no process writes such files now."""
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif not path.name.startswith(".metrics.png."):  # drawn by a process that may outlive the training
            path.unlink(missing_ok=True)


def is_up_to_date(path: Path, sources: Iterable[Path]) -> bool:
    """Return whether a file is there, and not older than any of those that it was made from and that are there."""
    if not path.is_file():
        return False
    made = path.stat().st_mtime
    return all(made >= source.stat().st_mtime for source in sources if source.is_file())


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a csv file of this project's own, a mapping a row; no row where the file is not there."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a csv file row by row, so that rows may come from a generator larger than memory."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        _write_rows(file, columns, rows)


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return what `write_csv` would write."""
    text = io.StringIO()
    _write_rows(text, columns, rows)
    return text.getvalue()


def _write_rows(file: TextIO, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
