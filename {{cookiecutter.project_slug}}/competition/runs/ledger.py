"""`outputs/runs.csv`: a line a run, which survives the deletion of the run's folder. No torch.

`competition run`, `train`, `tune`, `predict` and `submit` bring a run's line up to date as they finish. Whole at every
moment, and safe when several processes write at once. Columns of the user's own, as `notes`, are kept.
"""

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from filelock import FileLock

from competition.support.atomic_files import is_number, write_csv
from competition.support.errors import CompetitionError
from competition.support.paths import here

RETIRED = "~"  # stands in no run's name: `t~1` is what `t` was before its folder was deleted and it was trained again
BY_HAND = "given by hand: not scored"  # `thresholds` of a submission that no scores are of
EDITED = "edited by hand: not scored"  # ... of the next one, until they are put back
UNSCORED = (BY_HAND, EDITED)


@dataclass(frozen=True)
class Line:
    """What is known of a run. All of it is text; empty is what is not known.

    Where the trainings of a run differ (git_commit, data, device, ...) all values stand there, joined by `; `.
    """

    run: str
    parent: str = ""  # the run that `difference` is to; of a blend its sources
    difference: str = ""  # `key: there -> here`, joined by `; `
    started: str = ""  # ISO 8601, UTC
    git_commit: str = ""
    git_dirty: str = ""  # yes: with changes that are not committed
    data: str = ""  # fingerprint of train.csv, names and sizes of the training images
    folds_csv: str = ""  # fingerprint
    seeds: str = ""
    folds: str = ""  # those that are trained
    metric: str = ""
    better: str = ""  # higher or lower
    thresholds: str = ""  # what scores, mean and std are decoded with: see comparison/update_ledger.py
    scores: str = ""  # a fold: `0=0.812345 1=0.790000`
    mean: str = ""
    std: str = ""
    untuned: str = ""  # all folds pooled, without tuning
    tuned: str = ""  # ... by thresholds found on the same images: flatters
    cross_fitted: str = ""  # ... each fold by those found on the others
    seconds: str = ""  # of all trainings together
    memory_mb: str = ""  # the most of any
    device: str = ""
    versions: str = ""
    submission: str = ""  # SHA-256 of submission.csv
    public_score: str = ""  # of that submission
    others: Mapping[str, str] = field(default_factory=dict)  # columns of the user's own

    @property
    def fold_scores(self) -> dict[str, float]:
        """Return the score of each fold by its number; a fold whose score is no number is left out."""
        each = {fold: float(value) for fold, _, value in (word.partition("=") for word in self.scores.split())}
        return {fold: value for fold, value in each.items() if math.isfinite(value)}

    @property
    def sign(self) -> int:
        """Return 1 where a higher score is better, else -1."""
        return -1 if self.better == "lower" else 1

    @property
    def is_retired(self) -> bool:
        """Return whether the name has gone to a later run."""
        return RETIRED in self.run


COLUMNS = tuple(one.name for one in fields(Line) if one.name != "others")
NUMBERS = ("mean", "std", "untuned", "tuned", "cross_fitted", "seconds", "memory_mb", "public_score")


def ledger_path() -> Path:
    """Return the file of all runs of this project."""
    return here().outputs / "runs.csv"


def read_ledger(path: Path) -> dict[str, Line]:
    """Return the lines by run, oldest first; nothing if there is no file yet."""
    if not path.is_file():
        return {}
    try:
        return _read(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise CompetitionError(f"{path}: not a csv file in UTF-8 ({error}); save it as CSV UTF-8") from None


def _read(path: Path) -> dict[str, Line]:
    lines: dict[str, Line] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "run" not in (reader.fieldnames or ()):
            found = ",".join(reader.fieldnames or ())
            raise CompetitionError(f"{path}: found columns {found}, expected run and others; move the file away")
        for row in reader:
            if not any(row.values()):
                continue  # as a spreadsheet leaves them
            line = _line(path, reader.line_num, row)
            if line.run in lines:
                raise CompetitionError(
                    f"{path}: line {reader.line_num}: run {line.run!r} stands there twice; delete one"
                )
            lines[line.run] = line
    return lines


def change_ledger(path: Path, change: Callable[[dict[str, Line]], None]) -> dict[str, Line]:
    """Let `change` work on the lines, which no other process changes meanwhile; write and return them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        lines = read_ledger(path)
        before = list(lines.values())
        change(lines)
        if list(lines.values()) != before:
            _write(path, lines)
    return lines


def retire(lines: dict[str, Line], run: str) -> None:
    """Put the line of a deleted run whose name is used again under another; one that says nothing is dropped."""
    old = lines.pop(run, None)
    if old is None:
        return
    if not (old.mean or old.public_score):
        if any(old.others.values()):  # the user's own words stay with the name
            lines[run] = Line(run, others=old.others)
        return
    number = next(n for n in range(1, len(lines) + 2) if f"{run}{RETIRED}{n}" not in lines)
    lines[f"{run}{RETIRED}{number}"] = replace(old, run=f"{run}{RETIRED}{number}")


def find_line(lines: Mapping[str, Line], run: str) -> Line:
    """Return the line of a run, which may be given as its folder; raise CompetitionError that names the others."""
    name = run if run in lines else Path(run).name
    if name not in lines:
        known = ", ".join(sorted(lines))
        raise CompetitionError(f"{ledger_path()}: has no run {run!r}; runs there: {known or 'none'}")
    return lines[name]


def join_values(*values: str) -> str:
    """Join distinct values, some of which may be joined already, by `; `."""
    return "; ".join(dict.fromkeys(one for value in values for one in value.split("; ") if one))


def _line(path: Path, number: int, row: dict[str, str]) -> Line:
    if not row["run"] or None in row or None in row.values():
        expected = f"expected {len(row) - (None in row)} values with the run's name first"
        raise CompetitionError(f"{path}: line {number}: {expected}; mend or delete the line")
    for name in NUMBERS:
        if row.get(name) and not is_number(row[name]):
            raise CompetitionError(f"{path}: line {number}: {name}: found {row[name]!r}, expected a number")
    own = {name: value for name, value in row.items() if name not in COLUMNS}
    line = Line(**{name: row.get(name, "") for name in COLUMNS}, others=own)
    try:
        _ = line.fold_scores
    except ValueError:
        raise CompetitionError(f"{path}: line {number}: scores: found {line.scores!r}, expected 0=0.8 1=0.7") from None
    return line


def _write(path: Path, lines: Mapping[str, Line]) -> None:
    own = list(dict.fromkeys(name for line in lines.values() for name in line.others))
    rows = (
        [*(getattr(line, name) for name in COLUMNS), *(line.others.get(name, "") for name in own)]
        for line in lines.values()
    )
    # On one line: csv readers take a lone carriage return in a text for the end of the row.
    write_csv(path, [*COLUMNS, *own], ([" ".join(value.split()) for value in row] for row in rows))
