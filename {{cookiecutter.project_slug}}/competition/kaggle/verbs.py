"""Verbs that talk to Kaggle."""

from typing import Annotated

import typer

from competition.config.arguments import CompetitionName, Message, RunName, split
from competition.support.optional_rooms import has_room


def download(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[CONFIG]... [KEY=VALUE]...", help="Config files, then values.")
    ] = None,
    competition: CompetitionName = None,
) -> None:
    """Download the competition's files from Kaggle."""
    from competition.kaggle.download import download as download_files

    print("\n".join(download_files(*split(words or []), competition)))


def push(run: RunName, message: Message = None) -> None:
    """Send a run's bundle and its notebook to Kaggle."""
    from competition.kaggle.push import push as push_bundle

    print("\n".join(push_bundle(run, message)))


def scores(competition: CompetitionName = None) -> None:
    """Ask Kaggle for public scores: writes outputs/scores.csv, and those of runs into outputs/runs.csv."""
    from competition.comparison.update_ledger import take_public_scores
    from competition.kaggle.send_submission import describe_scores, update_scores

    rows = update_scores(competition)
    take_public_scores(rows)
    print("\n".join(describe_scores(rows)))


VERBS = (download, push, scores) if has_room("bundle") else (download, scores)
