"""The classifier and its loss: shapes, images that do not touch each other, a step of training."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from competition.config.data_settings import Data
from competition.tasks.classification.dataset import collate_targets, target_tensors
from competition.tasks.classification.loss import image_losses
from competition.tasks.classification.model import build_network
from competition.tasks.classification.prediction import Activation, predictions
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.settings.loss import ClassificationLoss
from competition.tasks.classification.settings.metric_names import TargetKind
from competition.tasks.classification.settings.model import ClassificationModel


def config(channels: int = 3, smoothing: float = 0.0, **model: Any) -> TaskConfig:
    return TaskConfig(
        name="t",
        task="classification",
        data=Data(channels=channels, mean=[0.5] * channels, std=[0.2] * channels),
        model=ClassificationModel.model_validate({"encoder": "test_resnet"} | model),
        loss=ClassificationLoss(label_smoothing=smoothing),
    )


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["test_resnet", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_network_gives_a_logit_a_class(encoder: str, channels: int) -> None:
    logits = build_network(config(channels, encoder=encoder), 5).eval()(torch.randn(2, channels, 64, 96))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_batch_is_that_of_its_images_one_by_one(smoothing: float) -> None:
    made = config(smoothing=smoothing)
    network = build_network(made, 3).eval().double()  # in float32, last digits hang on batch size and CPU
    images, labels = torch.randn(5, 3, 64, 64).double(), torch.tensor([0, 1, 2, 1, 0])
    with torch.no_grad():
        together = image_losses(network, network(images), {"label": labels}, made)
        alone = [
            image_losses(network, network(images[i : i + 1]), {"label": labels[i : i + 1]}, made) for i in range(5)
        ]
    assert together.shape == (5,)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)


def loss_of(logits: Tensor, label: int, smoothing: float) -> float:
    return image_losses(nn.Identity(), logits, {"label": torch.tensor([label])}, config(smoothing=smoothing)).item()


def test_the_loss_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert loss_of(logits, 0, 0.0) == pytest.approx(np.log(2))
    assert loss_of(logits, 0, 0.3) == pytest.approx(0.8 * np.log(2) + 0.2 * np.log(4))


def test_a_step_of_training_leaves_everything_finite() -> None:
    made = config(dropout=0.5)
    network = build_network(made, 3).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(2):
        loss = image_losses(network, network(torch.randn(2, 3, 64, 64)), {"label": torch.tensor([2, 2])}, made).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def with_activation(target: TargetKind, bounds: tuple[float, float] | None = None) -> nn.Module:
    network = nn.Identity()
    network.add_module("activation_of_answers", Activation(target, bounds))
    return network


def test_predictions_are_probabilities_that_sum_to_one() -> None:
    rows = predictions(with_activation("single"), torch.tensor([[0.0, 0.0], [1000.0, -1000.0]]), {})
    np.testing.assert_allclose([row["probabilities"] for row in rows], [[0.5, 0.5], [1, 0]])
    assert rows[0]["probabilities"].dtype == np.float32


def test_labels_become_a_batch() -> None:
    batch = collate_targets([target_tensors({"label": label}) for label in (2, 0)])
    assert batch["label"].tolist() == [2, 0]
    assert batch["label"].dtype == torch.int64


def test_losses_without_any_weight_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing is learnt"):
        ClassificationLoss(bce=0, focal=0)
