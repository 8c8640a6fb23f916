"""Nothing that a test has started outlives it, nor the tests themselves, however those end.

What is started inherits a mark in its environment, by which it is found again. Run as a script, this file waits for the
end of a process of tests: python tests/leftovers.py PID
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Set
from pathlib import Path

PROCESSES = Path("/proc")  # where there is none, as on a Mac, nothing is found
KERNEL_THREAD = 0x00200000  # PF_KTHREAD among the flags of a process
YOUNG = 1.0  # seconds, a thousand times what it takes to show an environment


def mark(owner: int) -> str:
    """Return the name of a variable that all have which the tests of a process have started."""
    return f"STARTED_BY_TESTS_{owner}"


def watch() -> subprocess.Popen[bytes]:
    """Mark what this process starts from now on, and have it ended when this one has ended."""
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    null = subprocess.DEVNULL
    watching = subprocess.Popen(command, start_new_session=True, stdin=null, stdout=null, stderr=null)
    os.environ[mark(os.getpid())] = "1"
    return watching


def running() -> set[str]:
    """Return the ids of all processes."""
    return {path.name for path in PROCESSES.iterdir() if path.name.isdecimal()} if PROCESSES.is_dir() else set()


def _read(process: str, name: str) -> bytes:
    try:
        return (PROCESSES / process / name).read_bytes()
    except OSError:  # it has ended, or is another user's
        return b""


def _begins(process: str) -> bool:
    """Whether a process that had no environment to show is about to turn into another program, or has just done so: who
    shows words, has long done so and still has no environment has none, or is another user's."""
    state, *numbers = _read(process, "stat").rpartition(b")")[2].split() or [b"X"]
    if state in (b"Z", b"X") or int(numbers[5]) & KERNEL_THREAD:
        return False
    if not _read(process, "cmdline") or _age(int(numbers[18])) < YOUNG:
        return True
    return bool(_read(process, "environ"))


def _age(started: int) -> float:
    """Return the seconds since a process was started, of which `stat` has ticks of a clock."""
    return float(_read("", "uptime").split()[0]) - started / os.sysconf("SC_CLK_TCK")


def end(owner: int, before: Set[str] = frozenset()) -> None:
    """End what the tests of a process have started, and what that has, but for those that ran before."""
    patience = time.monotonic() + 20
    sign = f"{mark(owner)}=".encode()
    seen: Set[str] = frozenset()
    while True:
        others = running() - before
        # Each is read once, and judged by that: one that turns into another program shows nothing at one moment, and
        # what it is at the next.
        shown = {process: _read(process, "environ") for process in others}
        found = [process for process, environment in shown.items() if sign in environment]
        begun = [process for process, environment in shown.items() if not environment and _begins(process)]
        # One that was listed and has ended since may have started another, which the next list has.
        if not found and not begun and others <= seen:
            return
        for process in found:
            try:
                os.kill(int(process), signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > patience:
            if not found:
                return
            raise TimeoutError(f"cannot be ended: {found}")
        seen = others
        time.sleep(0.01)


if __name__ == "__main__":
    tests = int(sys.argv[1])
    while os.getppid() == tests:
        time.sleep(1)
    end(tests)
