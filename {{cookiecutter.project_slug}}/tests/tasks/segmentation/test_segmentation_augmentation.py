"""Masks follow their image through every random change, and through mixed batches."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tiny import PROJECT, TINY
from torch import Tensor
from trainings import call, write_teacher

from competition.config.data_settings import Augmentation, Data
from competition.config.loading import load_config
from competition.config.settings import Config
from competition.data.augmentation import ImageAugmentation
from competition.data.dataset import ImageDataset, SeededIndex, share_cache
from competition.data.folds import make_folds
from competition.files.images import read_image
from competition.notebook import open_fold
from competition.prediction.stored import Predictions
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.tasks.segmentation.dataset import collate_targets, mix_batch, target_tensors
from competition.tasks.segmentation.settings import Mix, TaskConfig

CHANGES: dict[str, dict[str, Any]] = {
    "none": {},
    "horizontal flip": {"horizontal_flip": 1.0},
    "vertical flip": {"vertical_flip": 1.0},
    "crop": {"crop": {"probability": 1.0, "smallest": 0.3}},
    "shift": {"shift_scale_rotate": {"probability": 1.0, "shift": 0.3, "scale": 0.0, "rotate": 0}},
    "scale": {"shift_scale_rotate": {"probability": 1.0, "shift": 0.0, "scale": 0.4, "rotate": 0}},
    "rotate": {"shift_scale_rotate": {"probability": 1.0, "shift": 0.0, "scale": 0.0, "rotate": 180}},
    "light": {"brightness_contrast": {"probability": 1.0, "brightness": 0.2, "contrast": 0.2}},
    "named": {
        "more": [
            {"Rotate": {"limit": 90, "border_mode": 0, "p": 0.7}},
            {"RandomCrop": {"height": 60, "width": 70}, "before_resize": True},
            {"OneOf": {"transforms": ["Transpose", {"RandomScale": {"scale_limit": 0.3, "p": 1}}], "p": 1}},
        ]
    },
}
CHANGES["all"] = {key: value for changes in CHANGES.values() for key, value in changes.items()}


def data(channels: int, changes: dict[str, Any]) -> Data:
    return Data(
        image_size=(48, 80),
        channels=channels,
        mean=[0.0] * channels,
        std=[1.0] * channels,
        augmentation=Augmentation.model_validate(changes),
    )


def bright_image(classes: int, dtype: type, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (90, 130, classes) whose channel k is bright where mask k is."""
    rng = np.random.default_rng(seed)
    channels = []
    for _ in range(classes):
        mask = np.zeros((90, 130), dtype=np.uint8)
        cv2.circle(mask, (int(rng.integers(130)), int(rng.integers(90))), int(rng.integers(15, 40)), 1, -1)
        channels.append(mask)
    masks = np.stack(channels, axis=-1)
    return (masks * (255 if dtype is np.uint8 else 1)).astype(dtype), masks


def disagreement(image: np.ndarray, mask: np.ndarray, bright: int) -> int:
    """Count pixels farther than two from an edge of the mask where image and mask disagree."""
    kernel = np.ones((5, 5), np.uint8)
    wrong = 0
    for k in range(mask.shape[-1]):
        channel = np.ascontiguousarray(mask[:, :, k])
        inside, outside = cv2.erode(channel, kernel), 1 - cv2.dilate(channel, kernel)
        is_bright = image[:, :, k] > bright / 2
        wrong += int((~is_bright[inside > 0]).sum() + is_bright[outside > 0].sum())
    return wrong


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("classes", [1, 4, 6])
@pytest.mark.parametrize("name", CHANGES)
def test_bright_pixels_stay_under_their_mask(name: str, classes: int, dtype: type) -> None:
    augmentation = ImageAugmentation(data(classes, CHANGES[name]), train=True)
    for seed in range(6):
        image, masks = bright_image(classes, dtype, seed)
        changed, target = augmentation(image, {"mask": masks}, seed)
        assert changed.shape == (48, 80, classes)
        assert changed.dtype == (np.float32 if name in ("light", "all") else dtype)
        assert target["mask"].shape == (48, 80, classes)
        assert set(np.unique(target["mask"])) <= {0, 1}
        assert disagreement(changed, target["mask"], image.max()) == 0


@pytest.mark.parametrize("name", CHANGES)
def test_masks_of_more_classes_than_opencv_has_channels_are_changed_as_one_is(name: str) -> None:
    augmentation = ImageAugmentation(data(1, CHANGES[name]), train=True)
    for seed in range(3):
        image, mask = bright_image(1, np.uint8, seed)
        _, expected = augmentation(image, {"mask": mask}, seed)
        _, target = augmentation(image, {"mask": np.repeat(mask, 130, axis=2)}, seed)
        np.testing.assert_array_equal(target["mask"], np.repeat(expected["mask"], 130, axis=2))


def test_the_check_above_sees_a_mask_that_stayed_behind() -> None:
    image, masks = bright_image(4, np.uint8, 0)
    changed, target = ImageAugmentation(data(4, {"horizontal_flip": 1.0}), train=True)(image, {"mask": masks}, 0)
    assert disagreement(changed, target["mask"][:, ::-1], 255) > 0


def test_validation_images_are_only_resized() -> None:
    image, masks = bright_image(4, np.uint8, 1)
    plain = ImageAugmentation(data(4, {}), train=False)(image, {"mask": masks}, 0)
    for seed in range(3):
        changed, target = ImageAugmentation(data(4, CHANGES["all"]), train=False)(image, {"mask": masks}, seed)
        np.testing.assert_array_equal(changed, plain[0])
        np.testing.assert_array_equal(target["mask"], plain[1]["mask"])


@pytest.mark.parametrize("classes", [1, 4, 6])
def test_masks_become_tensors_with_classes_first(classes: int) -> None:
    masks = np.random.default_rng(0).integers(0, 2, (5, 7, classes), dtype=np.uint8)
    tensors = target_tensors({"mask": masks})
    assert tensors["mask"].shape == (classes, 5, 7)
    np.testing.assert_array_equal(tensors["mask"].numpy()[classes - 1], masks[:, :, -1])
    assert collate_targets([tensors, tensors])["mask"].shape == (2, classes, 5, 7)


@pytest.mark.parametrize("changes", [{}, {"crop": {"probability": 1.0, "smallest": 1.0}}])
@pytest.mark.parametrize("side", [16, 20, 33, 64])
def test_making_a_mask_smaller_does_not_move_it(side: int, changes: dict[str, Any]) -> None:
    image = np.zeros((64, 64, 1), dtype=np.uint8)
    cv2.circle(image, (40, 24), 15, 255, -1)
    settings = Data(
        image_size=(side, side), channels=1, mean=[0.0], std=[1.0], augmentation=Augmentation.model_validate(changes)
    )
    changed, target = ImageAugmentation(settings, train=True)(image, {"mask": image // 255}, 0)
    centres = []
    for weights in (changed[:, :, 0], target["mask"][:, :, 0]):
        y, x = np.indices(weights.shape)
        centres.append([(weights * y).sum() / weights.sum(), (weights * x).sum() / weights.sum()])
    np.testing.assert_allclose(centres[1], centres[0], atol=0.2)  # pixels


CONFIG = PROJECT / "configs" / "segmentation.yaml"
OF_TESTS = "data.train_images=test_images"
TAUGHT = ("loss.distil.run=big", "data.pseudo=data/solution.csv", "data.batch_size=6", "data.image_size=[48, 80]")
WAYS = {
    "augmented": (),
    "in windows": ("data.window.size=[64, 72]",),
    "mixed": ("mix.mixup=1", "mix.cutmix=1", "mix.probability=1"),
    "of two sizes": ("data.image_size=[[0, 32], [1, 64]]",),
}


def true_maps(config: Config) -> dict[str, np.ndarray]:
    """Return the masks (classes, H, W) of images, by id."""
    table, found = Task(config.task).table.read_table(config), {}
    for row, image_id in enumerate(map(str, table.image_ids)):
        height, width = read_image(config.data.dir / config.data.train_images / image_id, 3).shape[:2]
        found[image_id] = table.target(row, height, width)["mask"].transpose(2, 0, 1)
    return found


@pytest.mark.parametrize("way", WAYS)
def test_what_another_run_says_of_pixels_goes_wherever_the_masks_go(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sample("segmentation", Path("data"), size=24)
    changes = f"data.augmentation={CHANGES['all']}".replace("'", "").replace("True", "true")
    words = [*TINY, changes, *TAUGHT, *WAYS[way]]
    config = load_config([CONFIG], words)
    make_folds(config)
    said = true_maps(config), true_maps(load_config([CONFIG], [*words, "data.train_csv=solution.csv", OF_TESTS]))
    train = Task("segmentation").table.read_table(config)
    write_teacher(config, "big", {"fold0/oof.npz": said[0], "test.npz": said[1]}, train.classes)
    fold = open_fold(str(CONFIG), *words)
    batches = [fold.batch(number) for number in range(2)]
    assert {one in said[0] for batch in batches for one in batch["image_id"]} == {True, False}  # of pseudo-labels, too
    for batch in batches:
        assert batch["teacher"].any()
        torch.testing.assert_close(batch["teacher"], batch["mask"].float())
    assert "teacher" not in fold.val_set[0]


@pytest.mark.slow
def test_masks_that_only_another_run_knows_are_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_sample("segmentation", Path("data"), size=40)
    words = [*TINY, "trainer.max_epochs=8", "optimizer.lr=5e-3", "data.augmentation={}", "sampler.share=natural"]
    config = load_config([CONFIG], words)
    truth = true_maps(config)
    header, *rows = Path("data/train.csv").read_text().splitlines()
    without = [f"{row.rpartition(',')[0]},1 1" for row in rows]  # train.csv says that there is nothing but the corner
    Path("data/train.csv").write_text("\n".join([header, *without]) + "\n")
    make_folds(config)
    small = {one: np.stack([cv2.resize(each * 0.98 + 0.01, (32, 32)) for each in maps]) for one, maps in truth.items()}
    write_teacher(config, "big", {"fold0/oof.npz": small}, Task(config.task).table.read_table(config).classes)
    overlap = {}
    for name, more in {"alone": [], "taught": ["loss.distil.run=big", "loss.distil.weight=20"]}.items():
        assert call("train", CONFIG, *words, *more, "checkpoint.predict_with=latest", f"name={name}") == 0
        answer, stored = Task(config.task).decode.decode, Predictions(Path("outputs", name, "fold0", "oof.npz"))
        answers = [(answer(one, *size, config)["mask"].transpose(2, 0, 1), truth[i]) for i, size, one in stored]
        found, true = (np.concatenate([pair[k].ravel() for pair in answers]) for k in (0, 1))
        overlap[name] = 2 * float((found * true).sum()) / float(found.sum() + true.sum())
    assert overlap["taught"] > overlap["alone"] + 0.2


def mixing(**mix: float) -> TaskConfig:
    return TaskConfig(name="t", task="segmentation", mix=Mix.model_validate({"probability": 1.0} | mix))


def bright_batch(num_images: int = 4) -> dict[str, Any]:
    """Return images that are bright where their masks are."""
    masks = (torch.rand(num_images, 2, 12, 18, generator=torch.Generator().manual_seed(0)) < 0.4).to(torch.uint8)
    return {"image_id": list(map(str, range(num_images))), "image": masks.float(), "mask": masks}


def mixed(seed: int, **mix: float) -> tuple[Tensor, Tensor]:
    made = mix_batch(bright_batch(), mixing(**mix), np.random.default_rng(seed))
    return made["image"], made["mask"].float()


@pytest.mark.parametrize("mix", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_masks_are_mixed_as_their_images_are(mix: dict[str, float]) -> None:
    plain, changes = bright_batch()["image"], 0
    for seed in range(30):
        image, mask = mixed(seed, **mix)
        torch.testing.assert_close(image, mask)
        assert image.shape == plain.shape
        assert ((image >= 0) & (image <= 1)).all()
        changes += not torch.equal(image, plain)
    assert changes > 20


def test_mixup_is_a_share_of_two_images_and_cutmix_a_rectangle() -> None:
    pair = {key: value[:2] for key, value in bright_batch().items()}
    plain, shares, areas = pair["image"], set(), set()
    different = plain[0] != plain[1]
    for seed in range(20):
        image = mix_batch(pair, mixing(mixup=1.0), np.random.default_rng(seed))["image"]
        share = ((image[0] - plain[1]) / (plain[0] - plain[1]))[different]
        torch.testing.assert_close(share, share[:1].expand_as(share))
        shares.add(round(float(share[0]), 2))
        image = mix_batch(pair, mixing(cutmix=1.0), np.random.default_rng(seed))["image"]
        rows, columns = np.nonzero((image != plain).any(1).any(0).numpy())
        areas.add(len(rows))
        if len(rows):
            inside = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
            torch.testing.assert_close(image[0][:, *inside], plain[1][:, *inside])
    assert len(shares) > 5
    assert len(areas) > 5


def test_batches_stay_as_they_are_without_a_setting_alone_or_by_chance() -> None:
    for made, given in ((mixing(), bright_batch()), (mixing(mixup=1.0), bright_batch(1))):
        assert mix_batch(given, made, np.random.default_rng(0)) is given
    made, given = mixing(cutmix=1.0, probability=0.3), bright_batch()
    untouched = sum(mix_batch(given, made, np.random.default_rng(seed)) is given for seed in range(300))
    assert 180 < untouched < 240
    torch.testing.assert_close(given["mask"], bright_batch()["mask"])


def test_the_same_generator_gives_the_same_batch() -> None:
    torch.manual_seed(1)
    first = mixed(5, mixup=0.5, cutmix=0.5)
    torch.manual_seed(2)
    torch.testing.assert_close(mixed(5, mixup=0.5, cutmix=0.5), first)


@pytest.mark.parametrize("crop", ["null", "{probability: 0.7}", "{shrink_first: true, probability: 0.7}"])
def test_masks_beside_cached_images_are_made_once_and_the_same_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crop: str
) -> None:
    write_sample("segmentation", tmp_path, 20)
    words = [*TINY, f"data.dir={tmp_path}", "data.image_size=40", f"data.augmentation.crop={crop}", "data.cache=disk"]
    config = load_config([PROJECT / "configs" / "segmentation.yaml"], words)
    table = Task(config.task).table.read_table(config)
    plain, cached = (
        [ImageDataset(config, table.image_ids, table=table, train=train) for train in (True, False)] for _ in range(2)
    )
    draws = [SeededIndex(index, seed) for index in range(4) for seed in (0, 1)]
    expected = [one[draw] for one in plain for draw in draws]
    share_cache(config, cached)
    assert all(
        one[draw].keys() == sample.keys() for one, sample in zip(cached, expected, strict=False) for draw in draws
    )
    monkeypatch.setattr(type(table), "target", None)
    found = [one[draw] for one in cached for draw in draws]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one["mask"], other["mask"])
        assert torch.equal(one["image"], other["image"])
        assert (one["height"], one["width"]) == (other["height"], other["width"])
