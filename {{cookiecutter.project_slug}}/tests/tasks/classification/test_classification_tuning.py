"""Thresholds, quantiles and cut points: no other ones score better, and the numbers models are weighed by."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from competition.config.loading import validate
from competition.config.settings import Config
from competition.tasks.classification.decode import decode, unused_settings
from competition.tasks.classification.metrics import kappa
from competition.tasks.classification.score import evidence as evidence_for
from competition.tasks.classification.score import scores
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.thresholds import best_cut_points
from competition.tasks.classification.tuning import regression_sample, search
from competition.tasks.contract import Prediction, Target
from hypothesis import given, settings
from hypothesis import strategies as st

evidence = partial(evidence_for, metrics=())

some = settings(max_examples=15, deadline=None)
MULTI: dict[str, Any] = {
    "target": "multi",
    "train": {"layout": "columns"},
    "submission": {"value": "decision"},
}
SINGLE: dict[str, Any] = {"target": "single", "submission": {"layout": "label"}}
STRING: dict[str, Any] = {
    "target": "multi",
    "train": {"layout": "label_string"},
    "submission": {"layout": "label_string"},
}
NUMBERS: dict[str, Any] = {"target": "regression", "train": {"layout": "columns"}}


@dataclass
class Images:
    """Predictions in memory, scored as common code scores them."""

    predictions: list[Prediction]
    truths: list[Target]
    num_classes: int

    def __len__(self) -> int:
        return len(self.predictions)

    def prediction(self, index: int) -> Prediction:
        return self.predictions[index]

    def truth(self, index: int) -> Target:
        return self.truths[index]

    def size(self, index: int) -> tuple[int, int]:
        return 9, 9

    def score(self, config: Config, rows: np.ndarray) -> float:
        assert isinstance(config, TaskConfig)
        gathered = [
            evidence(decode(self.predictions[row], 9, 9, config), self.truths[row], metrics=config.metrics)
            for row in rows
        ]
        return scores(gathered, config.metrics, self.num_classes)[config.metrics[0]]

    @property
    def rows(self) -> np.ndarray:
        return np.arange(len(self))


def config_of(form: dict[str, Any], metric: str, **decode_by: Any) -> TaskConfig:
    values = {"name": "t", "task": "classification", "format": form, "metrics": [metric], "decode": decode_by}
    config = validate(values, {}, "test")
    assert isinstance(config, TaskConfig)
    return config


def with_decode(config: TaskConfig, found: dict[str, Any]) -> TaskConfig:
    return config.model_copy(update={"decode": type(config.decode)(**(config.decode.model_dump() | found))})


def several_labels(seed: int, num_images: int = 30, num_classes: int = 3, **more: Any) -> Images:
    rng = np.random.default_rng(seed)
    truth = rng.random((num_images, num_classes)) < [0.5, 0.3, 0.1][:num_classes]
    # Coarse, so that there are ties.
    probabilities = np.round(np.clip(truth * 0.2 + rng.random(truth.shape) * 0.6, 0, 1), 2).astype(np.float32)
    truths = [{"labels": row} | {key: value[number] for key, value in more.items()} for number, row in enumerate(truth)]
    return Images([{"probabilities": row} for row in probabilities], truths, num_classes)


def one_label(seed: int, num_images: int = 40, num_classes: int = 3) -> Images:
    rng = np.random.default_rng(seed)
    labels = rng.choice(num_classes, num_images, p=[0.6, 0.3, 0.1][:num_classes] if num_classes == 3 else None)
    logits = rng.normal(size=(num_images, num_classes)) + np.eye(num_classes)[labels] - [0, 1, 2][:num_classes]
    rows = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    return Images([{"probabilities": row} for row in rows], [{"label": int(label)} for label in labels], num_classes)


@given(st.integers(0, 2**20))
@some
@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy", "accuracy", "micro_f1", "samples_f1"])
def test_what_is_found_is_never_worse_than_what_the_config_has(metric: str, seed: int) -> None:
    images = several_labels(seed)
    for form, own in ((MULTI, {"thresholds": [0.3, 0.2, 0.6]}), (STRING, {}), (MULTI, {"quantile": 0.7})):
        config = config_of(form, metric, **own)
        found = search(config, images, 3).best(images.rows)
        assert set(found) == {"quantile" if "quantile" in own else "thresholds"}
        after = images.score(with_decode(config, found), images.rows)
        assert after >= images.score(config, images.rows)
        if form is MULTI and metric in ("macro_f1", "balanced_accuracy"):
            key = next(iter(found))
            grid = np.linspace(0.02, 0.98, 13).tolist()
            each = [images.score(with_decode(config, {key: place}), images.rows) for place in grid]
            assert after >= max(each)


@given(st.integers(0, 2**20))
@some
def test_thresholds_of_separable_metrics_are_the_best_of_all(seed: int) -> None:
    images = several_labels(seed, num_images=8, num_classes=2)
    config = config_of(MULTI, "macro_f1")
    found = images.score(with_decode(config, search(config, images, 2).best(images.rows)), images.rows)
    values = np.unique([prediction["probabilities"] for prediction in images.predictions])
    places = [float(value) for value in (values[1:] + values[:-1]) / 2]
    best = max(images.score(with_decode(config, {"thresholds": [a, b]}), images.rows) for a in places for b in places)
    assert found >= best


@given(st.integers(0, 2**20))
@some
@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy", "accuracy", "qwk"])
def test_one_class_an_image_is_chosen_by_thresholds_that_pay(metric: str, seed: int) -> None:
    images = one_label(seed)
    if metric == "qwk":
        images.truths[:] = [{**truth, "grades": np.array([0.0, 1, 5])} for truth in images.truths]
    config = config_of(SINGLE, metric)
    found = search(config, images, 3).best(images.rows)
    assert images.score(with_decode(config, found), images.rows) >= images.score(config, images.rows)


def test_thresholds_find_a_rare_class_that_never_is_the_likeliest() -> None:
    rows = np.array([[0.7, 0.3], [0.8, 0.2], [0.9, 0.1], [0.95, 0.05]], dtype=np.float32)
    images = Images([{"probabilities": row} for row in rows], [{"label": label} for label in (1, 1, 0, 0)], 2)
    config = config_of(SINGLE, "macro_f1")
    found = search(config, images, 2).best(images.rows)
    assert images.score(with_decode(config, found), images.rows) == 1


def test_only_the_rows_that_are_given_are_looked_at() -> None:
    images = several_labels(0)
    config = config_of(MULTI, "macro_f1")
    prepared = search(config, images, 3)
    half = images.rows[::2]
    alone = Images([images.predictions[i] for i in half], [images.truths[i] for i in half], 3)
    assert prepared.best(half) == search(config, alone, 3).best(alone.rows)


@pytest.mark.parametrize("join", ["mean", "max"])
def test_groups_are_tuned_as_groups(join: str) -> None:
    images = several_labels(1, num_classes=1, group=[f"g{number // 2}" for number in range(30)])
    form = {**MULTI, "group": "{patient}", "join": join}
    config = config_of(form, "pf1")
    found = search(config, images, 1).best(images.rows)
    every = [
        images.score(with_decode(config, {"thresholds": float(t)}), images.rows) for t in np.linspace(0.01, 1, 200)
    ]
    assert images.score(with_decode(config, found), images.rows) == pytest.approx(max(every))


def test_folds_tuned_apart_are_scored_by_their_own_thresholds_and_quantiles() -> None:
    images = several_labels(2)
    fold = images.rows % 2
    for key in ("thresholds", "quantile"):
        configs = [config_of(MULTI, "macro_f1", **{key: value}) for value in (0.3, 0.6)]
        together = [
            evidence(decode(images.predictions[row], 9, 9, configs[fold[row]]), images.truths[row])
            for row in images.rows
        ]
        found = scores(together, ["accuracy"], 3)["accuracy"]
        apart = [config.model_copy(update={"metrics": ["accuracy"]}) for config in configs]
        each = [images.score(apart[number], np.flatnonzero(fold == number)) for number in (0, 1)]
        assert found == pytest.approx(np.mean(each))


def ranked(seed: int, num_images: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, num_images).astype(np.float64)
    return np.round(truth * 0.5 + rng.normal(scale=0.4, size=num_images), 2), truth


@given(st.integers(0, 2**20))
@some
def test_cut_points_are_better_than_rounding_and_than_moving_any_of_them(seed: int) -> None:
    values, truth = ranked(seed)
    points = best_cut_points(values, truth, 0, 4, None)

    def score(at: list[float]) -> float:
        return kappa(np.searchsorted(at, values, side="right").astype(np.float64), truth)

    assert points == sorted(points)
    assert score(points) >= score([0.5, 1.5, 2.5]) - 1e-12
    for number in range(3):
        for moved in np.unique(values) + 1e-6:
            assert score(sorted([*points[:number], moved, *points[number + 1 :]])) <= score(points) + 1e-9


def test_a_regression_is_tuned_to_the_ranks_of_its_bounds() -> None:
    values, truth = ranked(0)
    truths: list[Target] = [{"value": np.array([one + 1])} for one in truth]
    images = Images([{"values": np.array([value], dtype=np.float32)} for value in values], truths, 1)
    config = config_of({**NUMBERS, "bounds": [1, 4]}, "qwk")
    found = search(config, images, 1).best(images.rows)
    assert len(found["cut_points"]) == 3
    tuned = with_decode(config, found)
    assert images.score(tuned, images.rows) >= images.score(config, images.rows)
    answers = {float(decode(prediction, 9, 9, tuned)["value"][0]) for prediction in images.predictions}
    assert answers <= {1, 2, 3, 4}


@pytest.mark.parametrize(("form", "metric"), [(MULTI, "log_loss"), (MULTI, "roc_auc"), (SINGLE, "map5")])
def test_metrics_of_probabilities_have_nothing_to_find(form: dict[str, Any], metric: str) -> None:
    images = several_labels(0) if form is MULTI else one_label(0)
    assert search(config_of(form, metric), images, 3).best(images.rows) == {}


@pytest.mark.parametrize(("target", "metric"), [("single", "macro_f1"), ("multi", "macro_f1"), ("multi", "pf1")])
def test_probabilities_that_are_handed_in_have_no_threshold_to_find_or_to_be_scored_by(
    target: str, metric: str
) -> None:
    images = one_label(0) if target == "single" else several_labels(0)
    config = config_of({**MULTI, "target": target, "submission": {"value": "probability"}}, metric)
    assert search(config, images, 3).best(images.rows) == {}
    others: list[dict[str, Any]] = [{"thresholds": [0.9, 0.1, 0.5]}]
    others += [{"quantile": 0.9}] if target == "multi" else []
    for other in others:
        assert images.score(with_decode(config, other), images.rows) == images.score(config, images.rows)


DECISIONS = {"target": "multi", "train": {"layout": "label_string"}, "submission": {"value": "decision"}}
BEST = {"submission": {"layout": "top", "top": 2}}


@pytest.mark.parametrize(
    ("form", "metric", "quantile", "used"),
    [
        ({}, "accuracy", None, None),
        (DECISIONS, "macro_f1", None, "thresholds"),
        (DECISIONS, "macro_f1", 0.5, "quantile"),
        (BEST, "map5", None, None),
        (BEST | {"new": "other"}, "map5", None, "new_threshold"),
        ({"target": "regression", "train": {"layout": "columns"}}, "rmse", None, "cut_points"),
    ],
)
def test_the_settings_that_nothing_goes_by_are_those_that_change_no_answer(
    form: dict[str, Any], metric: str, quantile: float | None, used: str | None
) -> None:
    config = config_of(form, metric, quantile=quantile)
    is_number = form.get("target") == "regression"
    prediction = {"values" if is_number else "probabilities": np.array([0.6, 0.3, 0.1], dtype=np.float32)}
    others = {"thresholds": 0.2, "new_threshold": 0.2, "cut_points": [0.2]}
    others |= {"quantile": 0.2} if quantile else {}
    before = decode(prediction, 1, 1, config)
    changing = [
        k for k, v in others.items() if str(decode(prediction, 1, 1, with_decode(config, {k: v}))) != str(before)
    ]
    assert changing == ([used] if used else [])
    assert set(others) - set(unused_settings(config)) == set(changing)


def test_label_strings_are_scored_by_their_labels_and_not_by_probabilities() -> None:
    images, config = several_labels(0), config_of(STRING, "pf1")
    found = search(config, images, 3).best(images.rows)
    assert images.score(with_decode(config, found), images.rows) > images.score(config, images.rows)


def test_models_are_weighed_by_probabilities_against_the_truth() -> None:
    models = [{"probabilities": np.array(row, dtype=np.float32)} for row in ([0.5, 0.25, 0.25], [0.75, 0.25, 0])]
    found = regression_sample(models, {"label": 0}, 0)
    assert found is not None
    np.testing.assert_allclose(found[0], [[0.5, 0.75], [0.25, 0.25], [0.25, 0]])
    assert found[1].tolist() == [1, 0, 0]
    several = regression_sample(models, {"labels": np.array([True, True, False])}, 0)
    assert several is not None
    assert several[1].tolist() == [1, 1, 0]
    numbers = regression_sample(
        [{"values": np.array([3.0])}, {"values": np.array([5.0])}], {"value": np.array([4.0])}, 0
    )
    assert numbers is not None
    assert (numbers[0].tolist(), numbers[1].tolist()) == ([[3, 5]], [4])


def test_of_very_many_classes_the_true_one_and_some_others_stand_for_all() -> None:
    models = [{"probabilities": np.arange(1000) / 1000}]
    found = regression_sample(models, {"label": 7}, 0)
    assert found is not None
    assert found[0].shape in ((99, 1), (100, 1))
    assert found[0][found[1] == 1].tolist() == [[0.007]]
