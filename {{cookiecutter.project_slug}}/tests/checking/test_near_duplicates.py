"""Near-duplicates are found in any guise, others are not, and 100,000 images take seconds."""

import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from competition.checking.near_duplicates import SIDE, Thumbnails, near_duplicates


def scenes(number: int, side: int = 64, seed: int = 0) -> list[np.ndarray]:
    """Draw colour images with soft blobs, each another."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((number, 6, 6, 3), dtype=np.float32)
    large = [cv2.resize(one, (side, side), interpolation=cv2.INTER_CUBIC) for one in coarse]
    return [(np.clip(one, 0, 1) * 255).astype(np.uint8) for one in large]


def groups_of(images: list[np.ndarray]) -> np.ndarray:
    """Return the groups of near-duplicates among images."""
    thumbnails = Thumbnails.of(len(images))
    for index, pixels in enumerate(images):
        thumbnails.add(index, pixels)
    return near_duplicates(thumbnails)


def recompressed(image: np.ndarray) -> np.ndarray:
    decoded = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.copy(),
        recompressed,
        lambda image: cv2.resize(image, (40, 50), interpolation=cv2.INTER_LINEAR),
        lambda image: np.clip(image.astype(np.float32) * 0.8 + 20, 0, 255).astype(np.uint8),
        lambda image: np.roll(image, 1, axis=1),
        lambda image: image[:, :, ::-1].astype(np.float32) / 255,
    ],
    ids=["copy", "jpeg", "resized", "brighter", "a pixel further", "16 bit"],
)
def test_the_same_picture_in_another_guise_is_found(change: Callable[[np.ndarray], np.ndarray]) -> None:
    images = scenes(40)
    groups = groups_of([*images, change(images[7])])
    assert groups[7] == groups[40] == 0
    assert (np.delete(groups, [7, 40]) == -1).all()


@pytest.mark.parametrize("brightness", [0.15, 0.08])
@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.copy(),
        lambda image: cv2.resize(image, (40, 50), interpolation=cv2.INTER_LINEAR),
        lambda image: image + np.uint8(3),
        lambda image: image * np.uint8(3),
    ],
    ids=["copy", "resized", "shifted", "brighter"],
)
def test_dark_pictures_are_found_as_bright_ones_are(
    brightness: float, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    dark = [(image * brightness).astype(np.uint8) for image in scenes(40)]
    groups = groups_of([*dark, *map(change, dark)])
    assert (groups[:40] == groups[40:]).all()
    assert sorted(groups[:40]) == list(range(40))


@pytest.mark.parametrize("brightness", [0.3, 0.15])
def test_dark_pictures_are_found_recompressed(brightness: float) -> None:
    """Of 64 x 64 pixels, or of 20 grey levels, JPEG leaves too little: no more alike than frames of a video."""
    dark = [(image * brightness).astype(np.uint8) for image in scenes(20, side=256)]
    groups = groups_of([*dark, *map(recompressed, dark)])
    assert (groups[:20] == groups[20:]).all()
    assert sorted(groups[:20]) == list(range(20))


def test_copies_are_found_whatever_they_show() -> None:
    """Fine noise, faint marks on a blank sheet, floats: what a small picture does not show."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (512, 512, 1), dtype=np.uint8) for _ in range(4)]
    sheets = [np.full((64, 64, 3), 250, dtype=np.uint8) for _ in range(4)]
    for number, sheet in enumerate(sheets):
        sheet[number] = 249
    floats = [rng.normal(size=(64, 64, 5)).astype(np.float32) for _ in range(4)]
    images = [*noise, *sheets, *floats]
    groups = groups_of([*images, *(image.copy() for image in images)])
    assert (groups[:12] == groups[12:]).all()
    assert sorted(groups[:12]) == list(range(12))


def test_other_pictures_and_turned_ones_are_no_duplicates() -> None:
    images = scenes(300)
    assert (groups_of([*images, images[0][::-1], images[1][:, ::-1]]) == -1).all()


def test_blank_images_are_not_worth_a_word() -> None:
    blank = [np.full((64, 64, 3), level, dtype=np.uint8) for level in (0, 0, 255, 128)]
    assert (groups_of([*scenes(20), *blank]) == -1).all()


def test_images_that_differ_from_a_common_background_only_are_told_apart() -> None:
    """Slides that all show the same bright disc: what is the same in all of them says nothing."""
    disc = cv2.circle(np.zeros((64, 64, 3), dtype=np.uint8), (32, 32), 28, (180, 180, 180), -1)
    slides = [np.where(disc > 0, disc // 2 + image // 3, 0).astype(np.uint8) for image in scenes(60)]
    groups = groups_of([*slides, recompressed(slides[3])])
    assert groups[3] == groups[60] == 0
    assert (np.delete(groups, [3, 60]) == -1).all()


def test_a_chain_of_frames_is_one_group_and_images_of_many_channels_are_seen() -> None:
    image = scenes(1, side=128)[0]
    frames = [np.roll(image, shift, axis=1) for shift in range(0, 8, 2)]
    assert len(set(groups_of([*scenes(80, seed=1), *frames])[80:])) == 1
    many = [np.repeat(image[:, :, :1], 7, axis=2) for image in scenes(20)]
    assert groups_of([*many, many[0]]).tolist().count(0) == 2


def test_no_image_at_all_has_no_duplicate() -> None:
    assert near_duplicates(Thumbnails.of(0)).tolist() == []


@pytest.mark.slow
def test_many_images_are_not_compared_each_with_each() -> None:
    """Of 20,000 plain pictures the copies are found; each with each would be two hundred million comparisons."""
    rng = np.random.default_rng(0)
    coarse = rng.random((20_000, 4, 4), dtype=np.float32)
    pictures = np.stack([cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for one in coarse])
    thumbnails = Thumbnails((np.clip(pictures, 0, 1) * 255).astype(np.uint8), np.zeros(20_000, dtype=np.uint64))
    thumbnails.pictures[1::100] = thumbnails.pictures[::100]
    started = time.process_time()
    groups = near_duplicates(thumbnails)
    assert time.process_time() - started < 20
    assert (groups[::100] >= 0).all()
    assert (groups[1::100] == groups[::100]).all()
    assert (groups >= 0).sum() < 420
