"""The metrics, each computed once over the whole set, by scikit-learn."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from sklearn import metrics as sklearn_metrics

from competition.task import Evidence, Table, Target


def evidence(answer: Target, truth: Target) -> Evidence:
    """Keep probabilities and label."""
    return {"probabilities": answer["probabilities"], "label": np.array(truth["label"])}


def scores(evidence: Sequence[Evidence], metrics: Iterable[str], num_classes: int) -> dict[str, float]:
    """Compute metrics over all images.

    accuracy and macro_f1 take the likeliest class; macro_f1 is the mean over the classes that occur. log_loss is in
    nats. roc_auc is the mean over classes of one against the rest, of those classes that some images have and
    others have not; .5 if there is none.
    """
    probabilities = np.stack([one["probabilities"] for one in evidence]).astype(np.float64)
    labels = np.array([int(one["label"]) for one in evidence])
    return {name: float(METRICS[name](probabilities, labels)) for name in metrics}


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose likeliest class is right."""
    return sklearn_metrics.accuracy_score(labels, probabilities.argmax(1))


def macro_f1(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean F1 over the classes that occur among labels or answers."""
    return sklearn_metrics.f1_score(labels, probabilities.argmax(1), average="macro", zero_division=0)


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log of the true class's probability, after rows are made to sum to 1 as Kaggle does."""
    rows = np.clip(probabilities, 1e-15, 1)
    rows /= rows.sum(axis=1, keepdims=True)
    return -np.log(rows[np.arange(len(labels)), labels]).mean()


def roc_auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean area under the curve of one class against the rest."""
    areas = []
    for number in range(probabilities.shape[1]):
        is_class = labels == number
        if is_class.any() and not is_class.all():
            areas.append(sklearn_metrics.roc_auc_score(is_class, probabilities[:, number]))
    return float(np.mean(areas)) if areas else 0.5


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "log_loss": log_loss,
    "roc_auc": roc_auc,
}


def lower_is_better(metric: str) -> bool:
    """Return whether a smaller value is the better one."""
    return metric == "log_loss"


def constant_answers(table: Table) -> tuple[str, Target]:
    """The best blind submission gives every image the shares of the classes in train.csv."""
    counts = np.bincount(table.strata(), minlength=len(table.classes))
    return "a constant submission", {"probabilities": counts / counts.sum()}
