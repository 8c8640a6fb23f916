"""`competition download [CONFIG]`: a competition's files from Kaggle into data/, unpacked and checked. No torch."""

import json
import lzma
import math
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from competition.checking.competition_files import TARS
from competition.config.loading import load_config
from competition.config.settings import Config
from competition.files.image_folder import file_name
from competition.files.image_search import IDS
from competition.files.joined_tables import has_table
from competition.files.other_tables import LONGEST_LIST
from competition.kaggle.api import KaggleService, competition_name
from competition.kaggle.bson_images import write_bson
from competition.support.errors import CompetitionError
from competition.support.paths import here
from competition.support.progress import progress


def download(configs: list[Path], overrides: list[str], competition: str | None = None) -> list[str]:
    """Download into `data.dir` of the config, or data/ without one; return lines that say what is there.

    Started again after it broke off, it goes on.
    """
    if overrides and not configs:
        raise CompetitionError(f"{overrides[0]}: a value needs a config to stand in; name one before it")
    config = load_config(configs, overrides) if configs else None
    folder = here().data(Path("data")) if config is None else config.data.dir
    name = competition_name(competition)
    archive = folder / f"{name}.zip"
    if folder.is_dir() and any(folder.iterdir()) and not archive.exists():
        raise CompetitionError(
            f"{folder}: is not empty; move it away, or name another folder with a config and data.dir=FOLDER"
        )
    service = KaggleService()
    folder.mkdir(parents=True, exist_ok=True)
    archive = service.download(name, folder)
    files = unpack(archive, folder)
    archive.unlink()
    size = sum(file.stat().st_size for file in files) / 1e6
    lines = [f"{folder}: {len(files)} files of {name}, {size:.1f} MB, unpacked, checksums compared"]
    return [*lines, *_next_steps(folder, config, configs)]


def _next_steps(folder: Path, config: Config | None, configs: list[Path]) -> list[str]:
    """Name what the config expects and is not there, and the command that looks at everything."""
    there = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    lines = []
    if config is not None:
        data = config.data
        expected = {
            "train_csv": data.train_csv,
            "sample_submission": data.sample_submission,
            "train_images": data.train_images,
            "test_images": data.test_images,
        }
        absent = [
            f"data.{key} ({name})"
            for key, name in expected.items()
            if not ((folder / name).exists() or has_table(folder / name))
        ]
        if absent:
            lines.append(f"not there: {', '.join(absent)}; set these keys to the names of: {', '.join(there[:20])}")
    else:
        lines.append(f"there: {', '.join(there[:20])}")
    return [*lines, f"next: competition check {' '.join(map(str, configs)) or 'CONFIG'}"]


BLOCK = 1 << 20
DEEPEST = 8  # archives in one another
ENCRYPTED = 1  # of a member's flags


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpack an archive into a folder, and archives in it beside themselves; return the files that are there now.

    Every file's checksum is compared. A file that is there already is left if it is the same.

    Raises CompetitionError for a broken archive, a name that leads out of the folder, a file that is there and is
    another, and a full disk; what was unpacked stays, and so does the archive.
    """
    return _unpack(archive, folder, depth=0)


def unpack_folder(folder: Path) -> list[str]:
    """Unpack the archives in a folder beside themselves, as `download` does; return a line an archive. They stay."""
    if not folder.is_dir():
        raise CompetitionError(f"{folder}: no such folder; name the one with the competition's files")
    lines = []
    for path in sorted(folder.iterdir()):
        if not path.is_file() or not path.name.lower().endswith((".zip", *TARS, ".7z", ".rar")):
            continue
        if path.name.lower().endswith((".7z", ".rar")):
            raise CompetitionError(
                f"{path}: is packed as no library here unpacks; by the program 7z: 7z x -o{folder} {path}"
            )
        files = _unpack_tar(path, folder) if path.name.lower().endswith(TARS) else _unpack_beside(path, 0)
        lines.append(f"{path}: {len(files)} files")
    lines += [line for path in sorted(folder.glob("*.json")) for line in _write_arrays(path)]
    lines += [line for path in sorted(folder.glob("*.bson")) for line in write_bson(path)]
    return lines or [f"{folder}: no archive in it"]


def _write_arrays(path: Path) -> list[str]:
    """Write the arrays of numbers in a json list of records as images, train.json's to train_images/ID.npy: lists of
    one record are its channels. Return a line on it; none for other files."""
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError):
        return []
    first = records[0] if isinstance(records, list) and records and isinstance(records[0], dict) else {}
    bands = [name for name, value in first.items() if isinstance(value, list) and len(value) > LONGEST_LIST]
    key = next((name for name in first if name.lower() in IDS), None)
    if not bands or key is None:
        return []
    folder = path.with_name(f"{path.stem}_images")
    folder.mkdir(exist_ok=True)
    for number, record in enumerate(records, start=1):
        try:
            pixels = np.stack([_square(record[name]) for name in bands], axis=2)
            file = folder / f"{file_name('{image_id}', str(record[key]))}.npy"
        except (KeyError, TypeError, ValueError) as error:
            raise CompetitionError(f"{path}: record {number}: its arrays are no image ({error})") from None
        np.save(file, pixels)
    return [f"{folder}: {len(records)} images of {', '.join(bands)} in {path.name}; data.image_file='{{image_id}}.npy'"]


def _square(numbers: list[float]) -> np.ndarray:
    side = math.isqrt(len(numbers))
    if side * side != len(numbers):
        raise ValueError(f"found {len(numbers)} numbers; expected those of a square")
    return np.array(numbers, dtype=np.float32).reshape(side, side)


def _unpack_tar(archive: Path, folder: Path) -> list[Path]:
    """Unpack a tar archive into the folder of its name, unless all it holds is in one of that name."""
    stem = archive.name[: -len(next(ending for ending in TARS if archive.name.lower().endswith(ending)))]
    try:
        with tarfile.open(archive) as opened:
            names = [member.name.removeprefix("./") for member in opened.getmembers() if member.isfile()]
            is_whole = all(name.startswith(f"{stem}/") for name in names)
            target = folder if is_whole else folder / stem
            target.mkdir(exist_ok=True)
            opened.extractall(target, filter="data")
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise CompetitionError(f"{archive}: broken, or leads out of its folder ({error}); download it again") from None
    except OSError as error:
        raise CompetitionError(f"{archive}: cannot be unpacked ({error.strerror or error})") from None
    return [target / name for name in names]


def _unpack(archive: Path, folder: Path, depth: int) -> list[Path]:
    if depth > DEEPEST:
        raise CompetitionError(f"{archive}: lies in more than {DEEPEST} archives in one another; not unpacked")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if _is_wanted(member)]
            _refuse_too_large(archive, folder, members)
            shown = progress(members, f"unpacking {archive.name}")
            files = [_unpack_member(opened, member, archive, folder) for member in shown]
    # Each kind of compression has errors of its own; that of bz2 is an OSError without a number.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError) as error:
        raise CompetitionError(f"{archive}: broken ({error}); delete it and download it again") from None
    except OSError as error:
        if error.errno is None:
            raise CompetitionError(f"{archive}: broken ({error}); delete it and download it again") from None
        raise CompetitionError(f"{error.filename or folder}: cannot be written ({error.strerror})") from None
    return [file for found in files for file in _unpack_inner(found, depth + 1)]


def _is_wanted(member: zipfile.ZipInfo) -> bool:
    """Leave out folders, which have no content, and what macOS adds to an archive."""
    if not member.filename:
        raise zipfile.BadZipFile("a file without a name")
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
    if member.flag_bits & ENCRYPTED:
        raise CompetitionError(f"{archive}: {member.filename!r} is encrypted; unpack it by hand, with its password")
    if not target.resolve().is_relative_to(folder.resolve()):
        raise CompetitionError(f"{archive}: holds {member.filename!r}, which lies outside of {folder}; not unpacked")
    if target.exists():
        if _is_same(target, member):
            return target
        raise CompetitionError(f"{target}: is there and is not the one in {archive}; move it away and start again")
    # A file and a folder of one name, in the archive or on the disk.
    if blocking := next((parent for parent in target.parents if parent.exists() and not parent.is_dir()), None):
        raise CompetitionError(f"{blocking}: is a file where the folder of {member.filename!r} belongs ({archive})")
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


def _unpack_inner(file: Path, depth: int) -> Iterator[Path]:
    """Unpack a zip file that came out of an archive, and delete it; any other file is returned as it is."""
    if file.suffix.lower() != ".zip" or not zipfile.is_zipfile(file):
        yield file
        return
    yield from _unpack_beside(file, depth)
    file.unlink()


def _unpack_beside(file: Path, depth: int) -> list[Path]:
    """Unpack a zip file into the folder of its name, unless all it holds is in one of that name."""
    try:
        with zipfile.ZipFile(file) as opened:
            names = [member.filename for member in opened.infolist() if _is_wanted(member)]
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise CompetitionError(f"{file}: broken ({error}); delete it and unpack again") from None
    # train.zip holds train/..., or what belongs into train/; train.csv.zip holds train.csv.
    is_whole = names == [file.stem] or all(name.startswith(f"{file.stem}/") for name in names)
    folder = file.parent if is_whole else file.with_suffix("")
    if folder.exists() and not folder.is_dir():
        raise CompetitionError(f"{folder}: is a file where the files of {file} belong; move it away and start again")
    folder.mkdir(exist_ok=True)
    return _unpack(file, folder, depth)
