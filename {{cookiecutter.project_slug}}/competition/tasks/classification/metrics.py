"""The metrics by name and target, each of a whole set of images at once. No torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn import metrics as sklearn_metrics

from competition.tasks.average_precision import mean_average_precision

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
    # (n, classes) bool: where the truth is known; none where it is everywhere. Elsewhere truth and labels are false.
    known: np.ndarray | None = None

    def columns(self, said: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for each class the truth, and what is `said` (n, classes), of the images where it is known."""
        known = np.ones(self.truth.shape, dtype=bool) if self.known is None else self.known
        return [(self.truth[here, k], said[here, k]) for k, here in enumerate(known.T)]


@dataclass(frozen=True)
class Numbers:
    """A number an image, or several."""

    values: np.ndarray  # (n, columns)
    truth: np.ndarray  # (n, columns)
    weights: np.ndarray | float = 1.0  # (columns,) of weighted_r2


def accuracy(case: SingleLabels) -> float:
    """Share of images whose class is right."""
    return float((case.truth == case.choice).mean())


def error(case: SingleLabels) -> float:
    """Share of images whose class is wrong: the top-1 error."""
    return 1 - accuracy(case)


def balanced_accuracy(case: SingleLabels) -> float:
    """Mean share of right answers over the classes that occur in the truth."""
    right, _, true = _counts(case)
    return float((right[true > 0] / true[true > 0]).mean())


def macro_recall(case: SingleLabels) -> float:
    """Mean recall over the classes that occur among truth or answers, 0 of one that is only said (scikit-learn's, as in
    Bengali.AI Handwritten Grapheme Classification)."""
    right, said, true = _counts(case)
    occurs = said + true > 0
    return float((right[occurs] / np.maximum(true[occurs], 1)).mean())


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
    return mean_area(_against_the_rest(case))


def _against_the_rest(case: SingleLabels) -> list[tuple[np.ndarray, np.ndarray]]:
    assert case.probabilities is not None
    is_class = case.truth[:, None] == np.arange(case.probabilities.shape[1])
    return list(zip(is_class.T, case.probabilities.T, strict=True))


def map5(case: SingleLabels) -> float:
    """Mean average precision of the five best classes; with one truth an image 1 / its place (Kaggle's MAP@5)."""
    top = case.top[:, :5]
    return float(((top == case.truth[:, None]) / np.arange(1, top.shape[1] + 1)).sum(axis=1).mean())


def mean_area(
    columns: Sequence[tuple[np.ndarray, np.ndarray]],
    area: Callable[[np.ndarray, np.ndarray], float] = sklearn_metrics.roc_auc_score,
) -> float:
    """Return the mean area under the curve of columns of truth and probabilities; those of one class are left out; .5
    if none is left."""
    areas = [area(truth, said) for truth, said in columns if truth.any() and not truth.all()]
    return float(np.mean(areas)) if areas else 0.5


def _voc_map(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """PASCAL VOC's mAP where an image is what is found: the mean over the classes that some images have."""
    numbers = np.tile(np.arange(truth.shape[1]), len(truth))
    return mean_average_precision(truth.reshape(-1, 1), probabilities.ravel(), numbers, truth.sum(axis=0), "voc")


def voc_map(case: SingleLabels) -> float:
    """PASCAL VOC's mean average precision (2010), as SIIM-FISABIO-RSNA COVID-19 (Kaggle, 2021) scores its studies."""
    assert case.probabilities is not None
    return _voc_map(case.probabilities, case.truth[:, None] == np.arange(case.probabilities.shape[1]))


def group_roc_auc(parts: Sequence[SingleLabels | MultiLabels]) -> float:
    """Mean over groups of images of the mean area under the curve over classes; classes that no or all images of a
    group have are left out, and groups without any other; .5 if none is left."""
    areas = [area for area in map(_area_of, parts) if area is not None]
    return float(np.mean(areas)) if areas else 0.5


def _area_of(part: SingleLabels | MultiLabels) -> float | None:
    is_multi = isinstance(part, MultiLabels)
    columns = part.columns(part.probabilities) if is_multi else _against_the_rest(part)
    if both := [(truth, said) for truth, said in columns if truth.any() and not truth.all()]:
        return mean_area(both)
    return None


LOW_RATE, LOW_WEIGHT = 0.4, 2.0  # true positive rates up to it count so many times


def alaska_area(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the area under the curve whose part below a true positive rate of .4 weighs twice, from 0 to 1.

    Source: the evaluation page of ALASKA2 Image Steganalysis (Kaggle, 2020).
    """
    false, true, _ = sklearn_metrics.roc_curve(truth, probabilities, drop_intermediate=False)
    if LOW_RATE not in true:  # cut the piece of the curve that crosses it
        place = int(np.searchsorted(true, LOW_RATE))
        share = (LOW_RATE - true[place - 1]) / (true[place] - true[place - 1])
        false = np.insert(false, place, false[place - 1] + share * (false[place] - false[place - 1]))
        true = np.insert(true, place, LOW_RATE)
    beyond = 1 - (false[1:] + false[:-1]) / 2  # of the false ones, by the true positive rate
    weights = np.diff(true) * np.where(true[1:] <= LOW_RATE, LOW_WEIGHT, 1.0)
    return float((beyond * weights).sum() / weights.sum())


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
    """Share of images of which every class that is known is right."""
    return _mean_of_known(case, (case.labels == case.truth).all(axis=1))


def multi_balanced_accuracy(case: MultiLabels) -> float:
    """Mean over the classes of the share of right answers among images with and among those without the class."""
    shares = [
        [(said == is_it)[is_it == side].mean() for side in np.unique(is_it)]
        for is_it, said in case.columns(case.labels)
        if len(is_it)
    ]
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
    return _mean_of_known(case, np.where(is_empty, 1.0, _f1(case.labels, case.truth, axis=1)))


def _mean_of_known(case: MultiLabels, values: np.ndarray) -> float:
    """Return the mean of what each image has (n,), without images of which nothing is known: there is nothing to say
    wrong. NaN where there is no other."""
    values = values if case.known is None else values[case.known.any(axis=1)]
    return float(values.mean()) if len(values) else np.nan


def multi_log_loss(case: MultiLabels) -> float:
    """Mean binary log loss, over the classes weighted by `format.class_weights` as in RSNA's hemorrhage detection."""
    columns = case.columns(_losses(case))
    is_known = [len(losses) > 0 for _, losses in columns]
    means = [losses.mean() for _, losses in columns if len(losses)]
    if not means:
        return np.nan
    return float(np.average(means, weights=case.class_weights[is_known]))


def _losses(case: MultiLabels) -> np.ndarray:
    """Return the binary log loss (n, classes) of each label."""
    sure = np.clip(case.probabilities.astype(np.float64), SMALLEST, 1 - SMALLEST)
    return -np.where(case.truth, np.log(sure), np.log1p(-sure))


def rsna2022(case: MultiLabels) -> float:
    """Mean over the images of the binary log loss weighted by `format.class_weights`, twice where the label is true.

    Source: RSNA 2022 Cervical Spine Fracture Detection (Kaggle), where each study's loss is divided by its weights.
    """
    weights = case.class_weights * np.where(case.truth, 2.0, 1.0)
    weights = weights if case.known is None else weights * case.known
    total = weights.sum(axis=1)
    return float(((_losses(case) * weights).sum(axis=1)[total > 0] / total[total > 0]).mean())


def multi_roc_auc(case: MultiLabels) -> float:
    """Mean area under the curve over the classes that some images have and others not."""
    return mean_area(case.columns(case.probabilities))


def alaska(case: MultiLabels) -> float:
    """Mean over the classes of ALASKA2's weighted area under the curve."""
    return mean_area(case.columns(case.probabilities), alaska_area)


def multi_voc_map(case: MultiLabels) -> float:
    """The same of any number of classes an image; where a label is not known it is no answer."""
    said = case.probabilities if case.known is None else np.where(case.known, case.probabilities, -1.0)
    return _voc_map(said, case.truth)


def pf1(case: MultiLabels) -> float:
    """Probabilistic F1 (Yacouby and Axman 2020, as in RSNA's breast cancer detection), mean over the classes.

    Probabilities count as that share of an answer; where decisions are handed in it is their F1.
    """
    said = case.labels if case.is_decision else case.probabilities
    said = said if case.known is None else said * case.known
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


def r2(case: Numbers) -> float:
    """Coefficient of determination, mean over the columns; 0 for one whose truths are all the same."""
    return float(np.mean([_determined(*each, 1.0) for each in zip(case.values.T, case.truth.T, strict=True)]))


def weighted_r2(case: Numbers) -> float:
    """Coefficient of determination of all columns' numbers together, weighted by `format.class_weights` (Kaggle's CSIRO
    - Image2Biomass)."""
    return _determined(case.values, case.truth, np.broadcast_to(case.weights, case.truth.shape))


def _determined(values: np.ndarray, truth: np.ndarray, weights: np.ndarray | float) -> float:
    weights = np.broadcast_to(weights, truth.shape)
    spread = (weights * (truth - np.average(truth, weights=weights)) ** 2).sum()
    return float(1 - (weights * (values - truth) ** 2).sum() / spread) if spread > 0 else 0.0


def rounded_kappa(case: Numbers) -> float:
    """Kappa with quadratic weights of the numbers rounded to whole ones, mean over the columns."""
    pairs = zip(np.rint(case.values).T, np.rint(case.truth).T, strict=True)
    return float(np.mean([kappa(values, truth) for values, truth in pairs]))


SINGLE: dict[str, Callable[[SingleLabels], float]] = {
    "accuracy": accuracy,
    "error": error,
    "balanced_accuracy": balanced_accuracy,
    "macro_recall": macro_recall,
    "macro_f1": macro_f1,
    "micro_f1": accuracy,  # with one class said and one true an image the two are the same
    "log_loss": log_loss,
    "roc_auc": roc_auc,
    "voc_map": voc_map,
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
    "rsna2022": rsna2022,
    "roc_auc": multi_roc_auc,
    "alaska": alaska,
    "pf1": pf1,
    "voc_map": multi_voc_map,
}
NUMBERS: dict[str, Callable[[Numbers], float]] = {
    "rmse": rmse,
    "mae": mae,
    "r2": r2,
    "weighted_r2": weighted_r2,
    "qwk": rounded_kappa,
}
