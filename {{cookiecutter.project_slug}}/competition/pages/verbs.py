"""The verb of this room: `competition report RUN`; check.html is written by `competition check`."""

from competition.config.arguments import Overrides, RunName


def report(run: RunName, overrides: Overrides = None) -> None:
    """Write report.html: learning curves, scores, where the run fails, and what it took."""
    from competition.pages.report import write_report
    from competition.runs.folder import Run

    print(f"written to {write_report(Run.open(run, overrides), overrides or [])}")


VERBS = (report,)
