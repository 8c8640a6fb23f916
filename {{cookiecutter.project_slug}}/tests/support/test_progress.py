"""Progress bars are for somebody who looks at a terminal and has not asked for quiet."""

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from competition.support.progress import QUIET, progress

LONG_WORK = (
    "from competition.support import progress\n"
    "progress.SECONDS = 0.0\n"
    "assert list(progress.progress(range(5), 'counting sheep')) == [0, 1, 2, 3, 4]\n"
)


def drawn(project: Path, code: str, **environment: str) -> str:
    """Run Python code with a terminal as its standard error; return what was written there."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    environment = os.environ | {"PYTHONPATH": str(project)} | environment
    done = subprocess.run([sys.executable, "-c", code], env=environment, stderr=theirs, check=False)
    os.close(theirs)
    written = b""
    try:
        while block := os.read(ours, 4096):
            written += block
    except OSError:  # Linux says so at the end of a terminal
        pass
    os.close(ours)
    assert done.returncode == 0, written
    return written.decode()


def test_a_terminal_gets_a_bar_unless_the_user_wants_quiet(project: Path) -> None:
    assert "counting sheep" in drawn(project, LONG_WORK)
    assert drawn(project, LONG_WORK, **{QUIET: "1"}) == ""


def test_what_is_done_at_once_gets_no_bar(project: Path) -> None:
    assert "counting" not in drawn(project, LONG_WORK.replace("progress.SECONDS = 0.0\n", ""))


def test_a_log_gets_no_bar(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("competition.support.progress.SECONDS", 0.0)
    assert list(progress(range(5), "counting sheep")) == [0, 1, 2, 3, 4]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("place", [0, 1, 2])
def test_quiet_may_stand_anywhere_and_reaches_the_processes_of_a_run(
    place: int, command: Callable[..., CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(QUIET, "")
    words = ["tune", "nothing"]
    words.insert(place, "--quiet")
    assert command(*words).stderr.startswith("outputs/nothing: no such run")  # the verb was found and did its work
    assert os.environ[QUIET] == "1"
