"""The host's own metric: `score(solution, submission, row_id_column_name, ...)` from a file, used as it is. No torch.

Kaggle's hosts publish their metrics in this form since 2023. It gets data frames as pandas reads them from csv files.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from competition.config.settings import Config, HostMetric
from competition.files.csv_numbers import READ_EXACTLY
from competition.support.atomic_files import csv_text
from competition.support.errors import CompetitionError
from competition.support.user_file import defined_in
from competition.tasks.contract import Target, Task

HOST = "host"  # its name among the metrics
Table = tuple[list[str], Iterable[Iterable[object]]]  # columns and rows


def host_score(metric: HostMetric, solution: Table, submission: Table, row_id: str) -> float:
    """Return the host's score of a submission; raise CompetitionError with what the host's file says is wrong."""
    function = load_score(metric.file)
    try:
        value = function(_frame(*solution), _frame(*submission), row_id, **metric.arguments)
    except Exception as error:  # the file is the host's: it may raise anything
        reason = " ".join(str(error).split())[:300]
        raise CompetitionError(f"{metric.file}: score() failed: {type(error).__name__}: {reason}") from None
    return float(value)


def score_by_host(
    config: Config, classes: Sequence[str], found: Iterable[tuple[str, Target]], true: Iterable[tuple[str, Target]]
) -> dict[str, float]:
    """Return the host's score of answers beside the truth, both pairs of image id and target; none without a host.

    Both are written as submissions are, for the host to compare. Where images are answered by group, the truth says
    which: a training image may have the id of a test image.
    """
    if config.host_metric is None:
        return {}
    submission, groups = Task(config.task).submission, dict[str, Target]()

    def perfect() -> Iterator[tuple[str, Target]]:
        for image_id, truth in true:
            groups[image_id] = {key: truth[key] for key in ("group",) if key in truth}
            yield image_id, {**submission.perfect_answer(truth, len(classes)), **groups[image_id]}

    columns, rows = submission.rows(config, perfect(), classes)
    solution = (columns, list(rows))
    answers = submission.rows(
        config, ((image_id, {**answer, **groups[image_id]}) for image_id, answer in found), classes
    )
    return {HOST: host_score(config.host_metric, solution, answers, columns[0])}


def load_score(path: Path) -> Callable[..., Any]:
    """Return the function `score` of a host's file."""
    return defined_in(path, "score", "host_metric", "function score(solution, submission, row_id, ...)")


def _frame(columns: list[str], rows: Iterable[Iterable[object]]) -> pd.DataFrame:
    """Make the frame that pandas would read from the csv file, types and missing values included."""
    return pd.read_csv(io.StringIO(csv_text(columns, rows)), **READ_EXACTLY)
