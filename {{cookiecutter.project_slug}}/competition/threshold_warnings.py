"""What to know of a run's thresholds before they are handed in. No torch."""

from competition.blend import blend_sources
from competition.runs import CV, POSTPROCESS, Run
from competition.tune import is_tuned


def describe_staleness(run: Run) -> list[str]:
    """Warn of thresholds that were found on other predictions, or for other metrics, than the run has now."""
    path, name = run.folder / POSTPROCESS, run.folder.name
    if not path.is_file() or not run.out_of_fold_files() or is_tuned(run):
        return []
    if blend_sources(run.folder) and not (run.folder / CV).is_file():  # which tuning leaves beside what it finds
        return [f"thresholds are those of the first run; `competition tune {name}` finds the blend's own"]
    return [
        f"warning: the thresholds in {path} were found on other out-of-fold predictions than are there now; tune again "
        f"with `competition tune {name}`"
    ]
