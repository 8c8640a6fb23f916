"""Verbs as processes of their own, one after the other or several at a time, stopped together and in good order."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from competition.support.errors import STOP_SIGNALS, CompetitionError, StoppedError

PASSED_ON = [number for number in STOP_SIGNALS if number != signal.SIGINT]


@dataclass(frozen=True)
class Job:
    """A verb with its words; where several go on at a time, each writes what it says to its log."""

    name: str
    words: list[str]
    log: Path
    late_words: Callable[[], list[str]] = list  # further ones, which are known when it starts


def run_jobs(jobs: list[Job], parallel: int = 1, announce: Callable[[Job], None] = lambda job: None) -> None:
    """Run jobs in order, at most `parallel` at a time.

    Raises CompetitionError if one fails (those running end first, none is begun), StoppedError with its exit status if
    one stopped in good order, to go on later.
    """
    waiting, running = list(jobs), list[tuple[Job, subprocess.Popen[bytes]]]()
    ended: dict[str, int] = {}
    with _passing_on_signals(running) as asked:
        while running or (waiting and not asked and not any(ended.values())):
            while waiting and len(running) < max(parallel, 1) and not asked and not any(ended.values()):
                job = waiting.pop(0)
                announce(job)
                running.append((job, _start(job, to_log=parallel > 1)))
            job, process = _first_ended(running)
            running.remove((job, process))
            ended[job.name] = process.returncode
            if parallel > 1:
                print(f"{job.name}: {last_line(job.log)}", flush=True)
    for name, status in ended.items():
        _raise_on(status, next(job for job in jobs if job.name == name), parallel)


def _start(job: Job, *, to_log: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "competition", *job.words, *job.late_words()]
    if not to_log:
        return subprocess.Popen(command)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def _first_ended(running: list[tuple[Job, subprocess.Popen[bytes]]]) -> tuple[Job, subprocess.Popen[bytes]]:
    if len(running) == 1:
        running[0][1].wait()
    while True:
        for job, process in running:
            if process.poll() is not None:
                return job, process
        time.sleep(0.2)


@contextmanager
def _passing_on_signals(running: list[tuple[Job, subprocess.Popen[bytes]]]) -> Generator[list[int]]:
    """Pass on a scheduler's signals. Ctrl-C reaches the processes by itself and must not end this one before them."""
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for _, process in running:
            if number != signal.SIGINT and process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in [*PASSED_ON, signal.SIGINT]}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_on(status: int, job: Job, parallel: int) -> None:
    # Popen says -2 of a process that a signal ended at once, before it could save.
    status = 128 - status if -status in STOP_SIGNALS else status
    if status == StoppedError.TIME_LIMIT or status > 128:
        raise StoppedError("stopped; the same line goes on where it was", status)
    if status:
        where = f"see {job.log}" if parallel > 1 else "see above"
        raise CompetitionError(f"`competition {job.words[0]}` failed (exit {status}); {where}")


def last_line(log: Path) -> str:
    """Return the last line that a verb has written to its log."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "said nothing"
