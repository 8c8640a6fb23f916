"""Unpacking a competition's zip file, and the zip files in it, so that a crash leaves no half a file. No torch."""

import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from competition.errors import CompetitionError
from competition.progress import progress

BLOCK = 1 << 20


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpack an archive into a folder, and archives in it beside themselves; return the files that are there now.

    Every file's checksum is compared. A file that is there already is left if it is the same.

    Raises CompetitionError for a broken archive, a name that leads out of the folder, a file that is there and is
    another, and a full disk; what was unpacked stays, and so does the archive.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if _is_wanted(member)]
            _refuse_too_large(archive, folder, members)
            shown = progress(members, f"unpacking {archive.name}")
            files = [_unpack_member(opened, member, archive, folder) for member in shown]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise CompetitionError(f"{archive}: broken ({error}); delete it and download it again") from None
    except OSError as error:
        raise CompetitionError(f"{error.filename or folder}: cannot be written ({error.strerror})") from None
    return [file for found in files for file in _unpack_inner(found)]


def _is_wanted(member: zipfile.ZipInfo) -> bool:
    """Leave out folders, which have no content, and what macOS adds to an archive."""
    return not member.is_dir() and not member.filename.startswith("__MACOSX/")


def _refuse_too_large(archive: Path, folder: Path, members: list[zipfile.ZipInfo]) -> None:
    needed = sum(member.file_size for member in members if not (folder / member.filename).exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CompetitionError(
            f"{archive}: unpacks to {needed / 1e9:.1f} GB, and the disk of {folder} has {free / 1e9:.1f} GB free; make "
            "room, or name a folder elsewhere with data.dir=FOLDER"
        )


def _unpack_member(opened: zipfile.ZipFile, member: zipfile.ZipInfo, archive: Path, folder: Path) -> Path:
    target = folder / member.filename
    if not target.resolve().is_relative_to(folder.resolve()):
        raise CompetitionError(f"{archive}: holds {member.filename!r}, which lies outside of {folder}; not unpacked")
    if target.exists():
        if _is_same(target, member):
            return target
        raise CompetitionError(f"{target}: is there and is not the one in {archive}; move it away and start again")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not synced to the disk one by one, which takes minutes for 100,000 images: a second start compares them all.
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with opened.open(member) as source, temporary.open("wb") as written:
            shutil.copyfileobj(source, written, BLOCK)  # reading to the end compares the checksum
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _is_same(file: Path, member: zipfile.ZipInfo) -> bool:
    if not file.is_file() or file.stat().st_size != member.file_size:
        return False
    checksum = 0
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum == member.CRC


def _unpack_inner(file: Path) -> Iterator[Path]:
    """Unpack a zip file that came out of an archive, and delete it; any other file is returned as it is."""
    if file.suffix.lower() != ".zip" or not zipfile.is_zipfile(file):
        yield file
        return
    with zipfile.ZipFile(file) as opened:
        names = [member.filename for member in opened.infolist() if _is_wanted(member)]
    # train.zip holds train/..., or what belongs into train/; train.csv.zip holds train.csv.
    is_whole = names == [file.stem] or all(name.startswith(f"{file.stem}/") for name in names)
    folder = file.parent if is_whole else file.with_suffix("")
    folder.mkdir(exist_ok=True)
    yield from unpack(file, folder)
    file.unlink()
