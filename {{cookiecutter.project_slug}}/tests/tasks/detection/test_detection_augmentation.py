"""Boxes follow their image through every random change."""

from typing import Any

import numpy as np
import pytest
from competition.config.data_settings import Augmentation, Data
from competition.data.augmentation import MIN_VISIBLE, ImageAugmentation
from competition.tasks.detection.dataset import collate_targets, target_tensors

UPRIGHT: dict[str, dict[str, Any]] = {
    "none": {},
    "horizontal flip": {"horizontal_flip": 1.0},
    "vertical flip": {"vertical_flip": 1.0},
    "crop": {"crop": {"probability": 1.0, "smallest": 0.3}},
    "shift": {"shift_scale_rotate": {"probability": 1.0, "shift": 0.3, "scale": 0.0, "rotate": 0}},
    "scale": {"shift_scale_rotate": {"probability": 1.0, "shift": 0.0, "scale": 0.4, "rotate": 0}},
    "light": {"brightness_contrast": {"probability": 1.0, "brightness": 0.2, "contrast": 0.2}},
    "named": {
        "more": [
            {"RandomCrop": {"height": 60, "width": 70}, "before_resize": True},
            {"OneOf": {"transforms": ["Transpose", {"RandomScale": {"scale_limit": 0.3, "p": 1}}], "p": 1}},
        ]
    },
}
HEIGHT, WIDTH = 72, 112
BRIGHT = 255


def augmentation(changes: dict[str, Any], *, train: bool = True) -> ImageAugmentation:
    values: dict[str, Any] = {"mean": [0.0] * 4, "std": [1.0] * 4, "channels": 4}
    data = Data(image_size=(HEIGHT, WIDTH), augmentation=Augmentation.model_validate(changes), **values)
    return ImageAugmentation(data, train=train)


def bright_image(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return an image (90, 130, 4) whose channel k is bright in box k alone."""
    rng = np.random.default_rng(seed)
    image = np.zeros((90, 130, 4), dtype=np.uint8)
    boxes = []
    for k in range(4):
        width, height = rng.integers(12, 60, 2)
        x, y = rng.integers(0, 130 - width), rng.integers(0, 90 - height)
        image[y : y + height, x : x + width, k] = BRIGHT
        boxes.append([x, y, x + width, y + height])
    return image, {"bboxes": np.array(boxes, dtype=np.float32), "labels": np.arange(4)}


def bright_box(channel: np.ndarray) -> np.ndarray:
    """Return xyxy of the bright pixels."""
    y, x = np.nonzero(channel > BRIGHT / 2)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])


@pytest.mark.parametrize("name", UPRIGHT)
def test_boxes_stay_tight_around_their_object(name: str) -> None:
    change = augmentation(UPRIGHT[name])
    seen = 0
    for seed in range(12):
        image, target = change(*bright_image(seed), seed)
        for box, label in zip(target["bboxes"], target["labels"], strict=True):
            np.testing.assert_allclose(box, bright_box(image[:, :, int(label)]), atol=1.5)
            seen += 1
    assert seen > 12


def test_boxes_hold_their_object_when_it_is_turned() -> None:
    change = augmentation({"shift_scale_rotate": {"probability": 1.0, "shift": 0.1, "scale": 0.1, "rotate": 30}})
    for seed in range(12):
        image, target = change(*bright_image(seed), seed)
        for box, label in zip(target["bboxes"], target["labels"], strict=True):
            bright = bright_box(image[:, :, int(label)])
            assert (box[:2] <= bright[:2] + 1.5).all()
            assert (box[2:] >= bright[2:] - 1.5).all()


@pytest.mark.parametrize("name", UPRIGHT)
def test_only_objects_that_are_cut_away_lose_their_box(name: str) -> None:
    change = augmentation(UPRIGHT[name])
    for seed in range(12):
        source, target = bright_image(seed)
        image, changed = change(source, target, seed)
        assert set(np.asarray(changed["labels"]).tolist()) <= set(range(4))
        if name in ("none", "horizontal flip", "vertical flip", "light"):
            assert len(changed["bboxes"]) == 4
        for lost in set(range(4)) - {int(label) for label in changed["labels"]}:
            x1, y1, x2, y2 = target["bboxes"][lost]
            # Cutting away is all that makes fewer of the object than its share of the image; zooming makes at most 2x.
            share = (x2 - x1) * (y2 - y1) / (90 * 130)
            assert (image[:, :, lost] > BRIGHT / 2).mean() < share / MIN_VISIBLE


def test_validation_boxes_are_only_resized() -> None:
    source, target = bright_image(0)
    for seed in range(3):
        everything = {key: value for changes in UPRIGHT.values() for key, value in changes.items()}
        _, changed = augmentation(everything, train=False)(source, target, seed)
        scale = np.array([WIDTH / 130, HEIGHT / 90] * 2)
        np.testing.assert_allclose(changed["bboxes"], target["bboxes"] * scale, atol=0.01)
        np.testing.assert_array_equal(changed["labels"], target["labels"])


def test_boxes_at_the_edges_and_tiny_ones_survive_a_plain_resize() -> None:
    boxes = np.array([[0, 0, 130, 90], [129, 89, 130, 90], [0, 0, 0.5, 0.5]], dtype=np.float32)
    source = np.zeros((90, 130, 4), dtype=np.uint8)
    _, changed = augmentation({}, train=False)(source, {"bboxes": boxes, "labels": np.arange(3)}, 0)
    assert np.asarray(changed["labels"]).tolist() == [0, 1, 2]
    np.testing.assert_allclose(changed["bboxes"], boxes * np.array([WIDTH / 130, HEIGHT / 90] * 2), atol=0.01)


@pytest.mark.parametrize("name", UPRIGHT)
def test_images_without_boxes_pass(name: str) -> None:
    nothing = {"bboxes": np.zeros((0, 4), dtype=np.float32), "labels": np.zeros(0, dtype=np.int64)}
    _, changed = augmentation(UPRIGHT[name])(np.zeros((90, 130, 4), dtype=np.uint8), nothing, 0)
    tensors = target_tensors(changed)
    assert tensors["boxes"].shape == (0, 4)
    assert tensors["labels"].shape == (0,)


def test_batches_keep_boxes_image_by_image() -> None:
    tensors = [target_tensors({"bboxes": [[0, 1, 2, 3]] * number, "labels": [1] * number}) for number in (2, 0, 1)]
    batch = collate_targets(tensors)
    assert [tuple(boxes.shape) for boxes in batch["boxes"]] == [(2, 4), (0, 4), (1, 4)]
    assert [labels.tolist() for labels in batch["labels"]] == [[1, 1], [], [1]]
    assert batch["labels"][0].dtype.is_floating_point is False
