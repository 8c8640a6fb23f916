"""The error a user can cause and cure, and the end of a run that was asked to stop."""

import re
import signal
from dataclasses import dataclass

# SLURM sends SIGUSR1 before a time limit (`--signal=USR1@90`) and SIGTERM before it preempts a job; Windows lacks one.
STOP_SIGNALS = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if name in signal.Signals.__members__]


class CompetitionError(Exception):
    """A mistake in the user's data, config or set-up.

    The message names the file, the row or key, the value found and what was expected, one line a fault.
    The command line prints it without a traceback and exits 1.
    """


class StoppedError(Exception):
    """A run was asked to stop, has saved its state and can go on; `status` is the exit status."""

    TIME_LIMIT = 3  # status of a run whose time was over; a signal gives 128 + its number, as a shell has it

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def is_interrupt(error: BaseException | None) -> bool:
    """Return whether an error is Ctrl-C, or what a library that met it has made of it: an exit, a failed import."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


@dataclass(frozen=True)
class Fault:
    """What a line of a CompetitionError says, for programs; None is what it does not say."""

    message: str
    file: str | None = None
    line: int | None = None
    key: str | None = None
    found: str | None = None
    expected: str | None = None


FILE = re.compile(r"(command line \(.*?\)|[^:]*/[^:]*|[^:\s]+\.(?:yaml|yml|csv|toml|npz|pt|npy|json|safetensors)): ")
LINE = re.compile(r"(?:line |row )(\d+): ")
KEY = re.compile(r"(?:column )?'?(--?[\w-]+|[A-Za-z_][\w.\[\]-]*)'?(?: is missing|: )")
FOUND = re.compile(r"found (.+?)(?:[;,] (?:expected|did you mean|known here)|; |$)|\(value (.+?)\)")
EXPECTED = re.compile(r"(?:expected |did you mean )(.+?)(?:[;,] found .+)?$")


def fault_of(message: str) -> Fault:
    """Take apart a line that is written as `file: line: key: found ...; expected ...`, as those of this project are."""
    rest, parts = message, dict[str, str]()
    for name, pattern in (("file", FILE), ("line", LINE), ("key", KEY)):
        if match := pattern.match(rest):
            parts[name], rest = match[1], rest[match.end() :]
    found, expected = FOUND.search(rest), EXPECTED.search(rest)
    return Fault(
        message,
        parts.get("file"),
        int(parts["line"]) if "line" in parts else None,
        parts.get("key"),
        (found[1] or found[2]) if found else None,
        expected[1].rstrip("?") if expected else None,
    )
