"""The command line: one verb a stage, in the order one uses them; the files beside this one say what each does.

Verbs import what they need when they run, so that --help is quick.
"""

import os
import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from competition.cli.data_verbs import check, folds, sample
from competition.cli.prediction_verbs import crops, maps, predict, pseudo, stack, submit, tune
from competition.cli.run_verbs import replay, runs
from competition.cli.training_verbs import run, train
from competition.support.atomic_files import why_not_written
from competition.support.errors import CompetitionError, StoppedError, is_interrupt
from competition.support.optional_rooms import ROOMS, has_room
from competition.support.telling import JSON, as_json, refuse_json, told

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
    json: Annotated[
        bool, typer.Option(JSON, help="One JSON object on standard output: check, tune, submit, runs, scores.")
    ] = False,
) -> None:
    """From a csv file to a valid submission: sample, check, folds, train, tune, predict, submit; run is all."""
    if quiet:
        from competition.support import progress

        os.environ[progress.QUIET] = "1"


STAGES = (sample, check, folds, train, tune, predict, submit, stack, run, pseudo, crops, maps, runs, replay)
# In the order one uses them; verbs of rooms that were taken out are not there.
ORDER = (
    *("sample", "download", "unpack", "check", "folds", "train", "tune", "predict", "submit", "stack"),
    *("bundle", "report", "run", "sweep", "pseudo", "crops", "maps", "runs", "replay", "push", "fetch", "scores"),
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
    if other := _other_repo():
        print(other, file=sys.stderr, flush=True)
    if JSON not in words:
        status, said = _run(words)
        if said:
            print(said, file=sys.stderr, flush=True)
        sys.exit(status)
    words = [word for word in words if word != JSON]
    told.clear()
    verb = next((word for word in words if not word.startswith("-")), "")
    with redirect_stdout(sys.stderr):  # what people read
        status, said = _run(words, verb)
    print(as_json(verb, status, said or ("see standard error" if status else "")), flush=True)
    sys.exit(status)


def _other_repo() -> str:
    """Say so where the folder has a package of its own, and it is another repo's that answers."""
    own, running = Path("competition", "__init__.py"), Path(__file__).parents[1]
    if not own.is_file() or own.parent.resolve() == running.resolve():
        return ""
    return f"this is the competition of {running.parent}; that of this folder is `python -m competition`"


def _run(words: list[str], json_of: str | None = None) -> tuple[int, str]:
    """Run a verb, whose object is asked for where it is named; return the exit status and what is wrong."""
    try:
        try:
            if json_of is not None:
                refuse_json(json_of)
            app([word for word in [QUIET] if word in words] + [word for word in words if word != QUIET])
        finally:
            sys.stdout.flush()  # a full disk, or a pipe that nobody reads, shows here
    except CompetitionError as error:
        return 1, _first_cause(str(error))
    except StoppedError as stopped:
        return stopped.status, str(stopped)
    except SystemExit as ended:  # typer's own way to end
        if json_of is None or is_interrupt(ended) or not isinstance(ended.code, int | None):
            raise
        return ended.code or 0, ""
    except OSError as error:
        if error.errno is None:  # of a library that has no number for it: not the system's
            raise
        _let_go_of_output()
        return 1, _of_system(error)
    return 0, ""


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
