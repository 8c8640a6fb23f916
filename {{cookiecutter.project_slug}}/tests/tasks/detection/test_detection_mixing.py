"""Mosaic and mixup: boxes stay on their object, draws follow from the generator alone, any batch will do."""

from typing import Any

import numpy as np
import pytest
import torch
from competition.tasks.detection.dataset import is_large, mix_batch
from competition.tasks.detection.settings import DetectionMix, TaskConfig
from competition.tasks.mixed_images import mixup, mosaic
from hypothesis import given, settings
from hypothesis import strategies as st


def config(**mix: float) -> TaskConfig:
    return TaskConfig(name="t", task="detection", mix=DetectionMix.model_validate(mix))


def batch_of(number: int, height: int = 64, width: int = 96, seed: int = 0) -> dict[str, Any]:
    """Return images of one bright box each, as bright as its label says; every third image is empty."""
    rng = np.random.default_rng(seed)
    images, boxes, labels = torch.zeros(number, 3, height, width), [], []
    for i in range(number):
        x, y = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
        w, h = int(rng.integers(12, width // 2)), int(rng.integers(12, height // 2))
        has_box = i % 3 != 2
        if has_box:
            images[i, :, y : y + h, x : x + w] = i + 1.0
        boxes.append(torch.tensor([[x, y, x + w, y + h]] * has_box, dtype=torch.float32).reshape(-1, 4))
        labels.append(torch.tensor([i] * has_box, dtype=torch.int64))
    return {"image": images, "boxes": boxes, "labels": labels, "image_id": [str(i) for i in range(number)]}


@pytest.mark.parametrize(("height", "width"), [(64, 96), (63, 97)])
def test_a_mosaic_holds_four_images_at_half_scale_with_their_boxes(height: int, width: int) -> None:
    batch = batch_of(5, height, width)
    mixed = mosaic(batch, "boxes", is_large, np.array([0]), np.array([[0, 1, 3, 4]]))
    assert mixed["image"].shape == batch["image"].shape
    assert mixed["labels"][0].tolist() == [0, 1, 3, 4]
    for (x1, y1, x2, y2), label in zip(mixed["boxes"][0].tolist(), mixed["labels"][0].tolist(), strict=True):
        inner = mixed["image"][0, 0, round(y1) + 2 : round(y2) - 2, round(x1) + 2 : round(x2) - 2]
        torch.testing.assert_close(inner, torch.full_like(inner, label + 1.0))
    bright = (mixed["image"][0, 0] > 0.5).float().mean()
    areas = (mixed["boxes"][0][:, 2:] - mixed["boxes"][0][:, :2]).prod(1).sum() / (height * width)
    assert bright == pytest.approx(float(areas), rel=0.25)
    for other in range(1, 5):
        assert torch.equal(mixed["image"][other], batch["image"][other])
        assert torch.equal(mixed["boxes"][other], batch["boxes"][other])


def test_a_mosaic_cuts_boxes_at_their_quarter_and_drops_tiny_ones() -> None:
    batch = batch_of(1)
    batch["boxes"] = [torch.tensor([[-20.0, 10, 50, 80], [10, 10, 13, 40]])]
    batch["labels"] = [torch.tensor([7, 8])]
    mixed = mosaic(batch, "boxes", is_large, np.array([0]), np.zeros((1, 4), dtype=np.int64))
    assert mixed["labels"][0].tolist() == [7] * 4
    assert mixed["boxes"][0].tolist() == [
        [0, 5, 25, 32], [48, 5, 73, 32], [0, 37, 25, 64], [48, 37, 73, 64]
    ]  # fmt: skip


def test_mixup_is_the_mean_of_two_images_with_the_boxes_of_both() -> None:
    batch = batch_of(3)
    mixed = mixup(batch, "boxes", np.array([0, 1]), np.array([1, 1]))
    torch.testing.assert_close(mixed["image"][0], (batch["image"][0] + batch["image"][1]) / 2)
    assert mixed["labels"][0].tolist() == [0, 1]
    assert torch.equal(mixed["image"][1], batch["image"][1])  # with itself: no box stands twice
    assert mixed["labels"][1].tolist() == [1]


@given(st.integers(1, 6), st.integers(0, 2**20), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=30, deadline=None)
def test_a_batch_of_any_size_is_mixed_by_its_generator_alone(
    number: int, seed: int, of_mosaic: float, of_mixup: float
) -> None:
    batch = batch_of(number)
    before, boxes_before = batch["image"].clone(), [boxes.clone() for boxes in batch["boxes"]]
    torch.manual_seed(seed)
    one, two = (mix_batch(batch, config(mosaic=of_mosaic, mixup=of_mixup), np.random.default_rng(seed)) for _ in "ab")
    assert torch.equal(one["image"], two["image"])
    assert set(one) == set(batch)
    assert one["image"].shape == batch["image"].shape
    assert len(one["boxes"]) == len(one["labels"]) == number
    for boxes, again, labels in zip(one["boxes"], two["boxes"], one["labels"], strict=True):
        assert torch.equal(boxes, again)
        assert boxes.shape == (len(labels), 4)
        assert boxes.dtype == torch.float32
        assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert torch.equal(batch["image"], before)  # the batch itself stays as it was
    assert all(torch.equal(a, b) for a, b in zip(batch["boxes"], boxes_before, strict=True))


def test_nothing_is_mixed_unless_asked_for() -> None:
    batch = batch_of(4)
    assert mix_batch(batch, config(), np.random.default_rng(0)) is batch


def test_about_the_share_asked_for_is_in_a_mosaic() -> None:
    batch, rng = batch_of(4, 32, 32), np.random.default_rng(0)
    changed = 0
    for _ in range(100):
        mixed = mix_batch(batch, config(mosaic=0.3), rng)
        changed += sum(
            len(a) != len(b) or not torch.equal(a, b) for a, b in zip(mixed["boxes"], batch["boxes"], strict=True)
        )
    assert 60 <= changed <= 160
