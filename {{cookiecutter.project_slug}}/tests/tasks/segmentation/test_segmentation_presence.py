"""What a second head says of an image goes with its prediction, and decides where a threshold asks for it."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from competition.config.views import view_of
from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction
from competition.tasks.segmentation.decode import average, decode, difference, trial_predictions, unseen
from competition.tasks.segmentation.model import Outputs
from competition.tasks.segmentation.prediction import joining, predictions, undo_view
from competition.tasks.segmentation.settings import TaskConfig
from competition.tasks.windows import Place


def config(**sections: Any) -> TaskConfig:
    return TaskConfig.model_validate({"name": "t", "task": "segmentation", "loss": {"auxiliary": 1}, **sections})


def said(*presence: float) -> Prediction:
    full = np.full((len(presence), 4, 4), 0.9, dtype=np.float16)
    return {"probabilities": full, "presence": np.array(presence, dtype=np.float32)}


def test_a_class_that_the_head_denies_has_no_mask() -> None:
    def has_mask(threshold: Any) -> list[bool]:
        made = config(decode={"presence_threshold": threshold})
        return decode(said(0.2, 0.7), 8, 8, made)["mask"].any(axis=(0, 1)).tolist()

    assert has_mask(0) == [True, True]
    assert has_mask(0.5) == [False, True]
    assert has_mask([0.1, 0.9]) == [True, False]


def test_it_is_stored_averaged_and_joined_with_the_masks() -> None:
    logits, labels = torch.zeros(2, 1, 4, 4), torch.tensor([[0.0], [2.0]])
    network = torch.nn.Identity()
    stored = predictions(network, Outputs(logits, labels), {})
    np.testing.assert_allclose([one["presence"][0] for one in stored], labels[:, 0].sigmoid(), rtol=1e-6)
    assert [set(one) for one in predictions(network, logits, {})] == [{"probabilities"}] * 2
    assert undo_view(stored[1], view_of("hflip"), 4, 4)["presence"] == stored[1]["presence"]
    without = {"probabilities": stored[0]["probabilities"]}
    mean = average([said(0.2), said(0.8), without], config(), [3.0, 1.0, 2.0])
    np.testing.assert_allclose(mean["presence"], [0.35], rtol=1e-6)
    assert set(average([said(0.2), without], config(loss={"auxiliary": 0}))) == {"probabilities"}
    windows = joining(4, 6)
    windows.add(said(0.2, 0.6), Place(0, 0, 4, 4))
    windows.add(said(0.3, 0.1), Place(0, 2, 4, 4))
    np.testing.assert_array_equal(windows.joined()["presence"], np.array([0.3, 0.6], dtype=np.float32))


def test_a_prediction_made_again_must_say_the_same_of_the_image() -> None:
    assert difference(said(0.2, 0.6), said(0.2, 0.6)) == 0
    assert difference(said(0.2, 0.6), said(0.2, 0.9)) == pytest.approx(0.3)
    assert not unseen(said(0.2, 0.6), [])["presence"].any()


def test_a_threshold_without_a_head_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"presence_threshold: found 0\.5, but no head .* loss\.auxiliary"):
        config(loss={"auxiliary": 0}, decode={"presence_threshold": 0.5})
    made = config(decode={"presence_threshold": 0.5})
    earlier = {"probabilities": said(0.2)["probabilities"]}
    with pytest.raises(CompetitionError, match="predict again"):
        decode(earlier, 8, 8, made)
    answers = [decode(one, 8, 8, made)["mask"].any() for one in trial_predictions(1, made)]
    assert answers == [False, True]
