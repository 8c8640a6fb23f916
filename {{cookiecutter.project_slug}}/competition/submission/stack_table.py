"""stack.csv: what a stack scores out of fold, cross-fitted, beside its runs and their equal average. No torch."""

from collections.abc import Mapping
from pathlib import Path

from competition.scoring.out_of_fold import describe_scores
from competition.support.atomic_files import read_rows, write_csv

TABLE = "stack.csv"
OWN, EQUAL = "the stack, cross-fitted", "their equal average"


def write_scores(folder: Path, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Write a row a run, one of their equal average and one of the stack."""
    metrics = list(next(iter(scores.values())))
    rows = ([name, *(f"{each[metric]:.6f}" for metric in metrics)] for name, each in scores.items())
    write_csv(folder / TABLE, ["run", *metrics], rows)


def describe_stack(folder: Path) -> list[str]:
    """Say what stands in stack.csv: a stack is honest only where it is scored on folds it was not fitted on."""
    rows = read_rows(folder / TABLE, "make it again with `competition stack RUN RUN`", texts=("run",))
    return [
        f"out of fold:  {describe_scores({name: float(value) for name, value in row.items() if name != 'run'})}  "
        f"({row['run']})"
        for row in rows
    ]
