"""Whether one run is better than another: the difference fold by fold, against how much it varies. No torch.

The paired t-test over folds: https://en.wikipedia.org/wiki/Student%27s_t-test#Dependent_t-test_for_paired_samples.
Folds share training images, so that it is a little too sure: what it calls noise is noise.
"""

import math
import statistics
from dataclasses import dataclass

from competition.ledger import BY_HAND, Line

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
        if line.thresholds == BY_HAND:
            return (
                f"{line.run} was submitted by thresholds given by hand, which no scores are of; submit it by its own: "
                f"`competition submit {line.run}`"
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
