"""Writing files so that a reader, or a crash, never meets half of one; reading back what this project wrote itself."""

import csv
import errno
import io
import os
import platform
import re
import shutil
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from competition.support.errors import CompetitionError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} if os.name == "posix" else {errno.ENOSPC}
READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
MACHINE = re.sub(r"[^A-Za-z0-9]", "-", platform.node()) or "machine"  # several may share a folder
OLD = 86400  # seconds without a change after which a temporary file of another machine is nobody's

# What a killed prediction leaves in a folder, and with it what any killed process does.
OF_PREDICTION = (".predictions.*", ".*.rank*.npz", ".*.npz.*.tmp", ".views")
LEFTOVERS = (*OF_PREDICTION, ".*.tmp")


@contextmanager
def replacing(path: Path, way_on: str = "") -> Generator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it to `path`, on failure delete it.

    Raises CompetitionError, which ends in `way_on`, where it cannot be written. What a process that was killed left of
    the same file is deleted.
    """
    # The same folder is the same file system: only there is the rename atomic.
    temporary = path.with_name(f".{path.name}.{MACHINE}.{os.getpid()}.tmp")
    with explaining_unwritable(path, way_on, (temporary, path.parent)):
        path.parent.mkdir(parents=True, exist_ok=True)
        delete_abandoned(path.parent, f".{path.name}.", ".tmp")
        try:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):  # a folder that became read-only; what has happened before is told
                temporary.unlink(missing_ok=True)


@contextmanager
def explaining_unwritable(path: Path, way_on: str = "", parts: Sequence[Path] = ()) -> Generator[None]:
    """Tell in one line where `path`, or one of the `parts` that it is made of, cannot be written.

    An error of another file, as of one that is read meanwhile, passes.
    """
    try:
        yield
    except OSError as error:
        own = {os.fspath(one) for one in (path, *parts)}
        if error.filename is not None and os.fsdecode(error.filename) not in own:
            raise
        raise CompetitionError(f"{path}: cannot be written {why_not_written(error, path, way_on)}") from None


def why_not_written(error: OSError, path: Path, way_on: str = "") -> str:
    """Say in brackets why a file cannot be written, and behind them a way on, which is `way_on` where it is given."""
    reason = error.strerror or type(error).__name__
    if error.errno in FULL:
        with suppress(OSError):
            there = next(folder for folder in path.absolute().parents if folder.is_dir())
            reason += f", {shutil.disk_usage(there).free / 2**20:.0f} MB free"
        return f"({reason}); {way_on or 'make room there, then start the same again'}"
    if error.errno in READ_ONLY:
        return f"({reason}); {way_on or 'let this user write there, or start in another folder'}"
    return f"({reason}){way_on and '; '}{way_on}"


def delete_abandoned(folder: Path, start: str, end: str = "") -> None:
    """Delete the temporary files and folders `<start><machine>.<process>...<end>` of processes that have ended."""
    with suppress(OSError):  # it is only tidying up
        for path in list(folder.iterdir()):
            if not (path.name.startswith(start) and path.name.endswith(end) and _is_abandoned(path, start)):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_abandoned(path: Path, start: str) -> bool:
    """Return whether nobody writes a temporary file any more; of another machine's, as far as its time tells."""
    machine, _, rest = path.name.removeprefix(start).partition(".")
    process = rest.partition(".")[0]
    if machine == MACHINE and process.isdecimal() and os.name == "posix":
        return not _is_running(int(process))
    return time.time() - path.stat().st_mtime > OLD


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def delete_leftovers(folder: Path, patterns: Iterable[str] = LEFTOVERS) -> None:
    """Delete what killed processes left half written in a folder where no process writes such files now."""
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif not path.name.startswith(".metrics.png."):  # drawn by a process that may outlive the training
            path.unlink(missing_ok=True)


FIRST_LINE, LAST_LINE = "# whole with its last line, `# end`\n", "# end\n"


def marked(text: str) -> str:
    """Return YAML with a first and last line by which `read_own_text` knows that it was not cut, at a line's end too:
    for files of keys that a reader would replace by their defaults."""
    return FIRST_LINE + text + LAST_LINE


def read_own_text(path: Path, way_on: str) -> str:
    """Read a text file of this project's own, whose last line has an end; one that was cut or is empty is refused with
    a way on."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CompetitionError(f"{path}: damaged ({error}); {way_on}") from None
    if not text.endswith("\n"):
        what = "its last line has no end" if text else "it is empty"
        raise CompetitionError(f"{path}: damaged ({what}); {way_on}")
    if text.startswith(FIRST_LINE) and not text.endswith(LAST_LINE):
        raise CompetitionError(f"{path}: damaged (its last line, `{LAST_LINE.strip()}`, is not there); {way_on}")
    if "\0" in text:
        raise CompetitionError(f"{path}: damaged (it holds zero bytes); {way_on}")
    return text


def read_rows(
    path: Path, way_on: str, needed: Iterable[str] = (), *, texts: Iterable[str] = (), is_full: bool = False
) -> list[dict[str, str]]:
    """Read a csv file of this project's own, a mapping a row; no row where the file is not there.

    All but the columns `texts` hold numbers, and where it `is_full`, or in those that are `needed`, every row has one.
    Raises CompetitionError, which ends in `way_on`, where it does not: it was cut, or written by something else.
    """
    if not path.is_file():
        return []
    reader, needed, texts = (
        csv.DictReader(io.StringIO(read_own_text(path, way_on), newline="")),
        set(needed),
        set(texts),
    )
    try:
        rows = list(reader)
    except csv.Error as error:
        raise CompetitionError(f"{path}: damaged ({error}); {way_on}") from None
    if absent := sorted(needed - set(reader.fieldnames or ())):
        raise CompetitionError(f"{path}: damaged (it has no column {absent[0]!r}); {way_on}")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise CompetitionError(f"{path}: line {number}: damaged (it has not one value a column); {way_on}")
        for name, value in row.items():
            is_asked = is_full or name in needed
            if name not in texts and (value or is_asked) and not is_number(value):
                found = f"column {name}: found {value!r}, expected a number"
                raise CompetitionError(f"{path}: line {number}: damaged ({found}); {way_on}")
    return rows


def is_number(text: str) -> bool:
    """Return whether a text is a number, which may be nan or infinite."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]], way_on: str = "") -> None:
    """Write a csv file row by row, so that rows may come from a generator larger than memory."""
    with replacing(path, way_on) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
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
