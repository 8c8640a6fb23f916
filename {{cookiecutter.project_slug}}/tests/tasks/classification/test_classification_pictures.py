"""How labels and numbers are told and compared with the truth, by hand."""

import numpy as np
import pytest
from competition.tasks.classification.outcome import outcome
from competition.tasks.classification.picture import caption
from competition.tasks.contract import Target

CLASSES = ("cat", "dog", "emu")


def of(probabilities: list[float], truth: Target, **answer: object) -> tuple[float, float, float]:
    """Return score, too much and too little."""
    stored = np.array(probabilities, dtype=np.float32)
    found = outcome({"probabilities": stored}, {"probabilities": stored, **answer}, truth, len(stored))
    return found.score, found.too_much, found.too_little


def test_one_label_is_scored_by_the_probability_of_the_truth() -> None:
    assert of([0.2, 0.7, 0.1], {"label": 1}) == pytest.approx((0.7, 0, 0))
    assert of([0.2, 0.7, 0.1], {"label": 0}) == pytest.approx((0.2, 0.7, 0.8))


def test_what_is_decided_counts_and_not_only_the_probability() -> None:
    assert of([0.2, 0.7, 0.1], {"label": 0}, choice=0)[1:] == (0, 0)


def test_several_labels_are_scored_by_all_and_wrong_by_those_that_were_decided() -> None:
    score, too_much, too_little = of(
        [0.9, 0.8, 0.4], {"labels": np.array([True, False, True])}, labels=np.array([True, True, False])
    )
    assert score == pytest.approx((0.9 * 0.2 * 0.4) ** (1 / 3))
    assert (too_much, too_little) == pytest.approx((0.8, 0.6))


def test_a_number_is_too_high_or_too_low() -> None:
    found = outcome({}, {"value": np.array([7.0])}, {"value": np.array([4.5])}, 1)
    assert (found.score, found.too_much, found.too_little) == (-2.5, 2.5, 0)
    assert found.pair == (4.5, 7.0)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"label": 1}, "dog"),
        ({"label": -1}, "a class that is not in train.csv"),
        ({"labels": np.array([True, False, True])}, "cat, emu"),
        ({"labels": np.zeros(3, dtype=bool)}, "none"),
        ({"value": np.array([1.25])}, "1.25"),
        ({"probabilities": np.array([0.25, 0.7, 0.05])}, "dog 70 %, cat 25 %, emu 5 %"),
    ],
)
def test_captions_say_the_answer(answer: Target, expected: str) -> None:
    assert caption(answer, CLASSES) == expected
