"""What a job of SLURM's does: a verb, which goes on in the same job when it was stopped before its end. No torch."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from competition.support.errors import StoppedError
from competition.support.processes import last_line

# SLURM sends SIGUSR1 some time before a job's time is over (`--signal`) or it is preempted, SIGTERM before it ends one.
TOLD = (signal.SIGUSR1, signal.SIGTERM)
MOST_STARTS = 3  # of a job that saves nothing before it is stopped: its time is too short


@dataclass(frozen=True)
class SlurmJob:
    """A verb with its words. submitit hands it over as it is, so that no shell reads what quotes a word has."""

    name: str
    words: list[str]
    log: Path
    saved: Path  # what the verb writes when it stops in good order
    on_many: bool = False  # on several machines, where SLURM starts each process and Lightning reads what it says

    def __call__(self) -> None:
        """Run the verb; stopped in good order it goes on in the same job, later. Else the job fails, with one line.

        SLURM's signals reach the verb, too: it saves and ends. This process only has to outlive it.
        """
        for number in (*TOLD, signal.SIGCONT):
            signal.signal(number, _outlive)
        before = _version(self.saved)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "competition", *self.words]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self._environment())
            status = process.wait()
        is_first = os.environ.get("SLURM_PROCID", "0") == "0"
        if _is_stopped(status) and not is_first:
            return  # the first process of a job says what becomes of it
        if _is_stopped(status) and _is_ended_by_slurm(status):
            sys.exit(f"{self.name}: SLURM ends job {os.environ['SLURM_JOB_ID']}: {last_line(self.log)}")
        if _is_stopped(status):
            self._go_on_later(status, got_on=_version(self.saved) != before)
        if status:
            sys.exit(
                f"{self.name}: `competition {self.words[0]}` ended before its end (exit {status}): "
                f"{last_line(self.log)}; what was to follow it is stopped; {self._way_on}"
            )

    @property
    def _way_on(self) -> str:
        return f"the same `competition {'sweep' if self.words[0] == 'sweep' else 'run'} --slurm` goes on"

    def _environment(self) -> dict[str, str]:
        """On one machine Lightning starts the processes, as without SLURM: a single one does not look like a job."""
        alone = () if self.on_many else ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE")
        return {name: value for name, value in os.environ.items() if name not in alone}

    def _go_on_later(self, status: int, *, got_on: bool) -> NoReturn:
        starts = int(os.environ.get("SLURM_RESTART_COUNT", "0")) + 1
        if not got_on and starts >= MOST_STARTS:
            sys.exit(
                f"{self.name}: stopped (exit {status}) {starts} times, this time before anything was saved: give it "
                "more time (slurm.time, trainer.max_time); what was to follow it is stopped"
            )
        job = os.environ["SLURM_JOB_ID"]
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            sys.exit(
                f"{self.name}: stopped (exit {status}) and saved, but job {job} cannot wait again "
                f"({' '.join(done.stderr.split())[:200]}); {self._way_on}"
            )
        print(f"{self.name}: stopped (exit {status}); job {job} waits again, to go on", flush=True)
        sys.exit(0)


def _outlive(number: int, frame: FrameType | None) -> None:
    """Wait for the verb's end, which the signal reaches as well."""


def _is_stopped(status: int) -> bool:
    """Return whether a verb was stopped: its time was over, or a signal came, before it listened or after."""
    return status == StoppedError.TIME_LIMIT or any(status in (128 + number, -number) for number in TOLD)


def _is_ended_by_slurm(status: int) -> bool:
    """Return whether SLURM ends the job itself: cancelled it is not to go on, and one that is requeued does.

    SLURM also sends SIGTERM to a job that it lets run for some time before it is preempted.
    """
    if status not in (128 + signal.SIGTERM, -signal.SIGTERM):
        return False
    command = ["squeue", "--noheader", f"--jobs={os.environ['SLURM_JOB_ID']}", "--format=%T"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip() != "RUNNING"


def _version(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None
