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
from competition.runs.folder import CONFIG, CV, POSTPROCESS, Run, chosen_weights, read_metrics
from competition.scoring.out_of_fold import OutOfFold, describe_scores, folds_of_files
from competition.support.atomic_files import read_rows, replacing, write_csv
from competition.support.errors import CompetitionError
from competition.support.freshness import is_up_to_date, remember_sources
from competition.support.progress import progress
from competition.tasks.contract import Task
from competition.tasks.host_metric import HOST
from competition.training.monitor import best_row

Scores = Mapping[str, float]

# What decodes a run's predictions, in the words of cv.csv and the ledger, and the ending of its score's columns.
OWN, GIVEN = "by the config's own thresholds", "by thresholds given by hand"
CROSSED, FLATTERED = "cross-fitted", "tuned on the same images: flatters"
ENDINGS = {OWN: "", GIVEN: "", CROSSED: "_cross_fitted", FLATTERED: "_tuned"}
THRESHOLDS = "thresholds"  # column of cv.csv: which of these
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
    table = Task(config.task).table.read_table(config)
    files = folds_of_files(run.out_of_fold_files())
    images = OutOfFold(config, table, files)
    search = Task(config.task).tuning.search(config, images, len(table.classes))
    folds = np.unique(images.fold).tolist()
    found = with_decode(config, search.best(np.arange(len(images))))
    by_fold = [[config] * len(folds), [found] * len(folds)]
    if len(folds) > 1:
        others = progress(folds, "thresholds of each fold from the others")
        by_fold.append([with_decode(config, search.best(np.flatnonzero(images.fold != fold))) for fold in others])
    ways = [images.scores_by_fold(configs) for configs in by_fold]
    (_, before), (_, pooled), *crossed = ways
    cross_fitted = crossed[0][1] if crossed else None
    is_kept = _merit(images, cross_fitted or pooled) >= _merit(images, before)
    start, end = (one.decode.model_dump(mode="json") for one in (config, found))
    is_given = config.decode != Run.open(str(run.folder)).untuned.decode
    tuned = Tuned(end, start, is_given, before, pooled, cross_fitted, is_kept)
    _write_postprocess(run, tuned, table.classes)
    # Last: it says that tuning is done.
    _write_cv(run.folder / CV, [paths[0].parent.name for paths in files], ways, tuned.thresholds)
    remember_sources(run.folder / CV, _sources(run))
    return tuned


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


def tune_again(folder: Path) -> str:
    """Return what cures a file of tuning that is damaged."""
    return f"delete it and make it again with `competition tune {folder.name}`"


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
    path, decode = run.folder / POSTPROCESS, tuned.decode if tuned.is_kept else tuned.start
    if not decode:
        path.unlink(missing_ok=True)  # this task has nothing to set
        return
    text = dump_yaml({"decode": decode})
    head = f"# Found by `competition tune {run.folder.name}`; lists follow the classes {', '.join(classes)}.\n"
    with replacing(path) as temporary:
        temporary.write_text(head + text, encoding="utf-8")


def is_tuned(run: Run) -> bool:
    """Return whether the tuning is of these metrics, and newer than all it was made from."""
    cv, names = run.folder / CV, metric_names(run.config)
    if not run.out_of_fold_files():
        raise CompetitionError(f"{run.folder}: no fold has out-of-fold predictions; train one fold first")
    if not cv.is_file():
        return False
    try:
        known = [name for name in read_cv(run.folder)["pooled"] if name in names]
    except CompetitionError:
        return False  # damaged
    # Thresholds are found for the first.
    return set(known) == set(names) and known[0] == names[0] and is_up_to_date(cv, _sources(run))


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
