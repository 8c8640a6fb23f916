"""Verbs that talk to Kaggle."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from competition.config.arguments import CompetitionName, Message, split
from competition.support.errors import CompetitionError
from competition.support.on_kaggle import T4
from competition.support.optional_rooms import refuse_without_room
from competition.support.telling import numbers, tell


def download(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[CONFIG]... [KEY=VALUE]...", help="Config files, then values.")
    ] = None,
    competition: CompetitionName = None,
) -> None:
    """Download the competition's files from Kaggle."""
    from competition.kaggle.download import download as download_files

    print("\n".join(download_files(*split(words or []), competition)))


def unpack(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder of the competition's files.")] = Path(
        "data"
    ),
) -> None:
    """Unpack the archives in a folder of a competition's files, each beside itself."""
    from competition.kaggle.download import unpack_folder

    print("\n".join(unpack_folder(folder)))


def push(
    words: Annotated[
        list[str],
        typer.Argument(metavar="RUN | CONFIG... [KEY=VALUE]...", help="A run; with --train a config, then values."),
    ],
    train: Annotated[bool, typer.Option("--train", help="Train the config there, for hours, on its GPUs.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Of --train: show what it says until it ends.")] = False,
    accelerator: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Kaggle's name of the machine; else {T4}, which are two.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(metavar="OWNER/NAME", help="Of --train: one more input; may stand repeatedly.")
    ] = None,
    message: Message = None,
    competition: CompetitionName = None,
) -> None:
    """Send a run's bundle and its notebook to Kaggle; with --train CONFIG train there, and go on when pushed again."""
    if train:
        if message:
            raise CompetitionError("--message: is of a bundle's version, and --train sends none; leave it out")
        from competition.kaggle.training import push_training

        notebook, lines = push_training(*split(words), accelerator, competition, dataset or [])
        print("\n".join(lines), flush=True)
        if follow:
            _follow(notebook)
        return
    if follow or dataset or competition or len(words) != 1:
        raise CompetitionError(
            f"push {' '.join(words)}: expected one run; --follow, --dataset and --competition are of --train CONFIG"
        )
    refuse_without_room("bundle", "push RUN")
    from competition.kaggle.push import push as push_bundle

    print("\n".join(push_bundle(words[0], message, accelerator)))


def _follow(notebook: str) -> None:
    """Show a session's log; Ctrl-C ends the showing alone."""
    from competition.kaggle.api import KaggleService

    log = KaggleService().follow_notebook(notebook)
    while True:
        try:
            print(next(log), flush=True)
        except StopIteration as ended:
            print(f"{notebook}: {ended.value}")
            return


def fetch(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of a run that was pushed with --train.")],
    competition: CompetitionName = None,
) -> None:
    """Bring what a training on Kaggle left into outputs/, whether it is finished or its time was over."""
    from competition.kaggle.fetch import fetch as fetch_run

    print("\n".join(fetch_run(run, competition)))


def scores(competition: CompetitionName = None) -> None:
    """Ask Kaggle for public scores: writes outputs/scores.csv, and those of runs into outputs/runs.csv."""
    from competition.comparison.update_ledger import take_public_scores
    from competition.kaggle.send_submission import describe_scores, update_scores

    rows = update_scores(competition)
    take_public_scores(rows)
    tell(describe_scores(rows), submissions=[numbers(asdict(row), ("public_score", "private_score")) for row in rows])


VERBS = (download, unpack, push, fetch, scores)
