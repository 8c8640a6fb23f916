"""Whether a gain is larger than fold noise, against a case worked by hand."""

from dataclasses import replace

import pytest
from competition.comparison.compare import paired_gain, why_not_comparable
from competition.runs.ledger import Line


def line(run: str, *scores: float, better: str = "higher") -> Line:
    words = " ".join(f"{fold}={score}" for fold, score in enumerate(scores))
    return Line(run, metric="dice", better=better, folds_csv="f", scores=words)


ONE = line("a", 0.80, 0.82, 0.78, 0.81, 0.79)
OTHER = line("b", 0.82, 0.85, 0.79, 0.84, 0.81)


def test_a_gain_is_that_of_the_case_worked_by_hand() -> None:
    """Gains .02 .03 .01 .03 .02: mean .022, squares about it add up to .00028, so the standard deviation is the root of
    .00007, the standard error that over the root of 5 = .0037417, and t = 5.8797 with 4 degrees of freedom."""
    gain = paired_gain(ONE, OTHER)
    assert gain.mean == pytest.approx(0.022)
    assert gain.error == pytest.approx(0.0037417, abs=1e-7)
    assert gain.t == pytest.approx(5.8797, abs=1e-4)
    assert gain.chance == pytest.approx(0.0042, abs=5e-5)  # t tables: .005 at 5.598, .002 at 7.173
    assert not gain.is_noise
    assert gain.in_words("a", "b", "dice").startswith(
        "b is better than a by 0.0220 dice (standard error 0.0037), on 5 of 5 folds: larger than fold noise (t = 5.88;"
    )


def test_where_lower_is_better_a_gain_is_a_loss() -> None:
    low = [replace(one, better="lower") for one in (ONE, OTHER)]
    gain = paired_gain(*low)
    assert gain.mean == pytest.approx(-0.022)
    assert "b is worse than a by 0.0220 dice (standard error 0.0037), on 5 of 5 folds" in gain.in_words(
        "a", "b", "dice"
    )


def test_a_larger_gain_that_one_fold_makes_is_noise() -> None:
    gain = paired_gain(ONE, line("b", 0.80, 0.82, 0.78, 0.81, 0.99))
    assert gain.mean == pytest.approx(0.04)
    assert gain.is_noise  # t = 1: its standard error is its mean
    assert gain.t == pytest.approx(1)
    assert "on 1 of 5 folds: within fold noise" in gain.in_words("a", "b", "dice")


def test_two_folds_are_said_to_be_too_few_rather_than_a_large_gain_noise() -> None:
    gain = paired_gain(line("a", 0.36, 0.38), line("b", 0.91, 0.84))
    told = gain.in_words("a", "b", "dice")
    assert "on 2 of 2 folds, which are too few to tell it from fold noise (t = 11" in told
    assert "within" not in told


def test_equal_scores_are_equal_and_an_even_gain_is_none_of_noise() -> None:
    assert paired_gain(ONE, ONE).is_noise
    assert paired_gain(ONE, ONE).in_words("a", "b", "dice") == "b scores as a does on every fold"
    assert not paired_gain(line("a", 0.5, 0.625), line("b", 0.75, 0.875)).is_noise


def test_a_gain_that_is_below_the_digits_of_scores_is_none() -> None:
    gain = paired_gain(line("a", 0.5, 0.6), line("b", 0.500001, 0.600001))
    assert gain.is_noise
    assert gain.in_words("a", "b", "dice") == "b scores as a does on every fold"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"folds_csv": "g"}, "they were trained with different folds.csv (f and g)"),
        ({"folds_csv": ""}, "which folds.csv b was trained with is not known"),
        ({"metric": "iou"}, "a is scored by dice, b by iou"),
        ({"scores": ""}, "b has no score by fold yet"),
        ({"scores": "4=0.8 5=0.7"}, "they have 1 fold in common"),
    ],
)
def test_runs_that_cannot_be_compared_are_told_why(change: dict[str, str], reason: str) -> None:
    assert why_not_comparable(ONE, OTHER) is None
    assert reason in str(why_not_comparable(ONE, replace(OTHER, **change)))
