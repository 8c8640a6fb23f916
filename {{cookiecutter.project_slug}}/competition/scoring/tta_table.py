"""`competition predict RUN --views`: what each view of `tta` adds on out-of-fold images, and what it costs in time."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from competition.config.views import View, views_of
from competition.data.series_dataset import open_dataset
from competition.prediction.averages import average_predictions
from competition.prediction.predict import load_network, predict_images
from competition.prediction.stored import Predictions
from competition.runs.folder import VIEWS, Run
from competition.scoring.out_of_fold import score_predictions
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table, Task
from competition.training.checkpoint import weights_to_use

COLUMNS = ("view", "alone", "with_plain", "cumulative", "seconds_per_100_images")
EXPLAINED = (
    "first metric of out-of-fold images, by the config's own thresholds: of the view alone, averaged with the plain",
    "one, and of all views down to this one. Views that are chosen by this table are scored a little too well by it.",
)


def table_of_views(run: Run) -> list[str]:
    """Predict the out-of-fold images in each view by itself; write tta.csv and return its lines.

    Scores are of the first metric: of a view alone, averaged with the plain view, and of all views down to this one;
    by the config's own thresholds, as tuned ones were found on these images.
    Raises CompetitionError where `tta` names no view or the run has no out-of-fold images.
    """
    config, files = run.config, run.out_of_fold_files()
    if not config.tta:
        raise CompetitionError(f"{run.folder}: tta names no view; name some, as in tta=[hflip,vflip]")
    if not files:
        raise CompetitionError(f"{run.folder}: no fold has out-of-fold predictions; train one fold first")
    table = Task(config.task).table.read_table(config)
    views = views_of(config.tta)
    rows: list[list[str]] = []
    folder = run.folder / ".views"  # the same for all processes, which write parts of its files
    try:
        for number, view in enumerate(views):
            seconds = sum(_predict(run, table, path, view, _part(folder, number, path)) for path in files)
            if getattr(rank_zero_only, "rank", 0):
                continue  # the first rank scores
            alone, with_plain, so_far = (_score(run, table, files, folder, some) for some in _sets(number))
            per_100 = 100 * seconds / sum(len(Predictions(path)) for path in files)
            rows.append([view.name, f"{alone:.5f}", f"{with_plain:.5f}", f"{so_far:.5f}", f"{per_100:.2f}"])
    finally:
        # What a killed process left there was written over. The others have nothing to write any more: all have met
        # after the last file.
        rank_zero_only(shutil.rmtree)(folder, ignore_errors=True)
    if not rows:
        return []
    write_csv(run.folder / VIEWS, COLUMNS, rows)
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in (COLUMNS, *rows)]
    return [*lines, "", *EXPLAINED]


def _sets(number: int) -> tuple[list[int], list[int], list[int]]:
    """Return the views whose average is scored: this alone, with the plain one (number 0), and all so far."""
    return [number], sorted({0, number}), list(range(number + 1))


def _predict(run: Run, table: Table, stored: Path, view: View, path: Path) -> float:
    """Predict the images of an oof.npz in one view; return the seconds."""
    network, classes = load_network(weights_to_use(stored.parent, run.config.checkpoint))
    dataset = open_dataset(run.config, np.array(Predictions(stored).image_ids, dtype=object), table=table)
    started = time.perf_counter()
    predict_images(run.config, [network], dataset, path, classes, [view])
    return time.perf_counter() - started


def _score(run: Run, table: Table, files: Sequence[Path], folder: Path, views: Sequence[int]) -> float:
    averaged = []
    for path in files:
        target = folder / path.parent.name / "average.npz"  # in a folder of the training's name, as oof.npz is
        average_predictions([Predictions(_part(folder, view, path)) for view in views], target, run.config)
        averaged.append(target)
    return next(iter(score_predictions(run.untuned, table, averaged).values()))


def _part(folder: Path, number: int, stored: Path) -> Path:
    return folder / stored.parent.name / f"{number}.npz"
