"""Whether one run is better than another, fold by fold, and which two to choose for the final score. No torch."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from competition.comparison.update_ledger import IN_TRAINING
from competition.prediction.averages import side_by_side
from competition.prediction.stored import Predictions
from competition.runs.folder import SUBMISSION, TEST, Run
from competition.runs.ledger import UNSCORED, Line
from competition.support.errors import CompetitionError
from competition.support.paths import here
from competition.tasks.contract import Task

SURE = 0.05  # chance, at most, of a difference as large between two equal runs
ENOUGH = 3  # folds: with two the difference must be 13 times its standard error, so that next to nothing is ever told
RESOLVED = 1e-6  # scores are kept to six digits: so far may the difference of two be off


@dataclass(frozen=True)
class Gain:
    """How much better one run is than another on each fold, by number; a loss is negative, whatever the metric."""

    by_fold: dict[str, float]

    @property
    def mean(self) -> float:
        """Return the mean over folds."""
        return statistics.fmean(self.by_fold.values())

    @property
    def error(self) -> float:
        """Return the standard error of the mean."""
        return statistics.stdev(self.by_fold.values()) / math.sqrt(len(self.by_fold))

    @property
    def t(self) -> float:
        """Return the mean in standard errors."""
        return self.mean / max(self.error, RESOLVED)

    @property
    def chance(self) -> float:
        """Return how likely two equal runs are to differ so much, either way."""
        from scipy.special import stdtr

        return float(2 * stdtr(len(self.by_fold) - 1, -abs(self.t)))

    @property
    def is_noise(self) -> bool:
        """Return whether the folds cannot tell the runs apart."""
        return not self.chance < SURE

    @property
    def is_of_few_folds(self) -> bool:
        """Return whether it says little that the folds cannot tell the runs apart."""
        return len(self.by_fold) < ENOUGH

    def in_words(self, one: str, other: str, metric: str) -> str:
        """Say what `other` gains over `one`."""
        number, wins = len(self.by_fold), sum(gain > 0 for gain in self.by_fold.values())
        if all(abs(gain) < 1.5 * RESOLVED for gain in self.by_fold.values()):
            return f"{other} scores as {one} does on every fold"
        better = "better" if self.mean >= 0 else "worse"
        on_folds = wins if self.mean >= 0 else sum(gain < 0 for gain in self.by_fold.values())
        start = (
            f"{other} is {better} than {one} by {abs(self.mean):.4f} {metric} (standard error {self.error:.4f}), on "
            f"{on_folds} of {number} folds"
        )
        chance = f"t = {self.t:.2f}; two equal runs differ as much with a chance of {self.chance:.2g}"
        if self.is_noise and self.is_of_few_folds:
            return f"{start}, which are too few to tell it from fold noise ({chance})"
        if self.is_noise:
            return f"{start}: within fold noise ({chance})"
        return f"{start}: larger than fold noise ({chance})"


def why_not_comparable(one: Line, other: Line) -> str | None:
    """Say why the scores of two runs cannot be compared fold by fold; None where they can."""
    for line in (one, other):
        if line.thresholds in UNSCORED:
            return (
                f"{line.run} is handed in by thresholds given by hand, which no scores are of; submit it by its own: "
                f"`competition submit {line.run}`, where they stand in its postprocess.yaml after `competition tune "
                f"{line.run}`"
            )
        if not line.scores:
            return f"{line.run} has no score by fold yet: train its folds and run `competition tune {line.run}`"
    if one.metric != other.metric:
        return f"{one.run} is scored by {one.metric}, {other.run} by {other.metric}"
    if not one.folds_csv or not other.folds_csv:
        unknown = other.run if one.folds_csv else one.run
        return f"which folds.csv {unknown} was trained with is not known"
    if one.folds_csv != other.folds_csv:
        return f"they were trained with different folds.csv ({one.folds_csv} and {other.folds_csv})"
    common = one.fold_scores.keys() & other.fold_scores.keys()
    if len(common) < 2:
        return f"they have {len(common)} fold in common ({one.scores} and {other.scores}); two at least are needed"
    return None


def paired_gain(one: Line, other: Line) -> Gain:
    """Return what `other` gains over `one` on the folds that both have; ask `why_not_comparable` first."""
    before, after = one.fold_scores, other.fold_scores
    return Gain({fold: one.sign * (after[fold] - before[fold]) for fold in before if fold in after})


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
    summary = Task(config.task).outcome.summary
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
