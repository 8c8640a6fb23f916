"""What a test started is ended: by the test's end, or by that of all tests, be it by kill -9."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import leftovers
import pytest

pytestmark = pytest.mark.skipif(not leftovers.PROCESSES.is_dir(), reason="this system does not list processes as files")

KILLED = """
import os, signal, subprocess, leftovers
leftovers.watch()
print(subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_test_left_is_ended_and_what_ran_before_is_not() -> None:
    first = subprocess.Popen(["sleep", "600"], start_new_session=True)
    before = leftovers.running()
    second = subprocess.Popen(["sh", "-c", "sleep 600 & exec sleep 600"], start_new_session=True)
    leftovers.end(os.getpid(), before)
    assert second.wait(timeout=120) == -signal.SIGKILL
    assert first.poll() is None
    leftovers.end(os.getpid(), before - {str(first.pid)})
    assert first.wait(timeout=120) == -signal.SIGKILL


def test_what_turns_into_another_program_while_it_is_looked_at_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    before = leftovers.running()
    begun = subprocess.Popen(["sleep", "600"], start_new_session=True)
    read, turning = leftovers._read, [str(begun.pid)]

    def shows_nothing_at_first(process: str, name: str) -> bytes:
        if name == "environ" and process in turning:
            turning.remove(process)
            return b""
        return read(process, name)

    monkeypatch.setattr(leftovers, "_read", shows_nothing_at_first)
    monkeypatch.setattr(leftovers, "YOUNG", 0)  # as if it ran for long
    leftovers.end(os.getpid(), before)
    assert not turning
    assert begun.wait(timeout=120) == -signal.SIGKILL


def test_what_one_that_has_ended_meanwhile_started_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    before, running = leftovers.running(), leftovers.running
    parent = subprocess.Popen(["true"])
    parent.wait()
    begun = subprocess.Popen(["sleep", "600"], start_new_session=True)
    lists = [before | {str(parent.pid)}]  # what was listed before the one it started was there
    monkeypatch.setattr(leftovers, "running", lambda: lists.pop() if lists else running())
    leftovers.end(os.getpid(), before)
    assert begun.wait(timeout=120) == -signal.SIGKILL


def test_what_begins_is_waited_for_until_it_shows_what_it_is() -> None:
    begun = subprocess.Popen(["sleep", "600"], start_new_session=True, env={})  # that has nothing to show
    try:
        at, before = time.monotonic(), leftovers.running() - {str(begun.pid)}
        leftovers.end(os.getpid(), before)
        assert time.monotonic() - at > leftovers.YOUNG / 2
        assert begun.poll() is None
        assert not leftovers._begins(str(begun.pid))
    finally:
        begun.kill()


def test_what_killed_tests_left_is_ended() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(leftovers.__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    status = leftovers.PROCESSES / done.stdout.strip() / "stat"
    until = time.monotonic() + 120
    while status.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not status.exists()
