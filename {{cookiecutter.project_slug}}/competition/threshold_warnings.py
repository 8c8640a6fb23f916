"""What to know of a run's thresholds before they are handed in. No torch."""

from competition.blend_recipe import blend_sources
from competition.runs import CV, POSTPROCESS, Run
from competition.task import Task
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


def describe_unused(run: Run) -> list[str]:
    """Warn of thresholds in the config or on the command line that nothing goes by."""
    given = run.untuned.decode
    usual = type(given)()
    return [
        f"warning: decode.{key}: {value} changes nothing, neither the submission nor its score: {reason}"
        for key, reason in Task(run.config.task).decode.unused_settings(run.untuned).items()
        if (value := getattr(given, key)) != getattr(usual, key)
    ]
