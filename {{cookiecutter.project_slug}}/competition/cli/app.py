"""The command line: one verb a stage, in the order one uses them; the files beside this one say what each does.

Verbs import what they need when they run, so that --help is quick.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from competition.cli.data_verbs import check, folds, sample
from competition.cli.prediction_verbs import predict, pseudo, submit, tune
from competition.cli.run_verbs import replay, runs
from competition.cli.training_verbs import run, train
from competition.support.atomic_files import why_not_written
from competition.support.errors import CompetitionError, StoppedError
from competition.support.optional_rooms import ROOMS, has_room

QUIET = "--quiet"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def options(
    quiet: Annotated[bool, typer.Option(QUIET, help="No progress bars; it may stand behind the verb, too.")] = False,
) -> None:
    """From a csv file to a valid submission: sample, check, folds, train, tune, predict, submit; run is all."""
    if quiet:
        from competition.support import progress

        os.environ[progress.QUIET] = "1"


STAGES = (sample, check, folds, train, tune, predict, submit, run, pseudo, runs, replay)
# In the order one uses them; verbs of rooms that were taken out are not there.
ORDER = (
    *("sample", "download", "check", "folds", "train", "tune", "predict", "submit", "bundle", "report", "run"),
    *("pseudo", "runs", "replay", "push", "scores"),
)
OF_ROOMS = [verb for room in ROOMS if has_room(room) for verb in import_module(f"competition.{room}.verbs").VERBS]
for verb in sorted([*STAGES, *OF_ROOMS], key=lambda verb: ORDER.index(verb.__name__)):
    app.command()(verb)


def main() -> None:
    """Run a verb: exit 0 when done, 1 with one line a fault for a user's mistake, 2 for a wrong command line.

    Also 3 when a training's time was over, and 128 + number for a signal: it is saved and can go on. Ctrl-C elsewhere
    is told by __main__.py.
    """
    words = sys.argv[1:]
    try:
        try:
            app([word for word in [QUIET] if word in words] + [word for word in words if word != QUIET])
        finally:
            sys.stdout.flush()  # a full disk, or a pipe that nobody reads, shows here
    except CompetitionError as error:
        print(_first_cause(str(error)), file=sys.stderr, flush=True)
        sys.exit(1)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr, flush=True)
        sys.exit(stopped.status)
    except OSError as error:
        if error.errno is None:  # of a library that has no number for it: not the system's
            raise
        _let_go_of_output()
        print(_of_system(error), file=sys.stderr, flush=True)
        sys.exit(1)


def _of_system(error: OSError) -> str:
    """Say in a line what the system refused and where: a full disk, a folder that is read-only, ..."""
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes | os.PathLike) else None
    return f"{path or 'output'}: cannot be used {why_not_written(error, path or Path.cwd() / 'output')}"


def _let_go_of_output() -> None:
    """What could not be written would be tried once more when Python ends, and fail with a message of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _first_cause(message: str) -> str:
    """Cut away the traceback that a data loader's worker wraps around the message."""
    return message.rpartition("CompetitionError: ")[2].strip() if "DataLoader worker" in message else message
