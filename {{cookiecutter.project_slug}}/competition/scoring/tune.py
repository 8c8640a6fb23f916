"""`competition tune RUN`: thresholds from out-of-fold predictions, and an honest score of them. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from competition.config.loading import dump_yaml
from competition.config.settings import Config, with_decode
from competition.files.joined_tables import table_files
from competition.runs.blend_recipe import blend_sources
from competition.runs.folder import CONFIG, CV, OOF, POSTPROCESS, Run, chosen_weights, read_metrics
from competition.runs.thresholds import describe_edit, thresholds_in_words, tune_again
from competition.scoring.code_files import code_of
from competition.scoring.out_of_fold import OutOfFold, describe_scores, folds_of_files
from competition.support.atomic_files import read_rows, replacing, write_csv
from competition.support.errors import CompetitionError
from competition.support.freshness import (
    MadeFrom,
    changed_code,
    changed_sources,
    delete_with_note,
    has_note,
    has_noted_code,
    is_up_to_date,
)
from competition.support.progress import progress
from competition.tasks.contract import Search, Task
from competition.tasks.host_metric import HOST
from competition.training.monitor import best_row

Scores = Mapping[str, float]

# What decodes a run's predictions, in the words of cv.csv and the ledger, and the ending of its score's columns.
OWN, GIVEN = "by the config's own thresholds", "by thresholds given by hand"
CROSSED, FLATTERED = "cross-fitted", "tuned on the same images: flatters"
ENDINGS = {OWN: "", GIVEN: "", CROSSED: "_cross_fitted", FLATTERED: "_tuned"}
THRESHOLDS = "thresholds"  # column of cv.csv: which of these
OTHER_PREDICTIONS = "on other out-of-fold predictions than are there now"
UNKNOWN = f"on what is not known (no note of this {CV} is beside it)"
LAST_EPOCHS = 3  # that the best one is compared with


@dataclass(frozen=True)
class Tuned:
    """What tuning found; `is_kept` is false where the cross-fitted score is no better than without tuning."""

    decode: dict[str, Any]
    start: dict[str, Any]  # without tuning
    is_given: bool  # whether that is not the config's own, but from the command line
    before: dict[str, float]  # all folds together, without tuning
    pooled: dict[str, float]  # by thresholds found on the same images: flatters
    cross_fitted: dict[str, float] | None  # each fold by those found on the others; none with a single fold
    is_kept: bool

    @property
    def handed_in(self) -> dict[str, Any]:
        """Return those that the run is decoded by from now on."""
        return self.decode if self.is_kept else self.start

    @property
    def thresholds(self) -> str:
        """Say which thresholds are handed in, or how those that tuning found are scored."""
        if not self.is_kept or self.decode == self.start:
            return GIVEN if self.is_given else OWN
        return FLATTERED if self.cross_fitted is None else CROSSED


def tune(run: Run) -> Tuned:
    """Search the thresholds of `decode:`; write postprocess.yaml and cv.csv.

    Thresholds that do not pay, cross-fitted, are not kept: postprocess.yaml then holds those that the search began
    with, the config's own or those given by hand.
    """
    config = run.untuned
    made_from = MadeFrom.now(run.folder / CV, _sources(run), code=code_of(config.task))
    table = Task(config.task).table.read_table(config)
    files = folds_of_files(run.out_of_fold_files())
    images = OutOfFold(config, table, files)
    search = Task(config.task).tuning.search(config, images, len(table.classes))
    found, by_fold = _searched(config, images, search)
    ways = [images.scores_by_fold(configs) for configs in by_fold]
    (_, before), (_, pooled), *crossed = ways
    cross_fitted = crossed[0][1] if crossed else None
    is_kept = _merit(images, cross_fitted or pooled) >= _merit(images, before)
    start, end = (one.decode.model_dump(mode="json") for one in (config, found))
    is_given = config.decode != Run.open(str(run.folder)).untuned.decode
    tuned = Tuned(end, start, is_given, before, pooled, cross_fitted, is_kept)
    # First that of other thresholds goes, last its note comes: it says that tuning is done, and what it wrote.
    delete_with_note(run.folder / CV)
    _write_postprocess(run, tuned, table.classes)
    _write_cv(run.folder / CV, [paths[0].parent.name for paths in files], ways, tuned.thresholds)
    made_from.note(also=thresholds_in_words(tuned.handed_in))
    return tuned


def _searched(config: Config, images: OutOfFold, search: Search) -> tuple[Config, list[list[Config]]]:
    """Return the config with the thresholds that all images tell and, a config a fold, those to be scored: the one it
    began with, that one and, of several folds, those that the others tell."""
    folds = np.unique(images.fold).tolist()
    found = with_decode(config, search.best(np.arange(len(images))))
    by_fold = [[config] * len(folds), [found] * len(folds)]
    if len(folds) > 1:
        others = progress(folds, "thresholds of each fold from the others")
        by_fold.append([with_decode(config, search.best(np.flatnonzero(images.fold != fold))) for fold in others])
    return found, by_fold


def describe_tuning(tuned: Tuned) -> list[str]:
    """Say what tuning found, and how far its own score can be trusted."""
    start = GIVEN if tuned.is_given else "as the config has it"
    lines = [f"out of fold, {start}:  {describe_scores(tuned.before)}"]
    if tuned.cross_fitted is None:
        return [*lines, f"tuned and scored on the same images, which flatters:  {describe_scores(tuned.pooled)}"]
    name, pooled = next(iter(tuned.pooled.items()))
    lines += [
        f"cross-fitted (tuned on the other folds):  {describe_scores(tuned.cross_fitted)}",
        f"tuned and scored on the same images:  {describe_scores(tuned.pooled)}; "
        f"{pooled - tuned.cross_fitted[name]:+.4f} in {name} against cross-fitted: where that is better, it flatters",
    ]
    if not tuned.is_kept:
        kept = "thresholds given by hand" if tuned.is_given else "config's own thresholds"
        lines.append(f"tuning does not pay on images it has not seen: the {kept} are kept")
    return lines


def describe_choice(run: Run) -> list[str]:
    """Say how much better the weights that each fold predicts with were than its last epochs: they were chosen on the
    images that they are scored on, so that a part of this is luck. No line where none were chosen."""
    metric, kept = run.config.metrics[0], run.config.checkpoint
    if kept.predict_with == "latest":
        return []
    gains = {path.parent.name: _gain_of_best(path.parent, run.config) for path in run.out_of_fold_files()}
    known = {name: gain for name, gain in gains.items() if gain is not None}
    if not known:
        return []
    each = ", ".join(f"{name} {gain:+.4f}" for name, gain in known.items())
    what = "is the epoch, of each fold its best"
    if kept.chooses:
        chosen = (chosen_weights(run.folder / name, kept) for name in known)
        names = ", ".join(f"{name} {row['weights']}" for name, row in zip(known, chosen, strict=True) if row)
        what = f"are the weights ({names or 'best'}), of each fold the best among epochs and their soups"
    return [
        f"not cross-fitted {what} by {kept.monitor} on the images it is scored on: "
        f"{np.mean(list(known.values())):+.4f} in {metric} against the mean of its last epochs, {LAST_EPOCHS} at most "
        f"({each}); up to so much of the score may be luck"
    ]


def _gain_of_best(folder: Path, config: Config) -> float | None:
    """Return by how much the first metric of the best epoch in metrics.csv is better than the mean of the last ones;
    None of a single epoch."""
    metric = f"val/{config.metrics[0]}"
    columns = (config.checkpoint.monitor, metric)
    seen = [row for row in read_metrics(folder) if all(np.isfinite(float(row.get(name) or "nan")) for name in columns)]
    best = chosen_weights(folder, config.checkpoint) or best_row(seen, config)
    if len(seen) < 2 or best is None:
        return None
    gain = float(best[metric]) - float(np.mean([float(row[metric]) for row in seen[-LAST_EPOCHS:]]))
    return -gain if Task(config.task).score.lower_is_better(config.metrics[0]) else gain


def honest_scores(run: Run) -> tuple[str, dict[str, float]]:
    """Return from cv.csv how well the run does on images that its thresholds were not found on, and how that is known.

    With a single fold there are no such images.
    """
    path, way_on = run.folder / CV, tune_again(run.folder)
    pooled = read_cv(run.folder)["pooled"]
    how, way = honest_way(run, pooled)
    if absent := [name + way for name in metric_names(run.config) if name + way not in pooled]:
        raise CompetitionError(f"{path}: has no column {absent[0]!r}; {way_on}")
    return how, {name: float(pooled[name + way]) for name in metric_names(run.config)}


def read_cv(folder: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a run's cv.csv by their names; raise CompetitionError where it was cut."""
    texts = ("images", THRESHOLDS)
    found = read_rows(folder / CV, tune_again(folder), texts[:1], texts=texts, is_full=True)
    rows = {row["images"]: row for row in found}
    if absent := [name for name in ("mean", "std", "pooled") if name not in rows]:
        raise CompetitionError(f"{folder / CV}: damaged (it has no row {absent[0]!r}); {tune_again(folder)}")
    return rows


def honest_way(run: Run, row: Mapping[str, str]) -> tuple[str, str]:
    """Say by a row of cv.csv which of its columns show how well the run does with the thresholds it has; return also
    their ending.

    The run is one that was opened without overrides: cv.csv knows nothing of those.
    """
    is_crossed = any(column.endswith(ENDINGS[CROSSED]) for column in row)
    how = row.get(THRESHOLDS, CROSSED if is_crossed else FLATTERED)  # earlier versions did not write it
    if how not in ENDINGS:
        raise CompetitionError(f"{run.folder / CV}: {THRESHOLDS}: found {how!r}; {tune_again(run.folder)}")
    if how != GIVEN and run.config.decode == run.untuned.decode:
        how = OWN  # what tuning found was deleted, or is the same
    return how, ENDINGS[how]


def _merit(images: OutOfFold, scores: Scores) -> float:
    return images.merit(next(iter(scores.items())))


def _write_cv(
    path: Path,
    folds_named: list[str],
    ways: list[tuple[list[dict[str, float]], dict[str, float]]],
    thresholds: str,
) -> None:
    """Write a row a fold, their mean and spread, and all folds pooled; a column a metric and way of thresholds, and
    which of these are handed in."""
    names = ("", "_tuned", "_cross_fitted")[: len(ways)]
    columns = [f"{metric}{name}" for name, (_, pooled) in zip(names, ways, strict=True) for metric in pooled]
    folds = [[list(scores.values()) for scores in each] for each, _ in ways]
    values = np.concatenate([np.array(each) for each in folds], axis=1)  # (folds, columns)
    rows = dict(zip(folds_named, values, strict=True))
    rows |= {"mean": values.mean(axis=0), "std": values.std(axis=0, ddof=min(1, len(values) - 1))}
    rows["pooled"] = np.array([value for _, pooled in ways for value in pooled.values()])
    words = ([name, *(f"{value:.6f}" for value in row), thresholds] for name, row in rows.items())
    write_csv(path, ["images", *columns, THRESHOLDS], words)


def _write_postprocess(run: Run, tuned: Tuned, classes: tuple[str, ...]) -> None:
    path, decode = run.folder / POSTPROCESS, tuned.handed_in
    if not decode:
        path.unlink(missing_ok=True)  # this task has nothing to set
        return
    text = dump_yaml({"decode": decode})
    head = f"# Found by `competition tune {run.folder.name}`; lists follow the classes {', '.join(classes)}.\n"
    with replacing(path) as temporary:
        temporary.write_text(head + text, encoding="utf-8")


def is_tuned(run: Run) -> bool:
    """Return whether the tuning is of these metrics, and of all that it was made from as it is now."""
    return why_not_tuned(run) is None


def why_not_tuned(run: Run) -> str | None:
    """Say on what, for what or by what else thresholds were found and scored than there is now; None where they are of
    all that is there."""
    cv, names, sources = run.folder / CV, metric_names(run.config), _sources(run)
    if not run.out_of_fold_files():
        raise CompetitionError(f"{run.folder}: no fold has out-of-fold predictions; train one fold first")
    if not cv.is_file():
        return OTHER_PREDICTIONS
    if not has_note(cv):
        return UNKNOWN  # tuning was killed, or files were copied without those whose names begin with a dot
    try:
        known = [name for name in read_cv(run.folder)["pooled"] if name in names]
    except CompetitionError:
        return OTHER_PREDICTIONS  # damaged
    if set(known) != set(names) or known[0] != names[0]:  # thresholds are found for the first
        return "for other metrics than the run has now"
    if is_up_to_date(cv, sources, code=code_of(run.config.task)):
        return None
    changed, changed_by = changed_sources(cv, sources), other_code(run)
    if changed and all(path.name != OOF for path in changed):
        return f"by another {changed[0]} than is there now"
    if changed_by and not changed:
        by_time = "" if has_noted_code(cv) else ", by its time"
        return f"by other code than is there now ({changed_by[0]}{by_time})"
    return OTHER_PREDICTIONS


def other_code(run: Run) -> list[Path]:
    """Return the files of code that are others than cv.csv was made by; none where there is no cv.csv."""
    cv = run.folder / CV
    return changed_code(cv, code_of(run.config.task)) if cv.is_file() else []


def _sources(run: Run) -> list[Path]:
    """Return what thresholds and cv.csv are made from."""
    files, config = run.out_of_fold_files(), run.config
    sources = [*files, *(path.parent / CONFIG for path in files), *table_files(config.train_csv)]
    files_of_metrics = [Path(one.rpartition(":")[0]) for one in config.metric_files]
    return [*sources, *files_of_metrics, *([config.host_metric.file] if config.host_metric else [])]


def metric_names(config: Config) -> list[str]:
    """Return the metrics of a run, the score first: the host's, if there is one."""
    return [HOST] * (config.host_metric is not None) + config.metric_names


def describe_staleness(run: Run) -> list[str]:
    """Warn of thresholds or scores that were found on other predictions, for other metrics, or by other code, than
    there are now; or of thresholds that were given by hand since."""
    path, cv, name = run.folder / POSTPROCESS, run.folder / CV, run.folder.name
    if not (path.is_file() or cv.is_file()) or not run.out_of_fold_files():
        return []
    if edited := describe_edit(run):
        return [f"warning: {line}" for line in edited]
    reason = why_not_tuned(run)
    if reason is None:
        return []
    if blend_sources(run.folder) and not cv.is_file():  # which tuning leaves beside what it finds
        return [f"thresholds are those of the first run; `competition tune {name}` finds the blend's own"]
    what = f"thresholds in {path}" if path.is_file() else f"scores in {cv}"
    return [f"warning: the {what} were found {reason}; tune again with `competition tune {name}`"]


def describe_unused(run: Run) -> list[str]:
    """Warn of thresholds in the config or on the command line that nothing goes by."""
    given = run.untuned.decode
    usual = type(given)()
    return [
        f"warning: decode.{key}: {value} changes nothing, neither the submission nor its score: {reason}"
        for key, reason in Task(run.config.task).decode.unused_settings(run.untuned).items()
        if (value := getattr(given, key)) != getattr(usual, key)
    ]
