"""Classification metrics against scikit-learn and by hand."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from competition.tasks.classification.decode import average, decode
from competition.tasks.classification.kinds.tables import ClassificationTable
from competition.tasks.classification.metrics import MULTI, SINGLE
from competition.tasks.classification.score import constant_answers, scores
from competition.tasks.classification.score import evidence as evidence_for
from competition.tasks.classification.settings import TaskConfig

evidence = partial(evidence_for, metrics=())

ALL = ("accuracy", "macro_f1", "log_loss", "roc_auc")
CONFIG = TaskConfig(name="t", task="classification")
some = settings(max_examples=25, deadline=None)


def score(probabilities: np.ndarray, labels: Sequence[int]) -> dict[str, float]:
    pairs = zip(probabilities, labels, strict=True)
    gathered = [evidence({"probabilities": row}, {"label": label}) for row, label in pairs]
    return scores(gathered, ALL, probabilities.shape[1])


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (n, 4) float32 that sum to 1 and labels with every class among them."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.concatenate([np.arange(4), rng.integers(0, 4, rng.integers(0, 30))]))
    return rng.dirichlet(np.ones(4), len(labels)).astype(np.float32), labels


@given(st.integers(0, 2**20))
@some
def test_metrics_are_those_of_scikit_learn(seed: int) -> None:
    rows, labels = random_case(seed)
    exact = rows.astype(np.float64) / rows.astype(np.float64).sum(1, keepdims=True)
    assert score(rows, labels.tolist()) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(labels, rows.argmax(1)),
            "macro_f1": metrics.f1_score(labels, rows.argmax(1), average="macro", zero_division=0),
            "log_loss": metrics.log_loss(labels, exact),
            "roc_auc": metrics.roc_auc_score(labels, exact, multi_class="ovr"),
        },
        abs=1e-6,
    )


@given(st.integers(0, 2**20))
@some
def test_the_order_of_images_does_not_matter(seed: int) -> None:
    rows, labels = random_case(seed)
    assert score(rows[::-1], labels[::-1].tolist()) == pytest.approx(score(rows, labels.tolist()))


def test_metrics_by_hand() -> None:
    rows = np.array([[0.8, 0.2], [0.4, 0.6], [0.7, 0.3], [0.1, 0.9]])
    found = score(rows, [0, 0, 1, 1])
    # Class 0: 1 right, 1 false, 1 missed: F1 1/2; class 1 the same. Of the four pairs two are in the right order.
    assert found["accuracy"] == 1 / 2
    assert found["macro_f1"] == pytest.approx(1 / 2)
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.4, 0.3, 0.9]).mean())
    assert found["roc_auc"] == pytest.approx(3 / 4)


def test_sure_and_right_is_perfect_and_sure_and_wrong_stays_finite() -> None:
    perfect = {"accuracy": 1, "macro_f1": 1, "log_loss": 0, "roc_auc": 1}
    assert score(np.eye(3), [0, 1, 2]) == pytest.approx(perfect, abs=1e-9)
    wrong = score(np.eye(3)[[1, 2, 0]], [0, 1, 2])
    assert np.isfinite(wrong["log_loss"])
    assert wrong["log_loss"] > 30


@given(st.floats(0.1, 10))
@some
def test_log_loss_makes_rows_sum_to_one(factor: float) -> None:
    rows = np.array([[0.05, 0.04, 0.01], [0.02, 0.03, 0.05]])
    expected = -np.log([0.5, 0.3]).mean()
    assert score(rows * factor, [0, 1])["log_loss"] == pytest.approx(expected)


def test_macro_f1_leaves_out_classes_that_never_occur() -> None:
    rows = np.eye(4)[[0, 1, 0]]
    assert score(rows, [0, 1, 0])["macro_f1"] == 1
    assert score(np.eye(4)[[0, 3]], [0, 0])["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)  # class 3 was said


def test_roc_auc_leaves_out_classes_without_both_sides() -> None:
    rows = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    assert score(rows, [0, 1, 1])["roc_auc"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert score(rows, [1, 1, 1])["roc_auc"] == 0.5


def test_one_image_has_a_score_by_every_metric() -> None:
    """An area that one class leaves undefined is that of a coin, and agreement no better than chance is 0."""
    one = [evidence({"probabilities": np.array([0.25, 0.75])}, {"label": 1})]
    right = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "map5"), 1)
    expected = right | {"log_loss": -np.log(0.75), "roc_auc": 0.5, "qwk": 0}
    assert {name: value for name, value in scores(one, SINGLE, 2).items() if name in expected} == pytest.approx(
        expected
    )
    several = [evidence({"probabilities": np.array([0.25, 0.75])}, {"labels": np.array([False, True])})]
    labels = dict.fromkeys(("accuracy", "balanced_accuracy", "micro_f1", "samples_f1", "voc_map"), 1)
    found = scores(several, MULTI, 2)
    assert found == pytest.approx(
        labels
        | {"macro_f1": 0.5, "pf1": 0.5 * 2 * 0.75 / 1.75}
        | dict.fromkeys(("roc_auc", "alaska"), 0.5)
        | dict.fromkeys(("log_loss", "rsna2022"), -np.log(0.75))
    )


def test_the_blind_submission_gives_the_shares_of_the_classes() -> None:
    labels = np.array([0, 0, 0, 2])
    table: Any = ClassificationTable(np.array(list("abcd"), dtype=object), ("x", "y", "z"), labels + 2, labels)
    name, answer = constant_answers(table)
    assert name == "a constant submission"
    np.testing.assert_allclose(answer["probabilities"], [0.75, 0, 0.25])


def test_no_constant_has_a_lower_log_loss_than_the_blind_submission() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    table: Any = ClassificationTable(np.arange(6).astype(object), ("x", "y", "z"), labels + 2, labels)
    blind = constant_answers(table)[1]["probabilities"]
    best = score(np.tile(blind, (6, 1)), labels.tolist())["log_loss"]
    for other in np.random.default_rng(0).dirichlet(np.ones(3), 20):
        assert score(np.tile(other, (6, 1)), labels.tolist())["log_loss"] >= best


def test_the_average_of_networks_is_the_mean_and_decoding_keeps_it() -> None:
    each = [{"probabilities": np.array(row, dtype=np.float32)} for row in ([0.5, 0.5], [0.75, 0.25])]
    mean = average(each, CONFIG)
    np.testing.assert_allclose(mean["probabilities"], [0.625, 0.375])
    assert mean["probabilities"].dtype == np.float32
    np.testing.assert_array_equal(decode(mean, 5, 7, CONFIG)["probabilities"], mean["probabilities"])
