"""`competition runs`: what was trained, how it scores, what became of it. No torch."""

import math
from collections.abc import Sequence
from dataclasses import replace

from rich.text import Text

from competition.errors import CompetitionError
from competition.ledger import Line, change_ledger, find_line, ledger_path
from competition.pick import pick
from competition.public_plot import draw_public_scores
from competition.record import record_missing
from competition.runs_table import one_run, show, table_of_runs, two_runs


def runs(names: Sequence[str], *, public: float | None, pick_two: bool) -> None:
    """Show all runs, one or two; or name two submissions; or enter a public score."""
    lines = record_missing()
    if (public is not None and len(names) != 1) or (pick_two and (names or public is not None)) or len(names) > 2:
        raise CompetitionError(
            f"runs: found {len(names)} runs; expected none, one or two; one with --public, none with --pick"
        )
    if public is not None:
        enter_public_score(find_line(lines, names[0]).run, public)
    elif pick_two:
        show(map(Text, pick(lines)))
    elif len(names) == 2:
        show(two_runs(*(find_line(lines, name) for name in names)))
    elif names:
        show(one_run(find_line(lines, names[0])))
    else:
        show_all(lines)


def show_all(lines: dict[str, Line]) -> None:
    """Print the table, and draw the plot where there is something to draw."""
    if not lines:
        show([f"no run yet; {ledger_path()} begins with the first training"])
        return
    drawn = draw_public_scores(lines)
    show([*table_of_runs(lines), *([f"out of fold against public: {drawn}"] if drawn else [])])


def enter_public_score(run: str, score: float) -> None:
    """Write a public score that was read on the web into a run's line."""
    if not math.isfinite(score):
        raise CompetitionError(f"--public {score}: expected a number, as 0.81")

    def change(lines: dict[str, Line]) -> None:
        lines[run] = replace(lines[run], public_score=f"{score:g}" if float(f"{score:g}") == score else str(score))

    change_ledger(ledger_path(), change)
    show([Text(f"{run}: public score {score:g}, in {ledger_path()}")])
