"""The metrics by name and target, each of a whole set of images at once. No torch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn import metrics as sklearn_metrics

SMALLEST = 1e-15  # a probability of 0 for what is true would cost infinitely much; Kaggle cuts off here


@dataclass(frozen=True)
class SingleLabels:
    """One class an image."""

    probabilities: np.ndarray | None  # (n, classes); none where only the best classes are handed in
    choice: np.ndarray  # (n,) int
    top: np.ndarray  # (n, k) int, the best first
    truth: np.ndarray  # (n,) int; -1 for a class that train.csv does not have
    grades: np.ndarray | None = None  # (classes,) the numbers that classes are names of, for qwk; or their places


@dataclass(frozen=True)
class MultiLabels:
    """Any number of classes an image."""

    probabilities: np.ndarray  # (n, classes)
    labels: np.ndarray  # (n, classes) bool, what is decided
    truth: np.ndarray  # (n, classes) bool
    class_weights: np.ndarray  # (classes,) of log_loss
    is_decision: bool = False  # whether labels are handed in in place of probabilities


@dataclass(frozen=True)
class Numbers:
    """A number an image, or several."""

    values: np.ndarray  # (n, columns)
    truth: np.ndarray  # (n, columns)


def accuracy(case: SingleLabels) -> float:
    """Share of images whose class is right."""
    return float((case.truth == case.choice).mean())


def balanced_accuracy(case: SingleLabels) -> float:
    """Mean share of right answers over the classes that occur in the truth."""
    right, _, true = _counts(case)
    return float((right[true > 0] / true[true > 0]).mean())


def macro_f1(case: SingleLabels) -> float:
    """Mean F1 over the classes that occur among truth or answers."""
    right, said, true = _counts(case)
    occurs = said + true > 0
    return float((2 * right[occurs] / (said + true)[occurs]).mean())


def _counts(case: SingleLabels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how often each class is right, said and true; by counting, as tuning asks thousands of times."""
    lowest = min(int(case.truth.min()), int(case.choice.min()))
    number = max(int(case.truth.max()), int(case.choice.max())) - lowest + 1
    sets = (case.truth[case.truth == case.choice], case.choice, case.truth)
    right, said, true = (np.bincount(each - lowest, minlength=number) for each in sets)
    return right, said, true


def log_loss(case: SingleLabels) -> float:
    """Mean negative log of the true class's probability, after rows are made to sum to 1 as Kaggle does."""
    assert case.probabilities is not None
    known = np.flatnonzero(case.truth >= 0)
    clipped = np.clip(case.probabilities[known].astype(np.float64), SMALLEST, 1)
    of_truth = clipped[np.arange(len(known)), case.truth[known]] / clipped.sum(axis=1)
    return -np.log(of_truth).mean() if len(known) else np.nan


def roc_auc(case: SingleLabels) -> float:
    """Mean area under the curve of one class against the rest, of the classes that some images have and others not."""
    assert case.probabilities is not None
    return mean_area(case.truth[:, None] == np.arange(case.probabilities.shape[1]), case.probabilities)


def map5(case: SingleLabels) -> float:
    """Mean average precision of the five best classes; with one truth an image 1 / its place (Kaggle's MAP@5)."""
    top = case.top[:, :5]
    return float(((top == case.truth[:, None]) / np.arange(1, top.shape[1] + 1)).sum(axis=1).mean())


def mean_area(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean area under the curve of the columns (n, classes); those of one class are left out; .5 if none
    is left."""
    areas = [
        sklearn_metrics.roc_auc_score(is_class, probability)
        for is_class, probability in zip(truth.T, probabilities.T, strict=True)
        if is_class.any() and not is_class.all()
    ]
    return float(np.mean(areas)) if areas else 0.5


def kappa(answers: np.ndarray, truth: np.ndarray) -> float:
    """Return Cohen's kappa with quadratic weights (Cohen 1968) of whole numbers (n,); 0 where all are the same.

    Its two sums over the table of answers and truth are means of squared differences: of each image's pair, and of
    every answer with every truth, which is var(a) + var(t) + (mean(a) - mean(t))^2.
    """
    by_chance = answers.var() + truth.var() + (answers.mean() - truth.mean()) ** 2
    return float(1 - ((answers - truth) ** 2).mean() / by_chance) if by_chance > 0 else 0.0


def graded_kappa(case: SingleLabels) -> float:
    """Kappa with quadratic weights of the grades: by what numbers the classes are, as 0, 1, 2 and 4, or else by their
    places."""
    if case.grades is None:
        return kappa(case.choice.astype(np.float64), case.truth.astype(np.float64))
    # An unknown class, number -1, is one below the lowest.
    grades = np.append(case.grades, case.grades.min() - 1)
    return kappa(grades[case.choice], grades[case.truth])


def multi_accuracy(case: MultiLabels) -> float:
    """Share of images of which every class is right."""
    return float((case.labels == case.truth).all(axis=1).mean())


def multi_balanced_accuracy(case: MultiLabels) -> float:
    """Mean over the classes of the share of right answers among images with and among those without the class."""
    columns = zip(case.truth.T, case.labels.T, strict=True)
    shares = [[(said == is_it)[is_it == side].mean() for side in np.unique(is_it)] for is_it, said in columns]
    return float(np.mean([np.mean(each) for each in shares]))


def multi_macro_f1(case: MultiLabels) -> float:
    """Mean F1 over the classes; 0 for a class that neither truth nor answers have. Of one class, its F1."""
    return float(_f1(case.labels, case.truth, axis=0).mean())


def multi_micro_f1(case: MultiLabels) -> float:
    """F1 of all pairs of image and class together."""
    return float(_f1(case.labels, case.truth, axis=None))


def samples_f1(case: MultiLabels) -> float:
    """Mean F1 over the images; 1 for one that has no class and is given none."""
    is_empty = ~(case.labels | case.truth).any(axis=1)
    return float(np.where(is_empty, 1.0, _f1(case.labels, case.truth, axis=1)).mean())


def multi_log_loss(case: MultiLabels) -> float:
    """Mean binary log loss, over the classes weighted by `format.class_weights` as in RSNA's hemorrhage detection."""
    sure = np.clip(case.probabilities.astype(np.float64), SMALLEST, 1 - SMALLEST)
    losses = -np.where(case.truth, np.log(sure), np.log1p(-sure)).mean(axis=0)
    return float(np.average(losses, weights=case.class_weights))


def multi_roc_auc(case: MultiLabels) -> float:
    """Mean area under the curve over the classes that some images have and others not."""
    return mean_area(case.truth, case.probabilities)


def pf1(case: MultiLabels) -> float:
    """Probabilistic F1 (Yacouby and Axman 2020, as in RSNA's breast cancer detection), mean over the classes.

    Probabilities count as that share of an answer; where decisions are handed in it is their F1.
    """
    said = case.labels if case.is_decision else case.probabilities
    return float(_f1(said.astype(np.float64), case.truth, axis=0).mean())


def _f1(said: np.ndarray, truth: np.ndarray, axis: int | None) -> np.ndarray:
    """Return 2 TP / (2 TP + FP + FN) along an axis; 0 where there is nothing."""
    both = (said * truth).sum(axis=axis, dtype=np.float64)
    total = said.sum(axis=axis, dtype=np.float64) + truth.sum(axis=axis, dtype=np.float64)
    return np.divide(2 * both, total, out=np.zeros_like(total), where=total > 0)


def rmse(case: Numbers) -> float:
    """Root of the mean squared difference, mean over the columns."""
    return float(np.sqrt(((case.values - case.truth) ** 2).mean(axis=0)).mean())


def mae(case: Numbers) -> float:
    """Mean difference, without its sign."""
    return float(np.abs(case.values - case.truth).mean())


def rounded_kappa(case: Numbers) -> float:
    """Kappa with quadratic weights of the numbers rounded to whole ones, mean over the columns."""
    pairs = zip(np.rint(case.values).T, np.rint(case.truth).T, strict=True)
    return float(np.mean([kappa(values, truth) for values, truth in pairs]))


SINGLE: dict[str, Callable[[SingleLabels], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "micro_f1": accuracy,  # with one class said and one true an image the two are the same
    "log_loss": log_loss,
    "roc_auc": roc_auc,
    "map5": map5,
    "qwk": graded_kappa,
}
MULTI: dict[str, Callable[[MultiLabels], float]] = {
    "accuracy": multi_accuracy,
    "balanced_accuracy": multi_balanced_accuracy,
    "macro_f1": multi_macro_f1,
    "micro_f1": multi_micro_f1,
    "samples_f1": samples_f1,
    "log_loss": multi_log_loss,
    "roc_auc": multi_roc_auc,
    "pf1": pf1,
}
# Those that thresholds do not change, so that there is nothing to tune.
OF_PROBABILITIES = ("log_loss", "roc_auc", "map5")
NUMBERS: dict[str, Callable[[Numbers], float]] = {"rmse": rmse, "mae": mae, "qwk": rounded_kappa}
