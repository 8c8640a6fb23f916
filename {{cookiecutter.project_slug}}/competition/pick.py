"""`competition runs --pick`: which two submissions to choose for the final score. No torch.

The best by cross-validation, and of those that fold noise does not tell from it the one that predicts the least alike:
where the hidden part of the test set is unlike the public one, two that are alike would fall together. With two folds
noise tells nothing apart; then the next best is taken.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from competition.averages import side_by_side
from competition.comparison import Gain, paired_gain, why_not_comparable
from competition.errors import CompetitionError
from competition.ledger import Line
from competition.places import here
from competition.predictions import Predictions
from competition.record import IN_TRAINING
from competition.runs import SUBMISSION, TEST, Run
from competition.task import Task


def pick(lines: Mapping[str, Line]) -> list[str]:
    """Name the two with the reasons; raise CompetitionError where no run can be handed in."""
    ready = [line for line in lines.values() if _why_not_ready(line) is None]
    if not ready:
        reasons = "; ".join(f"{line.run}: {_why_not_ready(line)}" for line in lines.values() if not line.is_retired)
        raise CompetitionError(f"no run can be picked yet ({reasons or 'there is none'})")
    newest = ready[-1]  # is of the metric and the folds that are used now
    likely = [line for line in ready if (line.metric, line.folds_csv) == (newest.metric, newest.folds_csv)]
    most = max(len(line.fold_scores) for line in likely)  # the mean of fewer may be luck
    best = max(
        (line for line in likely if len(line.fold_scores) == most), key=lambda line: line.sign * float(line.mean)
    )
    good: dict[str, tuple[float, Gain]] = {}
    notes = []
    for line in lines.values():
        if line == best or line.is_retired:
            continue
        reason = _why_not_ready(line) or why_not_comparable(best, line)
        gain = None if reason else paired_gain(best, line)
        if gain is not None and not gain.is_noise and gain.mean < 0:
            reason = f"worse than {best.run} by {-gain.mean:.4f}, which is more than fold noise"
        alike = None if reason else correlation(best.run, line.run)
        if alike is None or gain is None:
            notes.append(f"  not {line.run}: {reason or 'its test.npz is of other images or classes'}")
            continue
        good[line.run] = (alike, gain)
    return [*_best_in_words(best), *_second_in_words(best, good), *notes]


def correlation(one: str, other: str) -> float | None:
    """Return Pearson's correlation of what two runs predict for the test images, read image by image; None where they
    are of other images or classes. What never varies correlates with nothing: 0."""
    first, second = (Predictions(here().outputs / run / TEST) for run in (one, other))
    config = Run.open(one).config
    if set(first.image_ids) != set(second.image_ids) or first.classes != second.classes:
        return None
    summary = Task(config.task).summary.summary
    sums, number = np.zeros(5), 0
    for _, (height, width), each in side_by_side([first, second]):
        x, y = (summary(prediction, height, width, len(first.classes)) for prediction in each)
        if x.shape != y.shape:
            return None
        sums += [x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]
        number += len(x)
    mean_x, mean_y, xx, yy, xy = sums / max(number, 1)
    spread = (xx - mean_x**2) * (yy - mean_y**2)
    return float((xy - mean_x * mean_y) / np.sqrt(spread)) if spread > 1e-18 else 0.0


def _why_not_ready(line: Line) -> str | None:
    """Say what a run lacks to be picked."""
    folder = here().outputs / line.run
    if not folder.is_dir():
        return "its folder was deleted"
    if math.isnan(float(line.mean or "nan")) or line.thresholds == IN_TRAINING:
        return f"has no cross-validated score; `competition tune {line.run}`"
    for name, verb in ((TEST, "predict"), (SUBMISSION, "submit")):
        if not (folder / name).is_file():
            return f"has no {name}; `competition {verb} {line.run}`"
    return None


def _best_in_words(best: Line) -> list[str]:
    score = f"{best.metric} {float(best.mean):.4f} ± {float(best.std or 0):.4f}, {best.thresholds}"
    return [f"1. {best.run}: the best out of fold ({score})", f"   {_file(best.run)}"]


def _second_in_words(best: Line, good: Mapping[str, tuple[float, Gain]]) -> list[str]:
    if not good:
        return [f"2. none: no other run that can be compared with {best.run} is as good but for fold noise"]
    few = {name: one for name, one in good.items() if one[1].is_of_few_folds}
    if len(few) == len(good):
        return _next_best_in_words(best, few)
    passed_over = [f"  not {name}: {len(gain.by_fold)} folds in common are too few" for name, (_, gain) in few.items()]
    return [*_least_alike_in_words(best, {name: good[name] for name in good if name not in few}), *passed_over]


def _next_best_in_words(best: Line, good: Mapping[str, tuple[float, Gain]]) -> list[str]:
    """Name the next best: where folds are too few to call a run worse, the least alike may be the worst of all."""
    run = max(good, key=lambda name: good[name][1].mean)
    alike, gain = good[run]
    others = ", ".join(f"{name} {one.mean:+.4f}" for name, (_, one) in good.items() if name != run)
    why = (
        f"the next best out of fold ({gain.mean:+.4f}); {len(gain.by_fold)} folds are too few to tell which are as "
        f"good but for fold noise. Its test predictions correlate {alike:.3f} with those of {best.run}"
    )
    return _second(run, why, "not so good", others)


def _least_alike_in_words(best: Line, good: Mapping[str, tuple[float, Gain]]) -> list[str]:
    run = min(good, key=lambda name: good[name][0])
    alike, gain = good[run]
    others = ", ".join(f"{name} {value:.3f}" for name, (value, _) in good.items() if name != run)
    why = (
        f"as good but for fold noise ({gain.mean:+.4f}, standard error {gain.error:.4f}, {len(gain.by_fold)} folds), "
        f"and the least alike: its test predictions correlate {alike:.3f} with those of {best.run}"
    )
    return _second(run, why, "also good, but more alike", others)


def _second(run: str, why: str, about_others: str, others: str) -> list[str]:
    return [f"2. {run}: {why}", f"   {_file(run)}", *([f"  {about_others}: {others}"] if others else [])]


def _file(run: str) -> Path:
    return here().outputs / run / SUBMISSION
