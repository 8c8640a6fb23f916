"""Verbs as processes of their own, one after the other or several at a time, stopped together and in good order."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from competition.support.errors import STOP_SIGNALS, CompetitionError, StoppedError
from competition.support.machine import Share

PASSED_ON = [number for number in STOP_SIGNALS if number != signal.SIGINT]
SECONDS = 0.2  # between two looks at what goes on
GO_ON = "stopped; the same line goes on where it was"


@dataclass(frozen=True)
class Job:
    """A verb with its words; where several go on at a time, each writes what it says to its log."""

    name: str
    words: list[str]
    log: Path
    late_words: Callable[[], list[str]] = list  # further ones, which are known when it starts


@dataclass(frozen=True)
class Running:
    """A job that has been started, and the GPUs that are its own."""

    job: Job
    process: subprocess.Popen[bytes]
    gpus: list[str]


@dataclass
class Crew:
    """Jobs that go on at the same time, each with its share of the machine, which is free again when it has ended."""

    share: Share
    running: list[Running] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)  # signals that have come: nothing new is to begin

    def has_room(self) -> bool:
        """Return whether one more may begin."""
        return len(self.running) < max(self.share.parallel, 1) and not self.asked

    def start(self, job: Job, *, to_log: bool) -> Running:
        """Begin a job."""
        gpus = self.share.take()
        command = [sys.executable, "-m", "competition", *job.words, *job.late_words()]
        environment = os.environ | self.share.environment(gpus)
        if to_log:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("ab") as log:
                process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        else:
            process = subprocess.Popen(command, env=environment)
        self.running.append(Running(job, process, gpus))
        for number in self.asked:  # what came, Ctrl-C too, before there was a process that it could reach
            process.send_signal(number)
        return self.running[-1]

    def ended(self) -> list[Running]:
        """Return those that have ended since the last look, however they did."""
        found = [one for one in self.running if one.process.poll() is not None]
        for one in found:
            self.running.remove(one)
            self.share.gpus.give_back(one.gpus)
        return found

    def wait(self) -> list[Running]:
        """Return what has ended as soon as something has."""
        if len(self.running) == 1:
            self.running[0].process.wait()
        while not (found := self.ended()):
            time.sleep(SECONDS)
        return found

    @contextmanager
    def passing_on_signals(self) -> Generator[None]:
        """Pass on a scheduler's signals. Ctrl-C reaches the processes by itself and must not end this one before
        them."""

        def pass_on(number: int, frame: FrameType | None) -> None:
            self.asked.append(number)
            for one in self.running:
                if number != signal.SIGINT and one.process.poll() is None:
                    one.process.send_signal(number)

        before = {number: signal.signal(number, pass_on) for number in [*PASSED_ON, signal.SIGINT]}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_jobs(jobs: list[Job], announce: Callable[[Job], None] = lambda job: None, share: Share | None = None) -> None:
    """Run jobs in order, as many at a time as share the machine; else one after the other.

    Raises CompetitionError if one fails (those running end first, none is begun), StoppedError with its exit status if
    one stopped in good order, to go on later, or with a signal's that came as they ended.
    """
    crew = Crew(share or Share())
    waiting, to_log, statuses = list(jobs), crew.share.parallel > 1, dict[str, int]()
    with crew.passing_on_signals():
        while crew.running or (waiting and not crew.asked and not any(statuses.values())):
            while waiting and crew.has_room() and not any(statuses.values()):
                job = waiting.pop(0)
                announce(job)
                crew.start(job, to_log=to_log)
            for one in crew.wait():
                statuses[one.job.name] = one.process.returncode
                if to_log:
                    print(f"{one.job.name}: {last_line(one.job.log)}", flush=True)
    for name, status in statuses.items():
        _raise_on(status, next(job for job in jobs if job.name == name), to_log=to_log)
    if crew.asked:  # as the last one ended well
        raise StoppedError(GO_ON, 128 + crew.asked[0])


def exit_status(returncode: int) -> int:
    """Return a process's exit status as a shell has it: Popen says -2 of one that a signal ended before it saved."""
    return 128 - returncode if -returncode in STOP_SIGNALS else returncode


def has_stopped(status: int) -> bool:
    """Return whether an exit status is that of a process that was asked to stop and can go on."""
    return status == StoppedError.TIME_LIMIT or status > 128


def _raise_on(returncode: int, job: Job, *, to_log: bool) -> None:
    status = exit_status(returncode)
    if has_stopped(status):
        raise StoppedError(GO_ON, status)
    if status:
        where = f"see {job.log}" if to_log else "see above"
        raise CompetitionError(f"`competition {job.words[0]}` failed (exit {status}); {where}")


def last_line(log: Path) -> str:
    """Return what a job has said last."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "said nothing"
