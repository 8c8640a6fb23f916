"""Verbs that show what is known of runs."""

from typing import Annotated

import typer

from competition.config.arguments import RunName
from competition.support.optional_rooms import has_room


def runs(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN] [RUN]", help="One: all that is known of it. Two: compare them.")
    ] = None,
    public: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Enter the public score of a run's submission.")
    ] = None,
    pick: Annotated[bool, typer.Option("--pick", help="Name two to hand in: the best, and one unlike it.")] = False,
) -> None:
    """Show all runs, the best first; or one; or compare two: configs, and scores fold by fold.

    What is shown is kept in outputs/runs.csv, also of runs whose folders are deleted. With two public scores or more it
    draws outputs/cv_public.png. On a cluster it also shows which jobs of `run --slurm` wait, run or did not end.
    """
    from competition.comparison.runs_table import ordered
    from competition.comparison.runs_table import runs as show_runs
    from competition.runs.ledger import COLUMNS, NUMBERS, find_line, ledger_path, read_ledger
    from competition.support.telling import numbers, tell

    show_runs(names or [], public=public, pick_two=pick)
    lines = read_ledger(ledger_path())
    shown = [find_line(lines, name) for name in names] if names else ordered(lines)
    tell(
        _jobs() if not names and not pick else [],
        runs=[numbers({name: getattr(one, name) for name in COLUMNS} | dict(one.others), NUMBERS) for one in shown],
    )


def _jobs() -> list[str]:
    """Return what is to be said of jobs on a cluster."""
    if not has_room("clusters"):
        return []
    from competition.clusters.slurm import jobs_in_words

    return jobs_in_words()


def replay(run: RunName) -> None:
    """Look whether a run still predicts what it did: its config builds, its weights load, images give the same."""
    from competition.comparison.replay import replay as replay_run

    print("\n".join(replay_run(run)))
