"""Archives as competitions send them, and those that must not be unpacked."""

import contextlib
import io
import json
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from competition.checking.competition_files import archives
from competition.kaggle.download import unpack, unpack_folder
from competition.support.errors import CompetitionError
from hypothesis import given, settings
from hypothesis import strategies as st


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # by its name alone Python 3.11 writes none without one
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


def packed(name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def encrypted() -> bytes:
    """Set the flag of encryption of a file, where it stands and in the directory at the end."""
    whole = bytearray(packed("train.csv", b"secret"))
    for start, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        whole[whole.index(start) + place] |= 1
    return bytes(whole)


def damaged(compression: int) -> bytes:
    whole = packed("train.csv", bytes(range(256)) * 20, compression)
    start = whole.index(b"train.csv") + len("train.csv") + 12
    return whole[:start] + b"\xff" * 40 + whole[start + 40 :]


def in_one_another(depth: int) -> bytes:
    content = packed("a.csv", b"1")
    for _ in range(depth):
        content = packed("a.zip", content)
    return content


HOSTILE = {
    "encrypted": (encrypted(), "'train.csv' is encrypted; unpack it by hand"),
    "deflate": (damaged(zipfile.ZIP_DEFLATED), r"broken \("),
    "bz2": (damaged(zipfile.ZIP_BZIP2), r"broken \("),
    "lzma": (damaged(zipfile.ZIP_LZMA), r"broken \("),
    "a name that is not UTF-8": (packed("é.csv", b"1").replace("é".encode(), b"\xff\xfe"), r"broken \("),
    "a file where a folder goes": (
        zipped({"a": b"1", "a/b.csv": b"2"}),
        "data/a: is a file where the folder",
    ),
    "a folder where a file goes": (zipped({"a/b.csv": b"2", "a": b"1"}), "data/a: is there and is not the one"),
    "an inner archive where a file lies": (
        zipped({"train": b"1", "train.zip": zipped({"1.png": b"1", "2.png": b"2"})}),
        "data/train: is a file where the files of .*train.zip belong",
    ),
    "600 archives in one another": (in_one_another(600), "lies in more than 8 archives in one another"),
    "a damaged archive in an archive": (packed("train.zip", damaged(zipfile.ZIP_LZMA)), r"train\.zip: broken \("),
    "a name longer than a disk takes": (packed("x" * 300, b"1"), "cannot be written .File name too long"),
}


@pytest.mark.parametrize(("content", "told"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_in_one_line_and_leaves_no_half_a_file(
    folder: Path, content: bytes, told: str
) -> None:
    (folder / "digits.zip").write_bytes(content)
    with pytest.raises(CompetitionError, match=told) as refused:
        unpack(folder / "digits.zip", folder)
    assert "\n" not in str(refused.value)
    assert not list(folder.rglob(".*"))


def test_a_file_without_a_name_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "digits.zip").write_bytes(zipped({"name": b"1"}).replace(b"name", b"\0ame"))
    with pytest.raises(CompetitionError, match=r"digits\.zip: broken \(a file without a name\)"):
        unpack(tmp_path / "digits.zip", tmp_path)


WHOLE = zipped({"train.csv": b"0123456789", "train/1.png": b"1", "test.zip": zipped({"2.png": b"2"})})


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4), st.integers(1, len(WHOLE)))
@settings(max_examples=150, deadline=None)
def test_an_archive_with_changed_bytes_is_unpacked_or_refused_and_never_writes_elsewhere(
    changes: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(WHOLE)
    for place, byte in changes:
        content[place] = byte
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside, "data")
        folder.mkdir()
        (folder / "digits.zip").write_bytes(content[:length] if length % 3 == 0 else content)
        with contextlib.suppress(CompetitionError):
            unpack(folder / "digits.zip", folder)
        assert [path.name for path in Path(outside).iterdir()] == ["data"]
        assert not list(folder.rglob(".*.tmp"))


def test_archives_in_a_folder_are_unpacked_beside_themselves_and_stay(folder: Path) -> None:
    (folder / "train.zip").write_bytes(zipped({"1.png": b"1"}))
    (folder / "labels.csv.zip").write_bytes(zipped({"labels.csv": b"a"}))
    with tarfile.open(folder / "test.tar.gz", "w:gz") as archive:
        for name, content in (("deep/2.png", b"2"), ("3.png", b"3")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    for _ in range(2):  # a second time nothing changes
        assert len(unpack_folder(folder)) == 3
    there = {name: content for name, content in contents(folder).items() if not name.endswith((".zip", ".gz"))}
    assert there == {"train/1.png": b"1", "labels.csv": b"a", "test/deep/2.png": b"2", "test/3.png": b"3"}
    assert {path.name for path in folder.glob("*.*z*")} == {"train.zip", "labels.csv.zip", "test.tar.gz"}


def test_a_tar_that_leads_out_of_its_folder_is_refused(folder: Path) -> None:
    with tarfile.open(folder / "test.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../../out.png"), io.BytesIO(b""))
    with pytest.raises(CompetitionError, match=r"test\.tar: broken, or leads out of its folder"):
        unpack_folder(folder)
    assert not (folder.parent / "out.png").exists()


def test_an_archive_that_nothing_here_unpacks_is_told_with_what_does(folder: Path) -> None:
    (folder / "train.7z").write_bytes(b"7z")
    with pytest.raises(CompetitionError, match="by the program 7z: 7z x -o"):
        unpack_folder(folder)


def test_arrays_in_json_become_images_and_check_says_so_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bands = rng.random((2, 3, 40, 40)).astype(np.float32)
    for part, of_part in zip(("train", "test"), bands, strict=True):
        records = [
            {"id": f"{part}{k}", "band": one.ravel().tolist(), "inc_angle": "na"} for k, one in enumerate(of_part)
        ]
        (tmp_path / f"{part}.json").write_text(json.dumps(records))
    (told,) = archives(tmp_path)
    assert "test.json, train.json: images are arrays in it" in told
    assert len(unpack_folder(tmp_path)) == 2
    assert archives(tmp_path) == []
    for part, of_part in zip(("train", "test"), bands, strict=True):
        for k, one in enumerate(of_part):
            np.testing.assert_array_equal(np.load(tmp_path / f"{part}_images/{part}{k}.npy"), one[:, :, None])
    (tmp_path / "train.json").write_text(json.dumps([{"id": "x", "band": [0.5] * 1601}]))
    with pytest.raises(CompetitionError, match="record 1: its arrays are no image"):
        unpack_folder(tmp_path)


def bson(fields: dict[str, object]) -> bytes:
    """Write a document as bsonspec.org says."""
    content = b""
    for name, value in fields.items():
        key = name.encode() + b"\0"
        if isinstance(value, int):
            content += (
                b"\x12" + key + struct.pack("<q", value) if value >> 31 else b"\x10" + key + struct.pack("<i", value)
            )
        elif isinstance(value, float):
            content += b"\x01" + key + struct.pack("<d", value)
        elif isinstance(value, str):
            content += b"\x02" + key + struct.pack("<i", len(value.encode()) + 1) + value.encode() + b"\0"
        elif isinstance(value, bytes):
            content += b"\x05" + key + struct.pack("<i", len(value)) + b"\0" + value
        elif isinstance(value, list):
            content += b"\x04" + key + bson({str(number): one for number, one in enumerate(value)})
        elif isinstance(value, dict):
            content += b"\x03" + key + bson(value)
        else:
            content += b"\x0a" + key
    return struct.pack("<i", len(content) + 5) + content + b"\0"


JPG, PNG = b"\xff\xd8one", b"\x89PNGtwo"


def test_documents_of_bson_become_a_table_and_files(folder: Path) -> None:
    documents: list[dict[str, object]] = [
        {"_id": 7, "imgs": [{"picture": JPG}, {"picture": PNG}], "category_id": 1 << 40, "none": None},
        {"_id": 8, "imgs": [{"picture": PNG}], "category_id": 5, "name": "thé", "share": 0.5},
    ]
    (folder / "train.bson").write_bytes(b"".join(bson(document) for document in documents))
    assert archives(folder) == [
        f"{folder}: train.bson: images are arrays in it; files of them: competition unpack {folder}"
    ]
    assert unpack_folder(folder) == [f"{folder / 'train.bson'}: 2 documents in train.csv, 3 images in train_images/"]
    (folder / "train.bson").unlink()
    assert contents(folder) == {
        "train.csv": f"_id,category_id\n7,{1 << 40}\n8,5\n".encode(),
        "train_images/7/0.jpg": JPG,
        "train_images/7/1.png": PNG,
        "train_images/8/0.png": PNG,
    }


@pytest.mark.parametrize(
    "cut", [b"", bson({"_id": 1})[:-3], b"\x04\0\0\0", b"\xff\xff\xff\x7f", bson({"a": b"x"})[:7] + b"\xff" * 9]
)
def test_a_bson_file_that_is_broken_leaves_no_table(folder: Path, cut: bytes) -> None:
    (folder / "train.bson").write_bytes(cut)
    with pytest.raises(CompetitionError, match=r"train\.bson: .*; download it again"):
        unpack_folder(folder)
    assert [path.name for path in folder.iterdir()] == ["train.bson"]
