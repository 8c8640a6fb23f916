"""The network at every stride, and the losses against plain loops."""

from typing import Any

import numpy as np
import pytest
import torch

from competition.config.loading import validate
from competition.support.errors import CompetitionError
from competition.tasks.points.loss import heat_of, image_losses
from competition.tasks.points.model import build_network
from competition.tasks.points.settings import TaskConfig


def config_of(**sections: Any) -> TaskConfig:
    values = {"name": "t", "task": "points", "data": {"image_size": [64, 96]}}
    config = validate(values | sections, {}, "t")
    assert isinstance(config, TaskConfig)
    return config


ARCHITECTURES = [("unet", 1), ("unet", 2), ("unet", 4), ("fpn", 4), ("segformer", 2)]


@pytest.mark.parametrize(("architecture", "stride"), ARCHITECTURES)
def test_heatmaps_are_as_fine_as_asked_for_and_begin_low(architecture: str, stride: int) -> None:
    model, sizes = {"architecture": architecture, "stride": stride, "encoder": "test_resnet"}, list[int]()
    for width in (None, 32):
        network = build_network(config_of(model=model | {"decoder_channels": width}), 3).eval()
        with torch.no_grad():
            logits = network(torch.zeros(2, 3, 64, 96))
        assert logits.shape == (2, 3, 64 // stride, 96 // stride)
        assert 0.02 < float(logits.sigmoid().median()) < 0.4
        sizes.append(sum(value.numel() for name, value in network.named_parameters() if "decoder" in name))
    assert sizes[1] < sizes[0] / 2


def batch_of(seed: int = 0) -> tuple[dict[str, Any], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    numbers = [3, 0, 5]
    points = [torch.rand(number, 2, generator=generator) * torch.tensor([96.0, 64.0]) for number in numbers]
    labels = [torch.randint(2, (number,), generator=generator) for number in numbers]
    return {"image": torch.zeros(3, 3, 64, 96), "points": points, "labels": labels}, torch.randn(
        3, 2, 16, 24, generator=generator
    )


def test_the_focal_loss_is_that_of_the_paper() -> None:
    batch, logits = batch_of()
    found = image_losses(torch.nn.Identity(), logits, batch, config_of(loss={"focal": 1.0}))
    heat = heat_of(batch["points"], batch["labels"], logits, 4, 4.0)
    for image in range(3):
        total = 0.0
        for at in np.ndindex(2, 16, 24):
            p, y = float(logits[image][at].sigmoid()), float(heat.bumps[image][at])
            if heat.centres[image][at]:
                total -= (1 - p) ** 2 * np.log(p)
            else:
                total -= (1 - y) ** 4 * p**2 * np.log(1 - p)
        assert float(found[image]) == pytest.approx(total / max(len(batch["labels"][image]), 1), rel=1e-4)


@pytest.mark.parametrize("loss", [{"focal": 1.0}, {"focal": 0.0, "bce": 1.0}, {"focal": 0.0, "mse": 2.0}])
def test_the_loss_of_an_image_does_not_depend_on_its_batch(loss: dict[str, float]) -> None:
    batch, logits = batch_of()
    together = image_losses(torch.nn.Identity(), logits, batch, config_of(loss=loss))
    for i in range(3):
        one = {"image": batch["image"][i : i + 1], "points": [batch["points"][i]], "labels": [batch["labels"][i]]}
        alone = image_losses(torch.nn.Identity(), logits[i : i + 1], one, config_of(loss=loss))
        assert float(alone[0]) == pytest.approx(float(together[i]), rel=1e-6)
    heat = heat_of(batch["points"], batch["labels"], logits, 4, 4.0)
    right = torch.where(heat.bumps > 0.2, 4.0, -8.0)
    assert (image_losses(torch.nn.Identity(), right, batch, config_of(loss=loss)) < together).all()


def test_steps_that_would_shift_points_are_refused() -> None:
    inside = {"OneOf": {"transforms": ["Transpose", {"RandomScale": {"p": 1}}]}}
    with pytest.raises(CompetitionError, match=r"more: RandomScale would shift points by up to half a pixel"):
        config_of(data={"augmentation": {"more": [inside]}})


def test_a_precision_that_rounds_points_is_refused() -> None:
    with pytest.raises(CompetitionError, match="found bf16-true, which rounds the true points, too; give bf16-mixed"):
        config_of(trainer={"precision": "bf16-true"})
