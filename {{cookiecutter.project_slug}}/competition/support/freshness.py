"""Whether a file is of what it was made from: by a note of their contents, by their times only where there is none.

Beside `test.npz` lies `.test.npz.sources`: what it was made from, with sizes, times and checksums. A clock that was set
back, or a file that was copied, makes what is old look new; contents do not. They are those from before the work began:
what changes while it goes on is not what it read. The checksums of whole files and of archives are here, too. No torch.
"""

import hashlib
import json
import time
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Self

from competition.support.atomic_files import replacing
from competition.support.errors import CompetitionError
from competition.support.paths import PACKAGE

OF_FOLDERS = ("manifest.json", "maps.csv")  # files that stand for the folder they are in
LINE_ENDS = (None, b"\n", b"\r\n")  # None: as they are
SETTLED = 2 * 10**9  # nanoseconds, the coarsest that a file system keeps times by
Known = dict[str, list[Any]]  # by name: [size, time of change, checksum]


def state_of(path: Path) -> tuple[int, int]:
    """Return what changes whenever a file does, for what a process remembers of it; zeros where there is none."""
    if not path.is_file():
        return 0, 0
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@dataclass(frozen=True)
class MadeFrom:
    """What a file is made from, as it was before the work began; `note` it when the file is there."""

    path: Path
    sources: Known
    code: Known
    also: str

    @classmethod
    def now(cls, path: Path, sources: Iterable[Path], also: str = "", code: Iterable[Path] = ()) -> Self:
        """Look at what a file is about to be made from: files, of them those that are there, and the `code` by which;
        `also` tells of what is no file, as a folder. What the work itself makes of its sources has to be there."""
        return cls(path, _states(path, sources), _states(path, code), also)

    def note(self, also: str = "") -> None:
        """Note it beside the file, which has just been made; `also` is what was known only then."""
        made = self.path.stat()
        values = {
            "made": [made.st_size, made.st_mtime_ns, _checksum(self.path)],
            "also": also or self.also,
            "sources": self.sources,
            "code": self.code,
        }
        with replacing(_note(self.path)) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _states(path: Path, sources: Iterable[Path]) -> Known:
    sources, known = [source for source in sources if source.is_file()], Known()
    for name, source in zip(_names(path, sources), sources, strict=True):
        status = source.stat()  # before the contents: of a file that is being written they are another's
        known[name] = [status.st_size, status.st_mtime_ns, _checksum(source)]
    return known


def noted_beside(path: Path) -> str:
    """Return what a file's note tells of what is no file; nothing where it tells none, or is the note of another file
    that stood there before."""
    return str(_values(path).get("also", "")) if has_note(path) else ""


def has_note(path: Path) -> bool:
    """Return whether the note beside a file is of that file, by its time or, where it was copied, its contents."""
    made = _values(path).get("made")
    if not isinstance(made, list) or not path.is_file():
        return False
    status = path.stat()
    return made[:2] == [status.st_size, status.st_mtime_ns] or made[2:] == [_checksum(path)]


def delete_with_note(path: Path) -> None:
    """Delete a file that is made anew, first its note: whenever that ends, no note is there of a file that is gone."""
    for one in (_note(path), path):
        one.unlink(missing_ok=True)


def is_up_to_date(path: Path, sources: Iterable[Path], also: str = "", code: Iterable[Path] = ()) -> bool:
    """Return whether a file is there, and was made of these sources, of those that are there, as they are now; by the
    code there is now; and of what else is told by `also`, where that was noted, too."""
    sources = [source for source in sources if source.is_file()]
    if not path.is_file() or changed_sources(path, sources) or changed_code(path, code):
        return False
    known = _read(path, "sources")
    if also and known is not None and noted_beside(path) not in ("", also):
        return False
    return known is None or len(known) == len(set(_names(path, sources)))


def changed_sources(path: Path, sources: Iterable[Path], *, by_contents: bool = False) -> list[Path]:
    """Return those of the sources that a file was not made of as they are now; without a note, those that are newer.

    `by_contents`: those of what is noted that have other contents, wherever they lie now and whatever their times.
    """
    sources = [source for source in sources if source.is_file()]
    if by_contents:
        return _of_other_contents(path, sources)
    known, made, changed = _read(path, "sources"), path.stat().st_mtime, []
    for name, source in zip(_names(path, sources), sources, strict=True):
        status = source.stat()
        if known is not None and name in known and known[name][:2] == [status.st_size, status.st_mtime_ns]:
            continue
        # Another time: one that is newer tells that it was written since, but an older one tells nothing.
        is_newer = status.st_mtime > made
        if is_newer or (known is not None and known.get(name, [])[2:] != [_checksum(source)]):
            changed.append(source)
    return changed


def changed_code(path: Path, code: Iterable[Path]) -> list[Path]:
    """Return the code that is another than a file was made by: by its contents, as git writes what it was before at
    another time; where none is noted, as by earlier versions, that which is newer."""
    known = _read(path, "code")
    code = [file for file in code if file.is_file()]
    if known is None:
        made = path.stat().st_mtime
        return [file for file in code if file.stat().st_mtime > made]
    noted = [known.get(name, [])[2:] for name in _names(path, code)]
    return [file for file, before in zip(code, noted, strict=True) if before != [_checksum(file)]]


def has_noted_code(path: Path) -> bool:
    """Return whether it is known by which code a file was made."""
    return _read(path, "code") is not None


def _of_other_contents(path: Path, sources: Iterable[Path]) -> list[Path]:
    noted = _values(path).get("sources", {})
    by_name: dict[str, list[Any]] = {}
    for name, state in noted.items():
        by_name.setdefault(_name_anywhere(PurePosixPath(name)), []).append(state[2])
    named = ((_name_anywhere(one), one) for one in sources)
    return [one for name, one in named if name in by_name and not _is_as_noted(one, by_name[name])]


def _is_as_noted(source: Path, checksums: list[Any]) -> bool:
    """Return whether a file has one of these checksums, a table also as another editor would end its lines."""
    ends = LINE_ENDS if source.suffix == ".csv" else (None,)
    return any(_checksum(source, end) in checksums for end in ends)


def _name_anywhere(path: PurePath) -> str:
    """Name a file as it is called wherever its folder lies: the predictions of a run's fold with that of the fold."""
    is_of_fold = path.suffix == ".npz" and path.parent.name.startswith("fold")
    return "/".join(path.parts[-2:]) if is_of_fold else path.name


def _read(path: Path, what: str) -> Known | None:
    """Return which `sources` or `code` are noted of a file, None where there is no note of it as it is now."""
    values = _values(path)
    try:
        made = path.stat()
        is_of_it = values["made"][:2] == [made.st_size, made.st_mtime_ns]
        return {str(name): list(one) for name, one in values[what].items()} if is_of_it else None
    except (OSError, KeyError, TypeError, AttributeError):
        return None


def _values(path: Path) -> dict[str, Any]:
    """Return what stands in a note; nothing where there is none."""
    try:
        values = json.loads(_note(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _note(path: Path) -> Path:
    """Return where the note is: never within a folder that is made as a whole, as a bundle, but beside it."""
    whole = path.parent if path.name in OF_FOLDERS else path
    return whole.with_name(f".{whole.name}.sources")


def _names(path: Path, sources: Iterable[Path]) -> list[str]:
    """Name sources as they are seen from the file, or from this package; others by folder and name, as they may lie
    elsewhere. The same for relative and absolute paths."""
    homes = (_note(path).parent.resolve(), PACKAGE.parent.resolve())
    return [_name(source.resolve(), homes) for source in sources]


def _name(source: Path, homes: Iterable[Path]) -> str:
    seen = [source.relative_to(home).as_posix() for home in homes if source.is_relative_to(home)]
    return seen[0] if seen else "/".join(source.parts[-2:])


def _checksum(source: Path, line_end: bytes | None = None) -> str:
    """Return the checksum of a file as it is, or as it would be with another end of its lines."""
    state = state_of(source)
    if time.time_ns() - state[0] < SETTLED:  # what is written next may have the same time
        return _computed(source, line_end)
    return _remembered(source.absolute(), state, line_end)


@lru_cache(maxsize=256)
def _remembered(source: Path, _: tuple[int, int], line_end: bytes | None) -> str:
    return _computed(source, line_end)


def _computed(source: Path, line_end: bytes | None) -> str:
    if line_end is not None:
        return _sha256_of_lines(source, line_end)
    if source.suffix in (".npz", ".pt"):
        try:
            return fingerprint(source)  # of terabytes, without reading them
        except CompetitionError:
            pass  # damaged, which is said where it is read
    return sha256(source)


def fingerprint(path: Path) -> str:
    """Return a checksum of predictions or a checkpoint, made of those that a zip archive has of its members."""
    try:
        with zipfile.ZipFile(path) as archive:
            sums = sorted(f"{member.filename} {member.CRC:08x}" for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CompetitionError(
            f"{path}: damaged ({' '.join(str(error).split())[:200]}); delete it and make it again"
        ) from None
    return f"{zlib.crc32(' '.join(sums).encode()):08x}"


def compare_checksums(path: Path) -> None:
    """Read a zip archive, as checkpoints and stored predictions are; raise ValueError where a member was changed."""
    with zipfile.ZipFile(path) as archive:
        if (name := archive.testzip()) is not None:
            raise ValueError(f"{name} has another checksum than when it was written")


def _sha256_of_lines(file: Path, line_end: bytes) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        for line in opened:
            digest.update(line.rstrip(b"\r\n") + line_end)
    return digest.hexdigest()


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
