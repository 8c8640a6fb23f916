"""`competition submit RUN --kaggle` and `competition scores`: to Kaggle and back. No torch."""

from datetime import UTC, datetime
from pathlib import Path

from competition.kaggle.api import KaggleService, competition_name
from competition.runs.public_scores import PublicScore, remember_scores, scores_path
from competition.support.freshness import sha256

SHOWN = 20  # newest submissions


def send(file: Path, run: str, message: str | None = None, competition: str | None = None) -> str:
    """Send a submission that has been checked, and remember which file of which run it was."""
    name = competition_name(competition)
    message = message or run
    ref = KaggleService().submit(name, file, message)
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    row = PublicScore(ref, now, run, sha256(file), file.name, message)
    remember_scores(scores_path(), [row])
    return f"sent to {name} as submission {ref}; its score comes with `competition scores`"


def update_scores(competition: str | None = None) -> list[PublicScore]:
    """Ask for the scores of the team's submissions, add them to scores.csv and return every row of it."""
    return remember_scores(scores_path(), KaggleService().public_scores(competition_name(competition)))


def describe_scores(rows: list[PublicScore]) -> list[str]:
    """Return a table of the newest submissions, newest first."""
    if not rows:
        return ["no submission yet"]
    head = ("ref", "date", "run", "public", "private", "message")
    body = [
        (
            str(row.ref),
            row.date[:16],
            row.run or "-",
            row.public_score or row.status,
            row.private_score or "-",
            " ".join((row.error or row.message).split()),
        )
        for row in rows[: -SHOWN - 1 : -1]
    ]
    widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *body)
    ]
    return [*table, f"all {len(rows)} in {scores_path()}"]
