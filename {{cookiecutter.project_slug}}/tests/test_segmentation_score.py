"""Dice and IoU by hand, and the way from stored probabilities to masks."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from competition.tasks.segmentation.decode import average, decode
from competition.tasks.segmentation.score import evidence, scores
from competition.tasks.segmentation.settings import SegmentationDecode, TaskConfig

ALL = ("dice", "iou", "global_dice")
MASKS = arrays.arrays(np.uint8, (4, 5, 2), elements=st.integers(0, 1))
some = settings(max_examples=60, deadline=None)


def config(**settings_: float) -> TaskConfig:
    return TaskConfig(name="t", task="segmentation", decode=SegmentationDecode.model_validate(settings_))


def mask_of(*pixels: Sequence[int]) -> np.ndarray:
    """Return a mask (1, pixels, classes) with the given values of each class."""
    return np.array(pixels, dtype=np.uint8).T[None]


def score(*pairs: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    gathered = [evidence({"mask": answer}, {"mask": truth}) for answer, truth in pairs]
    return scores(gathered, ALL, pairs[0][0].shape[-1])


def test_one_image_by_hand() -> None:
    # 2 pixels in common, 3 said, 4 true: Dice 2 * 2 / 7, IoU 2 / 5.
    found = score((mask_of([1, 1, 1, 0, 0, 0]), mask_of([1, 1, 0, 1, 1, 0])))
    assert found == pytest.approx({"dice": 4 / 7, "iou": 2 / 5, "global_dice": 4 / 7})


def test_an_empty_mask_said_to_be_empty_counts_one() -> None:
    assert score((mask_of([0, 0]), mask_of([0, 0]))) == {"dice": 1, "iou": 1, "global_dice": 1}


def test_a_mask_where_there_is_none_or_none_where_there_is_one_counts_zero() -> None:
    assert score((mask_of([1, 0]), mask_of([0, 0]))) == {"dice": 0, "iou": 0, "global_dice": 0}
    assert score((mask_of([0, 0]), mask_of([1, 0]))) == {"dice": 0, "iou": 0, "global_dice": 0}


def test_images_and_classes_count_alike_but_globally_by_their_pixels() -> None:
    right = (mask_of([1, 1, 1, 1], [0, 0, 0, 0]), mask_of([1, 1, 1, 1], [0, 0, 0, 0]))  # 1 and 1
    wrong = (mask_of([1, 0, 0, 0], [1, 1, 0, 0]), mask_of([0, 1, 0, 0], [1, 0, 0, 0]))  # 0 and 2/3 (IoU 1/2)
    expected = {"dice": (1 + 1 + 0 + 2 / 3) / 4, "iou": (1 + 1 + 0 + 1 / 2) / 4, "global_dice": 2 * (4 + 1) / (8 + 5)}
    assert score(right, wrong) == pytest.approx(expected)


def test_only_the_metrics_asked_for_are_computed_in_their_order() -> None:
    one = evidence({"mask": mask_of([1])}, {"mask": mask_of([1])})
    assert list(scores([one], ("global_dice", "dice"), 1)) == ["global_dice", "dice"]


@given(st.lists(st.tuples(MASKS, MASKS), min_size=1, max_size=4))
@some
def test_dice_is_the_mean_of_the_definition(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    parts = []
    for answer, truth in pairs:
        for k in range(2):
            a, b = ({*zip(*np.nonzero(mask[:, :, k]), strict=True)} for mask in (answer, truth))
            parts.append(2 * len(a & b) / (len(a) + len(b)) if a | b else 1.0)
    assert score(*pairs)["dice"] == pytest.approx(np.mean(parts))


@given(st.lists(st.tuples(MASKS, MASKS), min_size=1, max_size=4))
@some
def test_perfect_is_one_order_does_not_matter_and_sides_may_change(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert set(score(*((truth, truth) for _, truth in pairs)).values()) == {1.0}
    found = score(*pairs)
    assert all(0 <= value <= 1 for value in found.values())
    assert found["iou"] <= found["dice"] + 1e-12
    assert score(*pairs[::-1]) == pytest.approx(found)
    assert score(*((b, a) for a, b in pairs)) == pytest.approx(found)


def test_pixels_of_many_big_images_do_not_overflow() -> None:
    one = {"counts": np.full((3, 1), 2**31, dtype=np.int64)}
    assert scores([one] * 9, ALL, 1) == {"dice": 1, "iou": 1, "global_dice": 1}


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize by the definition: pixel centres at halves, edges held."""

    def matrix(size: int, new: int) -> np.ndarray:
        at = np.clip((np.arange(new) + 0.5) * size / new - 0.5, 0, size - 1)
        return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size)[None, :]))

    return matrix(image.shape[0], height) @ image @ matrix(image.shape[1], width).T


@given(st.integers(8, 30), st.integers(8, 30), st.integers(0, 2**16))
@some
def test_probabilities_are_resized_before_they_are_cut(height: int, width: int, seed: int) -> None:
    small = np.random.default_rng(seed).random((2, 8, 8)).astype(np.float16)
    mask = decode({"probabilities": small}, height, width, config(threshold=0.4))["mask"]
    assert mask.shape == (height, width, 2)
    for k in range(2):
        expected = bilinear(small[k].astype(np.float64), height, width)
        clear = np.abs(expected - 0.4) > 1e-3
        np.testing.assert_array_equal(mask[:, :, k][clear], expected[clear] > 0.4)


def test_a_smooth_edge_is_cut_between_the_small_pixels() -> None:
    small = np.array([[[0.0, 0.9]]], dtype=np.float16)
    mask = decode({"probabilities": small}, 1, 8, config(threshold=0.5))["mask"]
    # At 1/8 steps from one centre to the other .9 is crossed above .5; cut first, the edge would lie at 4.
    assert mask[0, :, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    mask = decode({"probabilities": small}, 1, 8, config(threshold=0.7))["mask"]
    assert mask[0, :, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


def test_masks_below_the_least_area_vanish_class_by_class() -> None:
    probabilities = np.zeros((2, 4, 4), dtype=np.float16)
    probabilities[0, 0, :3] = probabilities[1, 0, :4] = 1
    areas = {
        least: decode({"probabilities": probabilities}, 4, 4, config(min_area=least))["mask"].sum(axis=(0, 1)).tolist()
        for least in (0, 3, 4, 5)
    }
    assert areas == {0: [3, 4], 3: [3, 4], 4: [0, 4], 5: [0, 0]}


def test_a_higher_threshold_never_adds_a_pixel() -> None:
    probabilities = np.random.default_rng(0).random((1, 16, 16)).astype(np.float16)
    low, high = (decode({"probabilities": probabilities}, 20, 30, config(threshold=t))["mask"] for t in (0.3, 0.6))
    assert (high <= low).all()
    assert high.sum() < low.sum()


def test_the_average_of_networks_is_the_mean_of_their_probabilities() -> None:
    each = [{"probabilities": np.full((1, 2, 2), value, dtype=np.float16)} for value in (0.25, 0.5, 1.0)]
    mean = average(each, config())["probabilities"]
    assert mean.dtype == np.float16
    np.testing.assert_allclose(mean, 1.75 / 3, atol=1e-3)
    np.testing.assert_array_equal(average(each[:1], config())["probabilities"], each[0]["probabilities"])
