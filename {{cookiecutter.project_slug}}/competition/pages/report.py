"""`competition report RUN`: report.html, what a run has learnt and where it fails. No torch.

It is made of what lies in the run's folder. What is missing there (a blend has no learning curves, a training on all
images no out-of-fold predictions) is said.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np

from competition.pages.gallery import Outcomes, galleries, legend, look_at
from competition.pages.page import Grid, Section, number, write_page
from competition.pages.report_plots import Rows, answer_plots, learning_plots, threshold_plots
from competition.pages.suspects import suspects
from competition.runs.blend_recipe import blend_sources
from competition.runs.folder import CONFIG, CV, METRICS, OOF, POSTPROCESS, VIEWS, Run, read_metrics
from competition.runs.provenance import describe_other_tables
from competition.runs.thresholds import is_decoded_by_hand
from competition.scoring import tune
from competition.scoring.code_files import code_of
from competition.scoring.out_of_fold import OutOfFold, describe_scores, folds_of_files
from competition.scoring.tune import (
    THRESHOLDS,
    describe_choice,
    describe_staleness,
    honest_scores,
    read_cv,
    why_not_tuned,
)
from competition.submission.stack_table import describe_stack
from competition.support.atomic_files import read_rows
from competition.support.freshness import MadeFrom, is_up_to_date
from competition.tasks.contract import Task

REPORT = "report.html"
GIVEN = "given by hand"  # a fact of a page that does not show the run by its own config
# Endings of the columns of cv.csv, and what they are scores of.
WAYS = {
    "": "without tuning",
    "_cross_fitted": "cross-fitted: thresholds found on the other folds",
    "_tuned": "thresholds found on the same images: flatters",
}
VIEW_COLUMNS = {  # of tta.csv, and what they are called
    "view": "",
    "alone": "alone",
    "with_plain": "with the plain one",
    "cumulative": "all down to here",
    "seconds_per_100_images": "s / 100 images",
}
NUM_CONFUSED = 8  # pairs of classes
NO_IMAGES = "There are no out-of-fold predictions: no training with validation images has ended."


def write_report(run: Run, overrides: Sequence[str] = ()) -> Path:
    """Write report.html into a run's folder, which was opened with these overrides, and return its path."""
    own = Run.open(str(run.folder)) if overrides else run
    path = run.folder / REPORT
    made_from = MadeFrom.now(path, _sources(run), _learnt(run), _code(run))
    files = [folder / OOF for folder in run.trainings() if (folder / OOF).is_file()]
    outcomes = None
    if files:
        table = Task(run.config.task).table.read_table(run.config)
        outcomes = look_at(run.config, OutOfFold(run.config, table, folds_of_files(files)))
    metrics = {
        folder.name: read_metrics(folder, "samples_per_second", "seconds", "memory_mb") for folder in run.trainings()
    }
    metrics = {name: rows for name, rows in metrics.items() if rows}
    sections = [
        _learning(run, metrics),
        _folds(run, outcomes),
        _gallery(run, outcomes),
        suspects(run, outcomes),
        _thresholds(run, own, outcomes),
        _answers(outcomes),
        _views(run),
        _resources(run, metrics),
    ]
    write_page(path, f"Run {run.folder.name}", _facts(run, own, overrides), sections)
    made_from.note()
    return path


def is_reported(run: Run) -> bool:
    """Return whether report.html is newer than all it was made from, and shows the run by its own config."""
    if _has_overrides(run.folder / REPORT):
        return False
    return is_up_to_date(run.folder / REPORT, _sources(run), _learnt(run), _code(run))


def _sources(run: Run) -> list[Path]:
    sources = [folder / name for folder in run.trainings() for name in (CONFIG, METRICS, OOF)]
    return [*sources, *(run.folder / name for name in (CV, POSTPROCESS, VIEWS))]


def _learnt(run: Run) -> str:
    """Return what is told of other tables than the trainings learnt from."""
    return "\n".join(["other tables:", *describe_other_tables(run)])


def _code(run: Run) -> list[Path]:
    return code_of(run.config.task, "outcome", "picture")


def _has_overrides(page: Path) -> bool:
    """Return whether a page was written with values given by hand, by its facts: pictures follow, a long text."""
    if not page.is_file():
        return False
    with page.open(encoding="utf-8") as file:
        return any(f"<dt>{GIVEN}</dt>" in line for line in takewhile(lambda line: "<main>" not in line, file))


def _facts(run: Run, own: Run, overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Say what a page is of; scores are those of the thresholds that the run has on its `own`, without overrides."""
    config = run.config
    height, width = config.data.image_size
    facts = [("task", config.task), ("network", config.model.network_name), ("image size", f"{height} x {width}")]
    facts.append(("trainings", ", ".join(folder.name for folder in run.trainings())))
    if overrides:
        facts.append((GIVEN, " ".join(overrides)))
    if is_decoded_by_hand(run):
        facts.append(("score", "not known by thresholds that were given by hand"))
    elif (run.folder / CV).is_file() and own.out_of_fold_files() and (reason := why_not_tuned(own)):
        facts.append(("score", f"not known: thresholds were found {reason}"))
    elif (run.folder / CV).is_file():
        how, scores = honest_scores(own)
        facts.append((f"score, {how}", describe_scores(scores)))
    return facts


def _learning(run: Run, metrics: Mapping[str, Rows]) -> Section:
    title = "Learning curves"
    if metrics:
        return Section(title, describe_other_tables(run), plots=learning_plots(metrics))
    return Section(title, [_no_training(run)])


def _no_training(run: Run) -> str:
    if sources := blend_sources(run.folder):
        return f"This run is a blend of {', '.join(sources)} and has trained nothing: see their reports."
    return f"There is no {METRICS}: no epoch has ended yet, or the files were left behind."


def _folds(run: Run, outcomes: Outcomes | None) -> Section:
    title, rows = "Scores by fold", _cv_rows(run)
    if not rows and outcomes is None:
        return Section(title, [NO_IMAGES])
    if not rows:
        missing = f"There is no {CV} yet: the command competition tune {run.folder.name} writes it."
        return Section(title, [*describe_stack(run.folder), missing])
    columns = [name for name in rows[0] if name not in ("images", THRESHOLDS)]
    metrics = [name for name in columns if not any(name.endswith(way) for way in WAYS if way)]
    grids = [
        Grid(["", *metrics], [[row["images"], *(f"{float(row[m + way]):.4f}" for m in metrics)] for row in rows], says)
        for way, says in WAYS.items()
        if metrics[0] + way in columns
    ]
    said = [*describe_staleness(run), *describe_choice(run), *describe_stack(run.folder)]
    return Section(title, said, grids=grids)


def _cv_rows(run: Run) -> list[dict[str, str]]:
    return list(read_cv(run.folder).values()) if (run.folder / CV).is_file() else []


def _gallery(run: Run, outcomes: Outcomes | None) -> Section:
    title = "Out-of-fold images"
    if outcomes is None:
        return Section(title, [NO_IMAGES])
    chance = ", drawn by chance" if outcomes.is_sample else ""
    seen = f"{number(len(outcomes.rows))} of {number(len(outcomes.images))} images were looked at{chance}."
    words = [seen, f"They are sorted by {outcomes.images.task.outcome.score_name(run.config)}."]
    return Section(title, words, legend=legend(outcomes), sections=galleries(run.config, outcomes))


def _thresholds(run: Run, own: Run, outcomes: Outcomes | None) -> Section:
    title = "Thresholds"
    if outcomes is None:
        return Section(title, [NO_IMAGES])
    words, plots = threshold_plots(run.config, outcomes.images)
    now = run.config.decode.model_dump(mode="json")
    is_given = any(row.get(THRESHOLDS) == tune.GIVEN for row in _cv_rows(run))
    tuned = "given by hand to tuning" if is_given else "found by tuning"
    found = tuned if run.config.decode != run.untuned.decode else "as the config has it"
    found = "with some that were given by hand" if is_decoded_by_hand(run) else found
    rows = [[key, _in_words(value)] for key, value in now.items() if value is not None]
    grids = [Grid(["decode", ""], rows, found)] if rows else []
    return Section(title, words, grids=grids, plots=plots)


def _in_words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _answers(outcomes: Outcomes | None) -> Section:
    title = "Right and wrong answers"
    if outcomes is None:
        return Section(title, [NO_IMAGES])
    pairs = [one.pair for one in outcomes.each if one.pair is not None]
    grids = (
        [_confused(np.array(pairs), outcomes.images.table.classes)] if pairs and isinstance(pairs[0][0], int) else []
    )
    return Section(title, grids=grids, plots=answer_plots(outcomes))


def _confused(pairs: np.ndarray, classes: Sequence[str]) -> Grid:
    """List the classes that are taken for others most often."""
    wrong, counts = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:NUM_CONFUSED]
    rows = [[classes[wrong[k, 0]], classes[wrong[k, 1]], number(counts[k])] for k in order]
    return Grid(["truth", "prediction", "images"], rows, "most often confused" if rows else "nothing was confused")


def _views(run: Run) -> Section:
    title = "Test-time views"
    way_on = f"delete it, or make it again with `competition predict {run.folder.name} --views`"
    rows = read_rows(run.folder / VIEWS, way_on, VIEW_COLUMNS, texts=VIEW_COLUMNS)
    if not rows:
        words = f"There is no {VIEWS}: competition predict {run.folder.name} --views writes it, where tta names views."
        return Section(title, [words])
    grid = Grid(list(VIEW_COLUMNS.values()), [[row[name] for name in VIEW_COLUMNS] for row in rows])
    return Section(title, ["The first metric of each view by itself and averaged with others."], grids=[grid])


def _resources(run: Run, metrics: Mapping[str, Rows]) -> Section:
    title = "Time and memory"
    if not metrics:
        return Section(title, [_no_training(run)])
    columns = ["", "epochs", "minutes", "images / s", "memory, MB"]
    rows = []
    for training, epochs in metrics.items():
        seconds = [float(epoch["seconds"]) for epoch in epochs]
        speed = np.median([float(epoch["samples_per_second"]) for epoch in epochs])
        memory = max(float(epoch["memory_mb"]) for epoch in epochs)
        rows.append([training, f"{len(epochs)}", f"{sum(seconds) / 60:.1f}", number(float(speed)), number(memory)])
    words = ["Time with validation, images / s without it; the most memory: of the GPU, or of the process on a CPU."]
    return Section(title, words, grids=[Grid(columns, rows)])
