"""The folder that tests and all they start have for temporary files: in memory where there is much, as a tenth of the
time would go into writing them to a disk. It goes when the tests end, however they do, but for what failed.

Run as a script, this file waits for the end of standard input, and then deletes: python tests/temporary_files.py FOLDER
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM, FREE = 2**32, 10 * 2**30  # bytes: twice what lies there at once; and that with all processes
NAME = "tests-of-the-template"
OF_THE_SYSTEM, OF_THE_CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
DELETING: list[subprocess.Popen[str]] = []


def begin() -> None:
    """Make the folder, and begin to wait for the end of this process; delete what failed before."""
    import leftovers  # is not to be found by what runs this file as a script

    environment = dict(os.environ)
    environment.pop(leftovers.mark(os.getpid()), None)  # what the tests have started is killed when they end
    place = MEMORY if has_memory() else Path(tempfile.gettempdir())
    for folder in place.glob(f"{NAME}.*"):
        if not is_in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"{NAME}.{os.getpid()}.", dir=place)
    os.environ["TMPDIR"], tempfile.tempdir = folder, None
    command = [sys.executable, "-IS", __file__, folder]
    waits = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True, env=environment)
    DELETING.append(waits)


def has_memory() -> bool:
    """Whether files may lie in memory, and programs among them be started."""
    try:
        if shutil.disk_usage(MEMORY).free < ROOM or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
            return False
        if (
            OF_THE_CONTAINER.exists()
            and (most := OF_THE_CONTAINER.read_text().strip()).isdecimal()
            and int(most) < FREE
        ):
            return False
        (free,) = (line for line in OF_THE_SYSTEM.read_text().splitlines() if line.startswith("MemAvailable"))
    except (OSError, ValueError):
        return False
    return int(free.split()[1]) * 1024 > FREE


def is_in_use(folder: Path) -> bool:
    """Whether the tests that write to a folder go on, or are another user's."""
    try:
        os.kill(int(folder.name.split(".")[1]), 0)
    except ProcessLookupError:
        return False
    except (ValueError, IndexError, PermissionError):
        return True
    return True


def keep() -> str:
    """Let the folder stay when this process ends; return its path, or nothing where there is none."""
    for waits in DELETING:
        waits.communicate("stay")
    return tempfile.gettempdir() if DELETING else ""


if __name__ == "__main__":
    path = Path(sys.argv[1])
    while not sys.stdin.read() and path.exists():  # to the end at once from the second time on
        shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.1)  # what the tests have started may write for another moment
