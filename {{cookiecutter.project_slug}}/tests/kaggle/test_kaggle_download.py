"""`competition download` through the real kaggle package, against a stand-in of the service."""

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from kaggle_stand_in import StandIn

Command = Callable[..., CompletedProcess[str]]


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def zipped_folder(folder: Path) -> bytes:
    files = (path for path in folder.rglob("*") if path.is_file())
    return zipped({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_download_is_unpacked_and_passes_the_check(
    kaggle: StandIn, kaggle_command: Command, sample: Path, config_file: Path
) -> None:
    kaggle.archives["digits"] = zipped_folder(sample)
    done = kaggle_command("download", config_file)
    assert done.returncode == 0, done.stderr
    assert contents(Path("data")) == contents(sample)
    assert done.stdout.startswith(f"data: {len(contents(sample))} files of digits")
    assert done.stdout.splitlines()[-1] == f"next: competition check {config_file}"
    checked = kaggle_command(*done.stdout.splitlines()[-1].split()[2:])
    assert checked.returncode == 0, checked.stderr


def test_what_the_config_expects_and_is_not_there_is_named(
    kaggle: StandIn, kaggle_command: Command, config_file: Path
) -> None:
    kaggle.archives["digits"] = zipped({"labels.csv": b"a", "train_images/1.png": b"b"})
    done = kaggle_command("download", config_file)
    assert done.returncode == 0
    assert (
        "not there: data.train_csv (train.csv), data.sample_submission (sample_submission.csv), data.test_images "
        "(test_images); set these keys to the names of: labels.csv, train_images/"
    ) in done.stdout


def test_a_download_that_breaks_off_goes_on(
    kaggle: StandIn, kaggle_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle.archives["other"] = zipped({"train.csv": random.Random(0).randbytes(8 << 20)})
    kaggle.breaks = 6  # the package tries five times more
    monkeypatch.setattr("time.sleep", lambda _: None)
    done = kaggle_command("download", "--competition", "other")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("Kaggle cannot be reached (")
    kaggle.ranges.clear()
    done = kaggle_command("download", "--competition", "other")
    assert done.returncode == 0, done.stderr
    assert [int(asked.strip("bytes=-")) > 1 << 20 for asked in kaggle.ranges] == [True]
    assert contents(Path("data")) == {"train.csv": random.Random(0).randbytes(8 << 20)}


def test_a_folder_with_something_in_it_is_left_alone(kaggle: StandIn, kaggle_command: Command) -> None:
    Path("data").mkdir()
    Path("data/train.csv").write_text("made up")
    done = kaggle_command("download")
    assert done.returncode == 1
    assert done.stderr.startswith("data: is not empty; move it away, or name another folder")
    assert contents(Path("data")) == {"train.csv": b"made up"}
    assert kaggle.calls == []
