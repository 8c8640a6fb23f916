"""Columns of train.csv that a config makes nothing of, though their few values may be classes. No torch."""

from collections.abc import Sequence
from pathlib import Path

from competition.files.csv_file import read_csv, read_header
from competition.files.joined_tables import has_table
from competition.support.errors import CompetitionError

MOST_VALUES = 60  # of a column of classes
MOST_NAMED = 5


def unread_columns(path: Path, used: Sequence[str], way_on: str) -> list[str]:
    """Return a line on the columns beside those that are used whose few values are repeated; none where there are
    none."""
    try:
        others = [name.strip() for name in read_header(path) if name.strip() not in used] if has_table(path) else []
        frame = read_csv(path, [name for name in others if name]) if any(others) else None
    except CompetitionError:  # told where it is read
        return []
    numbers = {} if frame is None else {str(name): frame[name].nunique() for name in frame}
    found = [
        f"{name} ({number} values)"
        for name, number in numbers.items()
        if frame is not None and 1 < number <= min(MOST_VALUES, len(frame) / 2)
    ]
    if not found:
        return []
    named = ", ".join(found[:MOST_NAMED]) + (", ..." if len(found) > MOST_NAMED else "")
    return [f"{path.name}: nothing is made of {named}; {way_on}"]
