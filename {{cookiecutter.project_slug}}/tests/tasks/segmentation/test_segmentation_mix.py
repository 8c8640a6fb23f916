"""Mixed batches: masks follow their images, and nothing but the given generator is drawn on."""

from typing import Any

import numpy as np
import pytest
import torch
from competition.tasks.segmentation.dataset import mix_batch
from competition.tasks.segmentation.settings import Mix, TaskConfig
from torch import Tensor


def config(**mix: float) -> TaskConfig:
    return TaskConfig(name="t", task="segmentation", mix=Mix.model_validate({"probability": 1.0} | mix))


def batch(num_images: int = 4) -> dict[str, Any]:
    """Return images that are bright where their masks are."""
    masks = (torch.rand(num_images, 2, 12, 18, generator=torch.Generator().manual_seed(0)) < 0.4).to(torch.uint8)
    return {"image_id": list(map(str, range(num_images))), "image": masks.float(), "mask": masks}


def mixed(seed: int, **mix: float) -> tuple[Tensor, Tensor]:
    made = mix_batch(batch(), config(**mix), np.random.default_rng(seed))
    return made["image"], made["mask"].float()


@pytest.mark.parametrize("mix", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_masks_are_mixed_as_their_images_are(mix: dict[str, float]) -> None:
    plain, changes = batch()["image"], 0
    for seed in range(30):
        image, mask = mixed(seed, **mix)
        torch.testing.assert_close(image, mask)
        assert image.shape == plain.shape
        assert ((image >= 0) & (image <= 1)).all()
        changes += not torch.equal(image, plain)
    assert changes > 20


def test_mixup_is_a_share_of_two_images_and_cutmix_a_rectangle() -> None:
    pair = {key: value[:2] for key, value in batch().items()}
    plain, shares, areas = pair["image"], set(), set()
    different = plain[0] != plain[1]
    for seed in range(20):
        image = mix_batch(pair, config(mixup=1.0), np.random.default_rng(seed))["image"]
        share = ((image[0] - plain[1]) / (plain[0] - plain[1]))[different]
        torch.testing.assert_close(share, share[:1].expand_as(share))
        shares.add(round(float(share[0]), 2))
        image = mix_batch(pair, config(cutmix=1.0), np.random.default_rng(seed))["image"]
        rows, columns = np.nonzero((image != plain).any(1).any(0).numpy())
        areas.add(len(rows))
        if len(rows):
            inside = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
            torch.testing.assert_close(image[0][:, *inside], plain[1][:, *inside])
    assert len(shares) > 5
    assert len(areas) > 5


def test_batches_stay_as_they_are_without_a_setting_alone_or_by_chance() -> None:
    for made, given in ((config(), batch()), (config(mixup=1.0), batch(1))):
        assert mix_batch(given, made, np.random.default_rng(0)) is given
    made, given = config(cutmix=1.0, probability=0.3), batch()
    untouched = sum(mix_batch(given, made, np.random.default_rng(seed)) is given for seed in range(300))
    assert 180 < untouched < 240
    torch.testing.assert_close(given["mask"], batch()["mask"])


def test_the_same_generator_gives_the_same_batch() -> None:
    torch.manual_seed(1)
    first = mixed(5, mixup=0.5, cutmix=0.5)
    torch.manual_seed(2)
    torch.testing.assert_close(mixed(5, mixup=0.5, cutmix=0.5), first)
