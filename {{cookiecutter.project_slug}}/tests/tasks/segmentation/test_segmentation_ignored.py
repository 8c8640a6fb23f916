"""Mask files with pixels that count for nothing (255, or a colour), and with a colour a class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from competition.checking.check import check
from competition.config.data_settings import Augmentation, Data
from competition.config.loading import validate
from competition.data.augmentation import ImageAugmentation
from competition.data.dataset import ImageDataset, share_cache
from competition.support.errors import CompetitionError
from competition.tasks.contract import Target
from competition.tasks.segmentation.dataset import collate_targets, mix_batch, target_tensors
from competition.tasks.segmentation.loss import image_losses
from competition.tasks.segmentation.outcome import outcome
from competition.tasks.segmentation.score import evidence, scores
from competition.tasks.segmentation.settings import TaskConfig
from competition.tasks.segmentation.table import read_table
from competition.tasks.windows import Place, cut_target

LABELS = np.array([[0, 1, 255, 2], [2, 2, 0, 255], [0, 255, 1, 1]], dtype=np.uint8)
PAINT = {0: (0, 0, 0), 1: (0, 255, 255), 2: (255, 255, 0), 255: (255, 255, 255)}
COLORS = {"urban": [0, 255, 255], "farm": [255, 255, 0]}
OF_VALUES: dict[str, Any] = {"ignore": 255}
OF_COLORS: dict[str, Any] = {"ignore": [255, 255, 255], "colors": COLORS}


def config(folder: Path, train: dict[str, Any], files: str = "masks/{image_id}.png", **sections: Any) -> TaskConfig:
    form = {
        "train": {"keys": None, "files": files, **train},
        "submission": {"keys": {"image_id": "{image_id}", "class_id": "{class_id}"}, "mask": "rle"},
    }
    data = {"dir": str(folder), "image_file": "{image_id}.png", "classes": ["urban", "farm"]} | sections.pop("data", {})
    made = validate({"name": "t", "task": "segmentation", "format": form, "data": data, **sections}, {}, "test")
    assert isinstance(made, TaskConfig)
    return made


def competition(folder: Path, mask: np.ndarray = LABELS, *, as_colors: bool = False, name: str = "a.png") -> None:
    for part in ("train_images", "test_images", "masks"):
        (folder / part).mkdir(exist_ok=True)
    for path in ("train_images/a.png", "test_images/t.png"):
        Image.fromarray(np.zeros((*LABELS.shape, 3), np.uint8)).save(folder / path)
    pixels = np.array([[PAINT[int(value)] for value in row] for row in mask], np.uint8) if as_colors else mask
    Image.fromarray(pixels).save(folder / "masks" / name)
    (folder / "sample_submission.csv").write_text("image_id,class_id,rle\nt,urban,\nt,farm,\n")


@pytest.mark.parametrize(("train", "as_colors"), [(OF_VALUES, False), (OF_COLORS, True)], ids=["values", "colours"])
def test_a_file_tells_classes_and_what_is_ignored(tmp_path: Path, train: dict[str, Any], as_colors: bool) -> None:
    competition(tmp_path, as_colors=as_colors)
    made = config(tmp_path, train)
    table = read_table(made)
    target = table.target(0, *LABELS.shape)
    np.testing.assert_array_equal(target["mask"], np.stack([LABELS == 1, LABELS == 2], axis=-1))
    np.testing.assert_array_equal(target["ignored"], LABELS == 255)
    assert table.amounts().tolist() == [6]
    assert "masks: urban 1, farm 1" in check(made)


def test_colours_may_name_the_classes_and_a_file_a_class_may_ignore_too(tmp_path: Path) -> None:
    competition(tmp_path, as_colors=True)
    assert read_table(config(tmp_path, OF_COLORS, data={"classes": None})).classes == ("urban", "farm")
    farm = read_table(config(tmp_path, OF_COLORS, data={"classes": ["farm"]}))
    np.testing.assert_array_equal(farm.target(0, *LABELS.shape)["mask"][:, :, 0], LABELS == 2)
    competition(tmp_path, LABELS * np.uint8(LABELS != 2), name="a_urban.png")
    by_class = read_table(config(tmp_path, OF_VALUES, files="masks/{image_id}_{class_id}.png"))
    target = by_class.target(0, *LABELS.shape)
    np.testing.assert_array_equal(target["mask"][:, :, 0], LABELS == 1)
    np.testing.assert_array_equal(target["ignored"], LABELS == 255)


@pytest.mark.parametrize(
    ("train", "as_colors", "message"),
    [
        (
            {},
            False,
            r"a\.png: found pixel value 255; expected 0 for none.*; what is to be left out: format\.train\.ignore",
        ),
        ({"colors": COLORS}, True, r"a\.png: found colour \[255, 255, 255\] in row 0, column 2; expected \[0, 0, 0\]"),
        ({"colors": {"urban": [0, 255, 255]}}, True, r"'farm' has no colour in format\.train\.colors"),
        ({"colors": COLORS, "ignore": 255}, True, "expected a colour, as"),
        ({"ignore": [255, 255, 255]}, False, "expected a pixel value, as 255"),
        ({"colors": {**COLORS, "barren": [0, 0, 0]}}, True, r"\[0, 0, 0\] has two meanings"),
    ],
)
def test_other_values_and_settings_are_refused(
    tmp_path: Path, train: dict[str, Any], as_colors: bool, message: str
) -> None:
    competition(tmp_path, as_colors=as_colors)
    with pytest.raises(CompetitionError, match=message):
        read_table(config(tmp_path, train)).target(0, *LABELS.shape)


def target(height: int = 8, width: int = 8) -> Target:
    rng = np.random.default_rng(0)
    ignored = (rng.random((height, width)) < 0.3).astype(np.uint8)
    mask = (rng.random((height, width, 2)) < 0.5).astype(np.uint8) * (1 - ignored)[:, :, None]
    return {"mask": mask, "ignored": ignored}


LOSSES = ("bce", "dice", "jaccard", "focal", "tversky", "lovasz")


@pytest.mark.parametrize("name", LOSSES)
def test_an_ignored_pixel_teaches_nothing_and_the_others_what_they_would_without_it(tmp_path: Path, name: str) -> None:
    made = config(tmp_path, OF_VALUES, loss=dict.fromkeys(LOSSES, 0.0) | {name: 1.0})
    one = target()
    batch = collate_targets([target_tensors(one)])
    ignored = batch["ignored"].expand(1, 2, 8, 8) > 0
    logits = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = image_losses(nn.Identity(), logits, batch, made)
    loss.sum().backward()
    assert logits.grad is not None
    assert (logits.grad[ignored] == 0).all()
    kept = one["ignored"].ravel() == 0
    row = torch.from_numpy(one["mask"].reshape(-1, 2)[kept].T.copy())[None, :, None]
    without = logits.detach().reshape(1, 2, -1)[:, :, torch.from_numpy(kept)][:, :, None]
    alone = image_losses(nn.Identity(), without, {"mask": row}, made)
    assert loss.item() == pytest.approx(alone.item(), rel=1e-5)


def test_what_is_ignored_goes_where_the_masks_go(tmp_path: Path) -> None:
    """What is ignored is painted into the image: it lies there still, after flips, crops and windows."""
    data = Data(image_size=(32, 32), mean=[0, 0, 0], std=[1, 1, 1])
    changes = {"horizontal_flip": 0.5, "vertical_flip": 0.5, "crop": {"probability": 1.0}}
    data = data.model_copy(update={"augmentation": Augmentation.model_validate(changes)})
    ignored = np.zeros((40, 48), np.uint8)
    ignored[4:20, 10:25] = 1
    whole = {"mask": np.stack([ignored, 1 - ignored], axis=-1), "ignored": ignored}
    image = np.repeat(ignored[:, :, None] * np.uint8(255), 3, axis=2)
    for seed in range(6):
        _, changed = ImageAugmentation(data, train=True)(image, whole, seed)
        np.testing.assert_array_equal(changed["ignored"], changed["mask"][:, :, 0])
        np.testing.assert_array_equal(changed["ignored"], 1 - changed["mask"][:, :, 1])
    part = cut_target(whole, Place(2, 8, 16, 16))
    np.testing.assert_array_equal(part["ignored"], part["mask"][:, :, 0])


def test_mixed_with_another_image_pixels_that_either_ignores_are_ignored(tmp_path: Path) -> None:
    made = config(tmp_path, OF_VALUES, mix={"mixup": 1.0, "probability": 1.0})
    nothing = {"mask": np.zeros((8, 8, 2), np.uint8)}  # as a pseudo-label
    batch = {"image": torch.zeros(2, 3, 8, 8), **collate_targets([target_tensors(target()), target_tensors(nothing)])}
    assert batch["ignored"][1].sum() == 0
    mixed = [mix_batch(batch, made, np.random.default_rng(seed)) for seed in range(10)]
    crossed = [one for one in mixed if (one["ignored"][1] > 0).any()]
    assert crossed
    np.testing.assert_array_equal(crossed[0]["ignored"][1] > 0, batch["ignored"][0] > 0)


def test_neither_score_nor_pages_count_ignored_pixels() -> None:
    one, rng = target(), np.random.default_rng(1)
    names = ["dice", "iou", "global_dice", "tgs", "dsb2018"]
    answer = {"mask": one["mask"] | one["ignored"][:, :, None]}  # says what it likes there
    assert set(scores([evidence(answer, one, names)], names, 2).values()) == {1.0}
    said = {"probabilities": rng.random((2, 8, 8)).astype(np.float16)}
    found = outcome(said, answer, one, 2)
    assert (found.score, found.too_much, found.too_little) == (1, 0, 0)


def test_a_host_is_not_handed_pixels_that_count_for_nothing(tmp_path: Path) -> None:
    competition(tmp_path)
    with pytest.raises(CompetitionError, match=r"host_metric: .* would count the pixels that format\.train\.ignore"):
        config(tmp_path, OF_VALUES, host_metric={"file": "score.py"})


def test_what_is_ignored_is_kept_beside_cached_images_too(tmp_path: Path) -> None:
    competition(tmp_path)
    made = config(tmp_path, OF_VALUES, data={"image_size": 16, "cache": "disk"})
    table = read_table(made)
    plain, cached = (ImageDataset(made, table.image_ids, table=table, train=True) for _ in range(2))
    share_cache(made, [cached])
    for sample in (cached[0], cached[0]):  # the second one is kept
        for key in ("mask", "ignored"):
            assert torch.equal(sample[key], plain[0][key])
    assert cached[0]["ignored"].sum() == (LABELS == 255).mean() * 16 * 16
