"""Metrics of the user's own behind a task's: `metrics: [..., mine.py:NAME]`, functions NAME(answers, truths). No torch.

One gets two lists of what is known of images, by the same keys as a task's answers and truths have (`mask`, `bboxes`,
`label`, ...), in the order of image ids, and returns a number. `NAME.lower_is_better = True` beside it says so.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from competition.config.settings import Config
from competition.support.errors import CompetitionError
from competition.support.user_file import defined_in
from competition.tasks.contract import Evidence, Target, Task

KEPT = "for_users"  # both, packed, in an image's evidence


def load_metric(metric: str) -> Callable[[list[Target], list[Target]], Any]:
    """Return the function of `FILE:NAME`; raise CompetitionError where there is none."""
    file, _, name = metric.rpartition(":")
    return defined_in(Path(file), name, "metrics", f"function {name}(answers, truths)")


def evidence_of(config: Config, answer: Target, truth: Target) -> Evidence:
    """Return what all metrics of a config need to know of an image."""
    own = Task(config.task).score.evidence(answer, truth, config.metrics)
    if not config.metric_files:
        return own
    from competition.support.distributed import packed

    return own | {KEPT: packed((answer, truth))}


def scores_of(config: Config, evidence: Sequence[Evidence], num_classes: int) -> dict[str, float]:
    """Return every metric by name; raise CompetitionError with what is wrong in a file."""
    own = Task(config.task).score.scores(evidence, config.metrics, num_classes)
    if not config.metric_files:
        return own
    from competition.support.distributed import unpacked

    pairs = [unpacked(one[KEPT]) for one in evidence]
    answers, truths = [answer for answer, _ in pairs], [truth for _, truth in pairs]
    return own | {one.rpartition(":")[2]: _value(one, answers, truths) for one in config.metric_files}


def _value(metric: str, answers: list[Target], truths: list[Target]) -> float:
    function = load_metric(metric)
    try:
        return float(function(list(answers), list(truths)))
    except Exception as error:  # the file is the user's: it may raise anything
        reason = " ".join(str(error).split())[:300]
        raise CompetitionError(f"metrics: {metric} failed: {type(error).__name__}: {reason}") from None


def lower_is_better(config: Config, metric: str) -> bool:
    """Return whether a smaller value of a metric is the better one."""
    for one in config.metric_files:
        if one.rpartition(":")[2] == metric:
            return bool(getattr(load_metric(one), "lower_is_better", False))
    return Task(config.task).score.lower_is_better(metric)
