"""Archives as competitions send them, and those that must not be unpacked."""

import io
import zipfile
from pathlib import Path

import pytest

from competition.errors import CompetitionError
from competition.unpack import unpack


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def archive_of(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "digits.zip"
    path.write_bytes(zipped(files))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "digits.zip")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_files_and_folders_come_out_as_they_went_in(folder: Path) -> None:
    files = {"train.csv": b"a", "train/1.png": b"b", "test/deep/2.png": b"", "Ünï code.csv": b"c"}
    archive = archive_of(folder, files | {"__MACOSX/._train.csv": b"x"})
    assert sorted(path.relative_to(folder).as_posix() for path in unpack(archive, folder)) == sorted(files)
    assert contents(folder) == files


def test_archives_in_an_archive_are_unpacked_where_they_belong(folder: Path) -> None:
    inner = {
        "train.zip": zipped({"1.png": b"flat"}),
        "test.zip": zipped({"test/2.png": b"with its folder"}),
        "train.csv.zip": zipped({"train.csv": b"alone"}),
        "not-an-archive.zip": b"text",
    }
    unpack(archive_of(folder, inner), folder)
    assert contents(folder) == {
        "train/1.png": b"flat",
        "test/2.png": b"with its folder",
        "train.csv": b"alone",
        "not-an-archive.zip": b"text",
    }


def test_a_second_start_keeps_what_is_there_and_adds_the_rest(folder: Path) -> None:
    archive = archive_of(folder, {"1.png": b"one", "train.zip": zipped({"2.png": b"two"})})
    (folder / "1.png").write_bytes(b"one")
    before = (folder / "1.png").stat()
    unpack(archive, folder)
    unpack(archive, folder)
    assert contents(folder) == {"1.png": b"one", "train/2.png": b"two"}
    assert (folder / "1.png").stat().st_ino == before.st_ino


def test_a_file_of_the_users_own_is_never_overwritten(folder: Path) -> None:
    (folder / "train.csv").write_bytes(b"my labels")
    with pytest.raises(CompetitionError, match=r"train\.csv: is there and is not the one in .*digits\.zip"):
        unpack(archive_of(folder, {"train.csv": b"theirs"}), folder)
    assert contents(folder) == {"train.csv": b"my labels"}


@pytest.mark.parametrize("name", ["../out.csv", "/tmp/out.csv", "a/../../out.csv"])
def test_a_name_that_leads_out_of_the_folder_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(CompetitionError, match="lies outside of"):
        unpack(archive_of(folder, {name: b"x"}), folder)
    assert [path.name for path in folder.parent.rglob("*")] == ["data", "digits.zip"]


@pytest.mark.parametrize("damage", ["cut", "changed", "no archive"])
def test_a_broken_archive_is_named_and_leaves_no_half_a_file(folder: Path, damage: str) -> None:
    archive = archive_of(folder, {"train.csv": b"0123456789" * 100})
    whole = archive.read_bytes()
    broken = {"cut": whole[:-40], "changed": whole.replace(b"0123456789", b"0123466789", 1), "no archive": b"<html>"}
    archive.write_bytes(broken[damage])
    with pytest.raises(CompetitionError, match=r"digits\.zip: broken .*; delete it and download it again"):
        unpack(archive, folder)
    assert contents(folder) == {}
