"""Dice and IoU by hand, and the way from stored probabilities to masks."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from competition.support.errors import CompetitionError
from competition.tasks.segmentation.decode import average, decode
from competition.tasks.segmentation.score import OBJECT_METRICS, scores
from competition.tasks.segmentation.score import evidence as evidence_for
from competition.tasks.segmentation.settings import SegmentationDecode, SegmentationFormat, TaskConfig
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import fbeta_score

evidence = partial(evidence_for, metrics=OBJECT_METRICS)

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


def test_f_beta_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    pairs = [
        (rng.integers(0, 2, (6, 7, 1), dtype=np.uint8), rng.integers(0, 2, (6, 7, 1), dtype=np.uint8)) for _ in range(5)
    ]
    found = scores([evidence({"mask": a}, {"mask": b}) for a, b in pairs], ("f05", "f1", "f2", "dice"), 1)
    for name, beta in (("f05", 0.5), ("f1", 1), ("f2", 2)):
        assert found[name] == pytest.approx(np.mean([fbeta_score(b.ravel(), a.ravel(), beta=beta) for a, b in pairs]))
    assert found["f1"] == pytest.approx(found["dice"])


def test_dice_and_iou_are_those_of_segmentation_models_pytorch() -> None:
    rng = np.random.default_rng(1)
    answers, truths = (rng.integers(0, 2, (4, 6, 7, 3), dtype=np.uint8) for _ in range(2))
    found = scores([evidence({"mask": a}, {"mask": b}) for a, b in zip(answers, truths, strict=True)], ALL, 3)
    tensors: list[Any] = [torch.from_numpy(each.transpose(0, 3, 1, 2).copy()) for each in (answers, truths)]
    stats = smp.metrics.get_stats(*tensors, mode="multilabel")
    assert found["dice"] == pytest.approx(float(smp.metrics.f1_score(*stats, reduction="none").mean()), abs=1e-6)
    assert found["iou"] == pytest.approx(float(smp.metrics.iou_score(*stats, reduction="none").mean()), abs=1e-6)
    assert found["global_dice"] == pytest.approx(float(smp.metrics.f1_score(*stats, reduction="micro")), abs=1e-6)


def test_dice_is_split_into_masks_and_none() -> None:
    pairs = [
        (mask_of([1, 1, 0], [0, 0, 0]), mask_of([1, 0, 0], [0, 0, 0])),  # 2/3, and right to be empty
        (mask_of([0, 0, 0], [0, 1, 0]), mask_of([0, 1, 0], [0, 0, 0])),  # 0, and wrong to be filled
    ]
    gathered = [evidence({"mask": a}, {"mask": b}) for a, b in pairs]
    found = scores(gathered, ("dice_positive", "dice_negative", "dice"), 2)
    assert found == pytest.approx({"dice_positive": 1 / 3, "dice_negative": 1 / 2, "dice": (2 / 3 + 1) / 4})
    nothing = evidence({"mask": mask_of([0])}, {"mask": mask_of([0])})
    assert scores([nothing], ("dice_positive", "dice_negative"), 1) == {"dice_positive": 1, "dice_negative": 1}


def test_objects_are_counted_for_metrics_of_objects_only() -> None:
    answer = truth = {"mask": mask_of([1, 0, 1])}
    assert set(evidence_for(answer, truth, ["dice", "iou"])) == {"counts"}
    assert set(evidence_for(answer, truth, ["dice", "dsb2018"])) == {"counts", "objects"}


def test_mean_precision_of_objects_by_hand() -> None:
    # True objects of 10 and 4 pixels; said: 8 of the 10 (IoU .8), and one elsewhere. Over .5 to .75 one of three
    # (found, missed, false) counts, at .8 and above none: 6 of 10 thresholds.
    truth = mask_of([1] * 10 + [0] * 2 + [1] * 4 + [0] * 4)
    answer = mask_of([1] * 8 + [0] * 10 + [1] * 2)
    one = evidence({"mask": answer}, {"mask": truth})
    assert one["objects"][:, 0].tolist() == [1] * 6 + [0] * 4 + [2, 2]
    assert scores([one], ("dsb2018",), 1) == pytest.approx({"dsb2018": 6 / 10 / 3})
    same = evidence({"mask": truth}, {"mask": truth})
    empty = evidence({"mask": np.zeros_like(truth)}, {"mask": np.zeros_like(truth)})
    assert scores([same, empty], ("dsb2018",), 1) == {"dsb2018": 1}
    assert scores([one, same], ("dsb2018",), 1) == pytest.approx({"dsb2018": (0.2 + 1) / 2})


@given(st.lists(st.tuples(MASKS, MASKS), min_size=1, max_size=3))
@some
def test_mean_precision_is_that_of_the_definition(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    def objects(mask: np.ndarray) -> list[set[int]]:
        labels = cv2.connectedComponents(np.ascontiguousarray(mask))[1].ravel()
        return [set(np.flatnonzero(labels == number).tolist()) for number in range(1, labels.max() + 1)]

    values = []
    for answer, truth in pairs:
        for k in range(2):
            said, true = objects(answer[:, :, k]), objects(truth[:, :, k])
            each = []
            for threshold in range(50, 100, 5):
                hits = sum(any(100 * len(a & b) > threshold * len(a | b) for a in said) for b in true)
                total = len(said) + len(true) - hits
                each.append(hits / total if total else 1.0)
            values.append(np.mean(each))
    gathered = [evidence({"mask": a}, {"mask": b}) for a, b in pairs]
    assert scores(gathered, ("dsb2018",), 2)["dsb2018"] == pytest.approx(np.mean(values))


def test_the_truth_is_compared_at_the_size_of_the_answer() -> None:
    truth = np.zeros((8, 12, 1), np.uint8)
    truth[2:6, 4:8] = 1
    found = evidence({"mask": truth[1::2, 1::2]}, {"mask": truth})["counts"][:, 0]
    assert found.tolist() == [4, 4, 4]
    assert evidence({"mask": np.zeros((1, 1, 1), np.uint8)}, {"mask": truth})["counts"][:, 0].tolist() == [0, 0, 16]


def test_evidence_of_an_image_is_small_and_of_one_shape() -> None:
    rng = np.random.default_rng(0)
    sizes = [(50, 70, 3), (300, 200, 3)]
    each = [evidence(*({"mask": rng.integers(0, 2, size, dtype=np.uint8)} for _ in range(2))) for size in sizes]
    assert [{key: value.shape for key, value in one.items()} for one in each] == [
        {"counts": (3, 3), "objects": (12, 3)}
    ] * 2


def line(*values: float) -> dict[str, np.ndarray]:
    return {"probabilities": np.array([[values]], dtype=np.float16)}


def test_a_mask_is_what_is_over_the_bottom_threshold_where_enough_is_over_the_top_one() -> None:
    def found(*values: float, **made: float) -> list[int]:
        settings_ = {"threshold": 0.6, "bottom_threshold": 0.3, "min_area": 2} | made
        return decode(line(*values), 1, len(values), config(**settings_))["mask"][0, :, 0].tolist()

    assert found(0.7, 0.7, 0.4, 0.2) == [1, 1, 1, 0]
    assert found(0.7, 0.5, 0.4, 0.2) == [0, 0, 0, 0]
    assert found(0.5, 0.5, 0.5, 0.5, min_area=0) == [0, 0, 0, 0]  # nothing over the top one
    assert found(0.7, 0.4, 0.2, 0.5, 0.1, min_area=1, min_component=2) == [1, 1, 0, 0, 0]


def test_each_class_has_settings_of_its_own() -> None:
    probabilities = {"probabilities": np.repeat(line(0.2, 0.5, 0.8)["probabilities"], 3, axis=0)}
    made = TaskConfig(
        name="t",
        task="segmentation",
        decode=SegmentationDecode(threshold=[0.1, 0.4, 0.7], min_area=[0, 3, 1], bottom_threshold=[0.1, 0.4, 0.3]),
    )
    assert decode(probabilities, 1, 3, made)["mask"][0].T.tolist() == [[1, 1, 1], [0, 0, 0], [0, 1, 1]]
    with pytest.raises(CompetitionError, match=r"decode\.threshold: found 3 values; expected one, or one a class of 1"):
        decode(line(0.5), 1, 1, made)


def test_a_mask_may_be_asked_for_at_another_size() -> None:
    made = config().model_copy(update={"format": SegmentationFormat(size=(20, 30))})
    mask = decode({"probabilities": np.ones((2, 4, 4), np.float16)}, 400, 600, made)["mask"]
    assert mask.shape == (20, 30, 2)
    assert mask.all()


def test_networks_and_views_may_be_weighted_and_of_other_resolutions() -> None:
    each = [{"probabilities": np.full((1, side, side), value, np.float16)} for side, value in ((2, 0.0), (6, 1.0))]
    mean = average(each, config(), weights=[1, 3])["probabilities"]
    assert mean.shape == (1, 2, 2)
    np.testing.assert_allclose(mean, 0.75)
