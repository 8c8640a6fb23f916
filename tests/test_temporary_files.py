"""What tests write goes when they end, be it by kill -9, and what failed stays until the next are begun."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import leftovers
import pytest
import temporary_files
from baking import PROJECT

BEGIN = """
import os, pathlib, signal, sys, leftovers, temporary_files
temporary_files.MEMORY = pathlib.Path(sys.argv[1])  # as if there was none
leftovers.watch()
temporary_files.begin()
for number in range(20_000):
    open(f"{os.environ['TMPDIR']}/{number}", "w").close()
print(os.environ["TMPDIR"], flush=True)
"""


def begin(folder: Path, end: str) -> Path:
    """Let a process that has a folder end; return the folder."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1] / PROJECT / "tests")]
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop(leftovers.mark(os.getpid()), None)  # or the end of this test would delete for it
    command = [sys.executable, "-c", BEGIN + end, str(folder / "nowhere")]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode in (0, -signal.SIGKILL)
    return Path(done.stdout.strip())


def is_there(folder: Path) -> bool:
    """Whether a folder is there after what deletes folders has had time enough."""
    patience = time.monotonic() + 60
    while folder.exists() and time.monotonic() < patience:
        time.sleep(0.05)
    return folder.exists()


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_folder_goes_with_all_that_is_in_it_however_the_tests_end(end: str, tmp_path: Path) -> None:
    folder = begin(tmp_path, end)
    assert folder.parent == tmp_path
    assert not is_there(folder)


def test_a_folder_that_is_kept_goes_when_the_next_tests_begin(tmp_path: Path) -> None:
    kept = begin(tmp_path, "temporary_files.keep()")
    assert len(list(kept.iterdir())) == 20_000
    assert not is_there(begin(tmp_path, ""))
    assert not kept.exists()


@pytest.mark.skipif(not hasattr(os, "ST_NOEXEC"), reason="files lie in memory on Linux only")
def test_in_memory_only_where_there_is_room_and_programs_may_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary_files, "MEMORY", tmp_path)
    monkeypatch.setattr(temporary_files, "OF_THE_CONTAINER", tmp_path / "memory.max")
    monkeypatch.setattr(temporary_files, "FREE", 0)
    monkeypatch.setattr(temporary_files, "ROOM", 0)
    assert temporary_files.has_memory()
    monkeypatch.setattr(temporary_files, "FREE", 2**60)
    assert not temporary_files.has_memory()
    monkeypatch.setattr(temporary_files, "FREE", 1)
    (tmp_path / "memory.max").write_text("0\n")
    assert not temporary_files.has_memory()
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(temporary_files, "ROOM", 2**60)
    assert not temporary_files.has_memory()
    monkeypatch.setattr(temporary_files, "ROOM", 0)
    assert temporary_files.has_memory()
    real = os.statvfs(tmp_path)
    sizes = {name: getattr(real, name) for name in ("f_frsize", "f_blocks", "f_bfree", "f_bavail")}
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**sizes, f_flag=os.ST_NOEXEC))
    assert not temporary_files.has_memory()
