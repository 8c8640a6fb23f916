"""`outputs/scores.csv`: what was sent to Kaggle, and the score that came back. No torch.

A row a submission, found again by Kaggle's number for it (`ref`). Those that were sent from here also name their run
and the SHA-256 of the file, by which a run's own submission.csv is told from a later one of the same name.
"""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from filelock import FileLock

from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.support.freshness import sha256
from competition.support.paths import here


@dataclass(frozen=True)
class PublicScore:
    """One submission as Kaggle has it. Scores are text, as they came: empty until there is one."""

    ref: int  # Kaggle's number
    date: str = ""  # ISO 8601, UTC
    run: str = ""  # empty: sent from elsewhere
    sha256: str = ""
    file: str = ""
    message: str = ""
    status: str = "pending"  # or complete, error
    public_score: str = ""
    private_score: str = ""
    error: str = ""


COLUMNS = tuple(field.name for field in fields(PublicScore))


def scores_path() -> Path:
    """Return the file of all submissions of this project."""
    return here().outputs / "scores.csv"


def read_scores(path: Path) -> list[PublicScore]:
    """Return what is known of every submission, oldest first; nothing if there is no file yet."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise CompetitionError(
                f"{path}: found columns {','.join(reader.fieldnames or ())}, expected {','.join(COLUMNS)}; move it "
                "away and run `competition scores`"
            )
        try:
            return [PublicScore(**{**row, "ref": int(row["ref"])}) for row in reader]  # ty: ignore[invalid-argument-type]
        except (TypeError, ValueError):
            raise CompetitionError(
                f"{path}: line {reader.line_num}: expected {len(COLUMNS)} values with a number first; delete the line"
            ) from None


def remember_scores(path: Path, found: Iterable[PublicScore]) -> list[PublicScore]:
    """Add submissions to the file, or bring their rows up to date, and return all rows, oldest first.

    Whole at every moment, and safe when several processes write at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        known = {row.ref: row for row in read_scores(path)}
        for row in found:
            old = known.get(row.ref)
            known[row.ref] = (
                row if old is None else replace(row, run=row.run or old.run, sha256=row.sha256 or old.sha256)
            )
        rows = sorted(known.values(), key=lambda row: (row.date, row.ref))
        # On one line: csv readers take a lone carriage return in a message for the end of the row.
        write_csv(path, COLUMNS, ([" ".join(str(value).split()) for value in asdict(row).values()] for row in rows))
    return rows


def score_of_file(rows: Iterable[PublicScore], file: Path) -> str | None:
    """Return the public score of exactly this submission file, None if it was not sent or has none yet."""
    if not file.is_file():
        return None
    sum_of_file = sha256(file)
    return next((row.public_score for row in rows if row.sha256 == sum_of_file and row.public_score), None)
