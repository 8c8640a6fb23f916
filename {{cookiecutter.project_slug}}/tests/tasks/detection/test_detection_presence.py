"""What a head of the image says goes with its boxes, and decides where a threshold, or a scale, asks for it."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from competition.config.views import view_of
from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction
from competition.tasks.detection.decode import average, decode, difference, trial_predictions, unseen
from competition.tasks.detection.prediction import joining, undo_view
from competition.tasks.detection.settings import TaskConfig
from competition.tasks.windows import Place


def config(**sections: Any) -> TaskConfig:
    return TaskConfig.model_validate({"name": "t", "task": "detection", "loss": {"auxiliary": 1}, **sections})


def said(*presence: float, at: float = 0) -> Prediction:
    """Return a prediction with one box of each class, all at one place, the first class the surest."""
    number = len(presence)
    return {
        "boxes": np.tile(np.array([[at, 0, at + 20, 20]], np.float32), (number, 1)),
        "scores": np.linspace(0.9, 0.8, number).astype(np.float32),
        "labels": np.arange(number),
        "model": np.zeros(number, dtype=np.int16),
        "model_weights": np.ones(1, dtype=np.float32),
        "presence": np.array(presence, dtype=np.float32),
    }


def without(prediction: Prediction) -> Prediction:
    return {key: values for key, values in prediction.items() if key != "presence"}


@pytest.mark.parametrize("join", ["nms", "soft_nms", "wbf", "none"])
def test_a_class_that_the_head_denies_has_no_box_and_is_in_no_others_way(join: str) -> None:
    def labels(**keys: Any) -> list[int]:
        return sorted(decode(said(0.2, 0.7), 64, 64, config(decode={"join": join, **keys}))["labels"].tolist())

    assert labels() == labels(presence_threshold=0.2) == [0, 1]
    assert labels(presence_threshold=0.5) == [1]
    assert labels(presence_threshold=[0.1, 0.9]) == [0]
    assert labels(presence_threshold=0.9) == []
    if join in ("nms", "wbf"):
        assert labels(class_agnostic=True) == [0]
        assert labels(class_agnostic=True, presence_threshold=0.5) == [1]


def test_scores_may_be_times_how_likely_the_class_is() -> None:
    def found(least: float) -> dict[int, float]:
        made = config(decode={"scale_by_presence": True, "min_score": least})
        answer = decode(said(0.2, 0.7), 64, 64, made)
        return dict(zip(answer["labels"].tolist(), answer["scores"].tolist(), strict=True))

    assert found(0.1) == pytest.approx({1: 0.8 * 0.7, 0: 0.9 * 0.2})
    assert found(0.3) == pytest.approx({1: 0.8 * 0.7})  # the cut is of what is handed in


def test_it_is_averaged_and_joined_with_the_boxes() -> None:
    assert undo_view(said(0.3), view_of("hflip"), 64, 64)["presence"] == np.float32(0.3)
    mean = average([said(0.2), said(0.8), without(said(0.5))], config(), [3.0, 1.0, 2.0])
    np.testing.assert_allclose(mean["presence"], [0.35], rtol=1e-6)
    assert "presence" not in average([said(0.2)], config(loss={"auxiliary": 0}))
    windows = joining(64, 96)
    windows.add(said(0.2, 0.6), Place(0, 0, 64, 64))
    windows.add(said(0.3, 0.1), Place(0, 32, 64, 64))
    np.testing.assert_array_equal(windows.joined()["presence"], np.array([0.3, 0.6], dtype=np.float32))


def test_a_prediction_made_again_must_say_the_same_of_the_image() -> None:
    assert difference(said(0.2, 0.6), said(0.2, 0.6)) == 0
    assert difference(said(0.2, 0.6), said(0.2, 0.9)) == pytest.approx(0.3)
    nothing = unseen(said(0.2, 0.6), [])
    assert not len(nothing["boxes"])
    assert not nothing["presence"].any()


@pytest.mark.parametrize(("key", "value"), [("presence_threshold", 0.5), ("scale_by_presence", True)])
def test_asking_a_head_that_is_not_there_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=rf"{key}: found {value}, but no head .* loss\.auxiliary"):
        config(loss={"auxiliary": 0}, decode={key: value})
    made = config(decode={key: value})
    with pytest.raises(CompetitionError, match=f"decode.{key}: found {value}.*predict again"):
        decode(without(said(0.2)), 64, 64, made)
    found = [decode(one, 64, 64, made)["labels"].tolist() for one in trial_predictions(2, made)]
    assert found == [[], [0], [1]]


def test_a_list_has_a_threshold_a_class() -> None:
    with pytest.raises(ValidationError, match="presence_threshold lists 3 scores for 2"):
        config(data={"classes": ["a", "b"]}, decode={"presence_threshold": [0.1, 0.2, 0.3]})
    with pytest.raises(CompetitionError, match="presence_threshold: found 3 values; expected one, or one a class of 2"):
        decode(said(0.2, 0.7), 64, 64, config(decode={"presence_threshold": [0.1, 0.2, 0.3]}))
