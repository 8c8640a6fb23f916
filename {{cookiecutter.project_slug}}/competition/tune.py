"""`competition tune RUN`: thresholds from out-of-fold predictions, and an honest score of them. No torch.

Thresholds found on the images they are scored on flatter themselves (F1 by .085 with 500 images, .012 with 10,000).
So each fold is scored with those found on the other folds: the cross-fitted score, which stands beside the pooled one.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from competition.errors import CompetitionError
from competition.files import is_up_to_date, read_rows, replacing, write_csv
from competition.host_metric import HOST
from competition.out_of_fold import OutOfFold, folds_of_files
from competition.progress import progress
from competition.runs import CONFIG, CV, POSTPROCESS, Run
from competition.score import describe_scores
from competition.settings import Config, with_decode
from competition.task import Task

Scores = Mapping[str, float]


@dataclass(frozen=True)
class Tuned:
    """What tuning found; `is_kept` is false where the cross-fitted score is no better than without tuning."""

    decode: dict[str, Any]
    before: dict[str, float]  # all folds together, by the config's own thresholds
    pooled: dict[str, float]  # by thresholds found on the same images: flatters
    cross_fitted: dict[str, float] | None  # each fold by those found on the others; none with a single fold
    is_kept: bool


def tune(run: Run) -> Tuned:
    """Search the thresholds of `decode:`; write postprocess.yaml and cv.csv.

    Thresholds that do not pay, cross-fitted, are not kept: postprocess.yaml then holds the config's own.
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
    tuned = Tuned(found.decode.model_dump(mode="json"), before, pooled, cross_fitted, is_kept)
    _write_postprocess(run.folder / POSTPROCESS, config, tuned, table.classes)
    _write_cv(run.folder / CV, [paths[0].parent.name for paths in files], ways)  # last: it says that tuning is done
    return tuned


def describe_tuning(tuned: Tuned) -> list[str]:
    """Say what tuning found, and how far its own score can be trusted."""
    lines = [f"out of fold, as the config has it:  {describe_scores(tuned.before)}"]
    if tuned.cross_fitted is None:
        return [*lines, f"tuned and scored on the same images, which flatters:  {describe_scores(tuned.pooled)}"]
    name, pooled = next(iter(tuned.pooled.items()))
    lines += [
        f"cross-fitted (tuned on the other folds):  {describe_scores(tuned.cross_fitted)}",
        f"tuned and scored on the same images:  {describe_scores(tuned.pooled)}; "
        f"{pooled - tuned.cross_fitted[name]:+.4f} in {name} against cross-fitted: where that is better, it flatters",
    ]
    if not tuned.is_kept:
        lines.append("tuning does not pay on images it has not seen: the config's own thresholds are kept")
    return lines


def honest_scores(run: Run) -> tuple[str, dict[str, float]]:
    """Return from cv.csv how well the run does on images that its thresholds were not found on, and how that is known.

    With a single fold there are no such images.
    """
    pooled = next(row for row in read_rows(run.folder / CV) if row["images"] == "pooled")
    how, way = honest_way(run, pooled)
    return how, {name: float(pooled[name + way]) for name in metric_names(run.config)}


def honest_way(run: Run, columns: Iterable[str]) -> tuple[str, str]:
    """Say which columns of cv.csv show how well the run does with the thresholds it has; return also their ending.

    The run is one that was opened without overrides: cv.csv knows nothing of those.
    """
    if run.config.decode == run.untuned.decode:
        return "by the config's own thresholds", ""
    is_crossed = any(column.endswith("_cross_fitted") for column in columns)
    return ("cross-fitted", "_cross_fitted") if is_crossed else ("tuned on the same images: flatters", "_tuned")


def _merit(images: OutOfFold, scores: Scores) -> float:
    return images.merit(next(iter(scores.items())))


def _write_cv(path: Path, folds_named: list[str], ways: list[tuple[list[dict[str, float]], dict[str, float]]]) -> None:
    """Write a row a fold, their mean and spread, and all folds pooled; a column a metric and way of thresholds."""
    names = ("", "_tuned", "_cross_fitted")[: len(ways)]
    columns = [f"{metric}{name}" for name, (_, pooled) in zip(names, ways, strict=True) for metric in pooled]
    folds = [[list(scores.values()) for scores in each] for each, _ in ways]
    values = np.concatenate([np.array(each) for each in folds], axis=1)  # (folds, columns)
    rows = dict(zip(folds_named, values, strict=True))
    rows |= {"mean": values.mean(axis=0), "std": values.std(axis=0, ddof=min(1, len(values) - 1))}
    rows["pooled"] = np.array([value for _, pooled in ways for value in pooled.values()])
    write_csv(path, ["images", *columns], ([name, *(f"{value:.6f}" for value in row)] for name, row in rows.items()))


def _write_postprocess(path: Path, config: Config, tuned: Tuned, classes: tuple[str, ...]) -> None:
    decode = tuned.decode if tuned.is_kept else config.decode.model_dump(mode="json")
    if not decode:
        path.unlink(missing_ok=True)  # this task has nothing to set
        return
    text = yaml.safe_dump({"decode": decode}, sort_keys=False, allow_unicode=True)
    head = f"# Found by `competition tune {config.name}`; lists follow the classes {', '.join(classes)}.\n"
    with replacing(path) as temporary:
        temporary.write_text(head + text, encoding="utf-8")


def is_tuned(run: Run) -> bool:
    """Return whether the tuning is of these metrics, and newer than all it was made from."""
    cv, files, config = run.folder / CV, run.out_of_fold_files(), run.config
    if not files:
        raise CompetitionError(f"{run.folder}: no fold has out-of-fold predictions; train one fold first")
    if not cv.is_file():
        return False
    with cv.open(newline="", encoding="utf-8") as file:
        has_metrics = set(metric_names(config)) <= set(next(csv.reader(file), []))
    sources = [*files, *(path.parent / CONFIG for path in files), config.train_csv]
    sources += [config.host_metric.file] if config.host_metric else []
    return has_metrics and is_up_to_date(cv, sources)


def describe_staleness(run: Run) -> list[str]:
    """Warn of thresholds that were found on other predictions, or for other metrics, than the run has now."""
    path, name = run.folder / POSTPROCESS, run.folder.name
    if not path.is_file() or not run.out_of_fold_files() or is_tuned(run):
        return []
    if f"`competition tune {name}`" not in path.read_text(encoding="utf-8"):
        return [f"thresholds are those of the first run; `competition tune {name}` finds the blend's own"]
    return [
        f"warning: the thresholds in {path} were found on other out-of-fold predictions than are there now; tune again "
        f"with `competition tune {name}`"
    ]


def metric_names(config: Config) -> list[str]:
    """Return the metrics of a run, the score first: the host's, if there is one."""
    return [HOST] * (config.host_metric is not None) + list(config.metrics)
