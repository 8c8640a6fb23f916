"""Metrics of several labels and of numbers, and those of the best classes: by scikit-learn and by hand."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from competition.tasks.classification.kinds.tables import ClassificationTable, MultiLabelTable, RegressionTable
from competition.tasks.classification.metrics import kappa
from competition.tasks.classification.score import constant_answers, lower_is_better, scores
from competition.tasks.classification.score import evidence as evidence_for

evidence = partial(evidence_for, metrics=())

some = settings(max_examples=25, deadline=None)
MULTI = ("accuracy", "balanced_accuracy", "log_loss", "roc_auc", "macro_f1", "micro_f1", "samples_f1", "pf1")


def score_labels(
    probabilities: np.ndarray, truth: np.ndarray, names: tuple[str, ...] = MULTI, weights: np.ndarray | None = None
) -> dict[str, float]:
    more = {} if weights is None else {"class_weights": weights}
    pairs = zip(probabilities, truth, strict=True)
    gathered = [evidence({"probabilities": p, "labels": p >= 0.5}, {"labels": y, **more}) for p, y in pairs]
    return scores(gathered, names, truth.shape[1])


def score_numbers(values: list[float], truth: list[float]) -> dict[str, float]:
    pairs = zip(values, truth, strict=True)
    gathered = [evidence({"value": np.array([v])}, {"value": np.array([t])}) for v, t in pairs]
    return scores(gathered, ("rmse", "mae", "qwk"), 1)


def random_labels(seed: int, num_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and truth (n, classes) in which each class occurs and lacks."""
    rng = np.random.default_rng(seed)
    truth = rng.random((rng.integers(4, 40), num_classes)) < 0.4
    truth[0], truth[1] = True, False
    return rng.random(truth.shape), truth


@given(st.integers(0, 2**20))
@some
def test_metrics_of_several_labels_are_those_of_scikit_learn(seed: int) -> None:
    probabilities, truth = random_labels(seed)
    labels = probabilities >= 0.5
    columns = list(zip(truth.T, labels.T, strict=True))
    f1 = {
        kind: metrics.f1_score(truth, labels, average=kind, zero_division=0) for kind in ("macro", "micro", "samples")
    }
    empty = ~(truth | labels).any(axis=1)  # scikit-learn has one value for all that is 0 / 0; here 1 is meant
    assert score_labels(probabilities, truth) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(truth, labels),
            "balanced_accuracy": np.mean([metrics.balanced_accuracy_score(y, said) for y, said in columns]),
            "log_loss": np.mean([metrics.log_loss(y, p) for y, p in zip(truth.T, probabilities.T, strict=True)]),
            "roc_auc": metrics.roc_auc_score(truth, probabilities),
            "macro_f1": f1["macro"],
            "micro_f1": f1["micro"],
            "samples_f1": f1["samples"] + empty.mean(),
            "pf1": np.mean([pf1_of_the_paper(y, p) for y, p in zip(truth.T, probabilities.T, strict=True)]),
        }
    )


def pf1_of_the_paper(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Harmonic mean of probabilistic precision and recall, as the host of RSNA's breast cancer detection has it."""
    hits, misses = probabilities[truth].sum(), probabilities[~truth].sum()
    precision, recall = hits / (hits + misses), hits / truth.sum()
    return 2 * precision * recall / (precision + recall)


@given(st.integers(0, 2**20))
@some
def test_f1_of_a_yes_or_no_is_that_of_the_yes(seed: int) -> None:
    probabilities, truth = random_labels(seed, num_classes=1)
    expected = metrics.f1_score(truth[:, 0], probabilities[:, 0] >= 0.5, zero_division=0)
    found = score_labels(probabilities, truth, ("macro_f1", "micro_f1"))
    assert found == pytest.approx({"macro_f1": expected, "micro_f1": expected})


def test_log_loss_may_count_a_class_double() -> None:
    probabilities, truth = np.array([[0.5, 0.25]]), np.array([[True, False]])
    weighted = score_labels(probabilities, truth, ("log_loss",), np.array([2.0, 1.0]))
    assert weighted == {"log_loss": pytest.approx((2 * np.log(2) + np.log(4 / 3)) / 3)}


def test_an_area_leaves_out_columns_of_one_class() -> None:
    truth = np.array([[True, True], [False, True]])
    assert score_labels(np.array([[0.9, 0.1], [0.8, 0.2]]), truth, ("roc_auc",)) == {"roc_auc": 1}
    assert score_labels(np.array([[0.9, 0.1]]), truth[:1], ("roc_auc",)) == {"roc_auc": 0.5}


def test_where_decisions_are_handed_in_pf1_is_their_f1() -> None:
    answers = [{"probabilities": np.array([p]), "labels": np.array([p > 0.5]), "is_decision": True} for p in (0.6, 0.4)]
    truths = [{"labels": np.array([True])}, {"labels": np.array([False])}]
    gathered = [evidence(answer, truth) for answer, truth in zip(answers, truths, strict=True)]
    assert scores(gathered, ["pf1"], 1) == {"pf1": 1}


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=40))
@some
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    said, truth = np.array(pairs, dtype=np.float64).T
    if len(set(said) | set(truth)) > 1:
        expected = metrics.cohen_kappa_score(truth, said, weights="quadratic", labels=np.arange(7))
        assert kappa(said, truth) == pytest.approx(expected)
    else:
        assert kappa(said, truth) == 0


def test_metrics_of_numbers_by_hand() -> None:
    found = score_numbers([1, 2.2, 5], [1, 3, 3])
    assert found["rmse"] == pytest.approx(np.sqrt((0.8**2 + 2**2) / 3))
    assert found["mae"] == pytest.approx(2.8 / 3)
    assert found["qwk"] == pytest.approx(kappa(np.array([1.0, 2, 5]), np.array([1.0, 3, 3])))
    perfect = score_numbers([1, 2, 3], [1, 2, 3])
    assert perfect == {"rmse": 0, "mae": 0, "qwk": 1}


def test_the_root_of_squares_is_a_mean_over_columns() -> None:
    gathered = [evidence({"value": np.zeros(2)}, {"value": np.array([3.0, 5.0])})]
    assert scores(gathered, ["rmse"], 2) == {"rmse": 4}


def test_map5_is_one_over_the_place_of_the_truth_among_the_best_five() -> None:
    probabilities = np.array([0.3, 0.25, 0.2, 0.1, 0.08, 0.07])
    for label, expected in enumerate((1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 0)):
        assert scores([evidence({"probabilities": probabilities}, {"label": label})], ["map5"], 6) == {"map5": expected}


def test_classes_in_order_are_scored_by_kappa() -> None:
    rows, labels = np.eye(4)[[0, 3, 2, 1]], [0, 2, 2, 1]
    gathered = [evidence({"probabilities": row}, {"label": label}) for row, label in zip(rows, labels, strict=True)]
    expected = metrics.cohen_kappa_score(labels, [0, 3, 2, 1], weights="quadratic", labels=range(4))
    balanced = metrics.recall_score(labels, [0, 3, 2, 1], average="macro", labels=[0, 1, 2])
    assert scores(gathered, ["qwk", "balanced_accuracy"], 4) == pytest.approx(
        {"qwk": expected, "balanced_accuracy": balanced}
    )


def test_grades_that_leave_one_out_are_scored_by_their_values() -> None:
    """As 0, 1, 2 and 4: from 2 to 4 it is twice as far as from 1 to 2."""
    names, rng = ("0", "1", "2", "4"), np.random.default_rng(0)
    labels, said = rng.integers(4, size=(2, 50))
    ids: Any = np.arange(50).astype(object)
    for classes in (names, ("none", "mild", "severe", "worst")):
        table: Any = ClassificationTable(ids, classes, np.arange(50), labels)
        gathered = [
            evidence_for({"probabilities": np.eye(4)[one], "choice": one}, table.target(i, 1, 1), ["qwk"])
            for i, one in enumerate(said)
        ]
        grades = np.array([0, 1, 2, 4]) if classes == names else np.arange(4)
        places = np.arange(5) if classes == names else np.arange(4)
        expected = metrics.cohen_kappa_score(grades[labels], grades[said], weights="quadratic", labels=places)
        assert scores(gathered, ["qwk"], 4)["qwk"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["log_loss", "rmse", "mae", "accuracy", "roc_auc", "qwk", "map5", "pf1"])
def test_which_way_is_better(name: str) -> None:
    assert lower_is_better(name) == (name in ("log_loss", "rmse", "mae"))


def test_the_blind_submission_of_labels_and_numbers_is_their_mean() -> None:
    ids = np.array(list("abcd"), dtype=object)
    labels = np.array([[1, 0], [1, 1], [1, 0], [0, 0]], dtype=bool)
    multi: Any = MultiLabelTable(ids, ("x", "y"), np.arange(4), labels)
    answer = constant_answers(multi)[1]
    assert answer["probabilities"].tolist() == [0.75, 0.25]
    assert answer["labels"].tolist() == [True, False]
    numbers: Any = RegressionTable(ids, ("x",), np.arange(4), np.array([[1.0], [2], [3], [10]]))
    assert constant_answers(numbers)[1]["value"].tolist() == [4]
