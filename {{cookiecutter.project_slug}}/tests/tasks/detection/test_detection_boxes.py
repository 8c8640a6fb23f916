"""Boxes that overlap: what is left out, loses score or is averaged, and by how many networks."""

from collections.abc import Sequence

import numpy as np
import pytest
from competition.config.views import GEOMETRY, view_of
from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction
from competition.tasks.detection.boxes import box_iou, fuse, soft_suppress, suppress
from competition.tasks.detection.decode import average, decode, join_windows, shift_boxes
from competition.tasks.detection.prediction import undo_view
from competition.tasks.detection.settings import DetectionDecode, TaskConfig
from hypothesis import given, settings
from hypothesis import strategies as st

some = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**20)


def config(**decode_settings: object) -> TaskConfig:
    return TaskConfig(name="t", task="detection", decode=DetectionDecode.model_validate(decode_settings))


def stored(boxes: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[int] = ()) -> Prediction:
    """Return what one network says."""
    return {
        "boxes": np.array(boxes, dtype=np.float32).reshape(-1, 4),
        "scores": np.array(scores, dtype=np.float32),
        "labels": np.array(labels or [0] * len(scores), dtype=np.int64),
        "model": np.zeros(len(scores), dtype=np.int16),
        "model_weights": np.ones(1, dtype=np.float32),
    }


def random_boxes(rng: np.random.Generator, number: int, side: float = 100) -> np.ndarray:
    """Return boxes that often overlap."""
    corner = rng.uniform(0, side * 0.6, (number, 2))
    return np.concatenate([corner, corner + rng.uniform(side * 0.1, side * 0.4, (number, 2))], axis=1).astype(
        np.float32
    )


def cluttered(rng: np.random.Generator, number: int) -> Prediction:
    scores = rng.permutation(np.linspace(0.05, 0.95, number))
    return stored(random_boxes(rng, number).tolist(), scores.tolist(), rng.integers(0, 2, number).tolist())


def test_two_networks_boxes_become_their_mean_weighted_by_score() -> None:
    both = average([stored([[0, 0, 10, 10]], [0.9]), stored([[0, 0, 10, 12]], [0.3])], config())
    answer = decode(both, 50, 50, config(join="wbf", iou=0.5))
    np.testing.assert_allclose(answer["bboxes"], [[0, 0, 10, 0.75 * 10 + 0.25 * 12]], rtol=1e-6)
    np.testing.assert_allclose(answer["scores"], [0.6])


def test_a_box_that_one_of_three_networks_sees_keeps_a_third_of_its_score() -> None:
    three = average([stored([[0, 0, 10, 10]], [0.9]), stored([], []), stored([], [])], config())
    np.testing.assert_allclose(decode(three, 50, 50, config(join="wbf"))["scores"], [0.3], rtol=1e-6)
    np.testing.assert_allclose(decode(three, 50, 50, config(join="nms"))["scores"], [0.9])


def test_weights_decide_whose_box_counts() -> None:
    pair = [stored([[0, 0, 10, 10]], [0.8]), stored([[0, 0, 10, 14]], [0.8])]
    answer = decode(average(pair, config(), [3, 1]), 50, 50, config(join="wbf"))
    np.testing.assert_allclose(answer["bboxes"], [[0, 0, 10, 11]])
    np.testing.assert_allclose(answer["scores"], [0.8])
    by_nms = decode(average(pair, config(), [1, 3]), 50, 50, config(join="nms"))
    np.testing.assert_allclose(by_nms["bboxes"], [[0, 0, 10, 14]])


def test_an_average_of_averages_weighs_runs_and_not_their_networks() -> None:
    many = average([stored([[0, 0, 10, 10]], [0.8])] * 4, config())
    one = stored([[0, 0, 10, 14]], [0.8])
    answer = decode(average([many, one], config()), 50, 50, config(join="wbf"))
    np.testing.assert_allclose(answer["bboxes"], [[0, 0, 10, 12]], rtol=1e-6)


@given(seeds)
@some
def test_the_average_of_a_network_with_itself_is_the_network(seed: int) -> None:
    one = cluttered(np.random.default_rng(seed), 12)
    for join in ("nms", "wbf"):
        used = config(join=join, iou=0.5, min_score=0.0)
        alone, twice = (decode(p, 100, 100, used) for p in (one, average([one, one], used)))
        for key in alone:
            np.testing.assert_allclose(alone[key], twice[key], rtol=1e-4, atol=1e-4)


def test_what_a_network_says_twice_does_not_drag_its_own_score_down() -> None:
    repeated = stored([[0, 0, 10, 10], [0, 0, 10, 9.5]], [0.9, 0.1])
    np.testing.assert_allclose(decode(repeated, 50, 50, config(join="wbf"))["scores"], [0.9], rtol=1e-6)


@given(seeds, st.floats(0.2, 0.8), st.lists(st.floats(0.2, 3), min_size=1, max_size=4))
@some
def test_fusion_is_that_of_ensemble_boxes(seed: int, max_iou: float, weights: list[float]) -> None:
    library = pytest.importorskip("ensemble_boxes")
    rng = np.random.default_rng(seed)
    each = [cluttered(rng, int(rng.integers(0, 15))) for _ in weights]
    theirs = library.weighted_boxes_fusion(
        [(one["boxes"] / 100).tolist() for one in each],
        [one["scores"].tolist() for one in each],
        [one["labels"].tolist() for one in each],
        weights=weights, iou_thr=max_iou, skip_box_thr=0.0,
    )  # fmt: skip
    joined = average(each, config())
    ours = fuse(joined["boxes"], joined["scores"], joined["labels"], joined["model"], np.array(weights), max_iou)
    order, wanted = (np.lexsort((*found[0].round(3).T, found[2])) for found in (ours, (theirs[0] * 100, *theirs[1:])))
    np.testing.assert_allclose(ours[0][order], theirs[0][wanted] * 100, atol=1e-3)
    np.testing.assert_allclose(ours[1][order], theirs[1][wanted], atol=1e-5)
    np.testing.assert_array_equal(ours[2][order], theirs[2][wanted])


@given(seeds, st.floats(0.2, 0.8))
@some
def test_soft_suppression_is_that_of_the_paper_step_by_step(seed: int, max_iou: float) -> None:
    one = cluttered(np.random.default_rng(seed), 12)
    left = list(zip(one["boxes"], one["scores"].tolist(), one["labels"].tolist(), range(12), strict=True))
    wanted = []
    while left:
        best = max(left, key=lambda box: box[1])
        left = [box for box in left if box is not best]
        wanted.append((best[3], best[1]))
        for place, (box, score, label, number) in enumerate(left):
            overlap = float(box_iou(box[None], best[0][None])[0, 0])
            factor = 1 - overlap if overlap > max_iou and label == best[2] else 1
            left[place] = (box, score * factor, label, number)
    order, scores = soft_suppress(one["boxes"], one["scores"], one["labels"], max_iou)
    assert order.tolist() == [number for number, _ in wanted]
    np.testing.assert_allclose(scores, [score for _, score in wanted], rtol=1e-5)


def test_a_box_loses_score_by_every_better_one_it_overlaps() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 9], [50, 50, 60, 60]], dtype=np.float32)
    order, scores = soft_suppress(boxes, np.array([0.9, 0.8, 0.5, 0.3], np.float32), np.zeros(4, int), 0.5)
    # The second by IoU .8; the third by .9 with the first and 8/9 with the second, which is .16 by then: after it.
    np.testing.assert_array_equal(order, [0, 3, 1, 2])
    np.testing.assert_allclose(scores, [0.9, 0.3, 0.8 * 0.2, 0.5 * 0.1 * (1 - 8 / 9)], rtol=1e-4)


@given(seeds, st.sampled_from(["nms", "soft_nms", "wbf"]), st.booleans())
@some
def test_decoded_boxes_are_valid_whatever_joins_them(seed: int, join: str, class_agnostic: bool) -> None:
    rng = np.random.default_rng(seed)
    joined = average([cluttered(rng, int(rng.integers(0, 20))) for _ in range(3)], config())
    cuts = [0.1, 0.3]
    answer = decode(joined, 60, 80, config(join=join, class_agnostic=class_agnostic, min_score=cuts, max_boxes=9))
    boxes, scores, labels = answer["bboxes"], answer["scores"], answer["labels"]
    assert boxes.dtype == scores.dtype == np.float32
    assert len(boxes) == len(scores) == len(labels) <= 9
    assert (boxes >= 0).all()
    assert (boxes <= [80, 60, 80, 60]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (scores >= np.array(cuts, np.float32)[labels]).all()
    assert (np.diff(scores) <= 0).all()
    if class_agnostic and join != "soft_nms":
        assert (np.triu(box_iou(boxes, boxes), 1) <= 0.5 + 1e-6).all()


def test_two_classes_on_one_object_are_one_box_where_classes_are_in_each_others_way() -> None:
    both = stored([[0, 0, 10, 10], [0, 0, 10, 9]], [0.6, 0.5], [0, 1])
    assert decode(both, 50, 50, config())["labels"].tolist() == [0, 1]
    for join in ("nms", "wbf"):
        assert decode(both, 50, 50, config(join=join, class_agnostic=True))["labels"].tolist() == [0]


def test_a_cut_a_class_must_be_given_for_every_class() -> None:
    with pytest.raises(CompetitionError, match=r"decode\.min_score: lists 1 scores, but class number 1"):
        decode(stored([[0, 0, 5, 5]], [0.9], [1]), 9, 9, config(min_score=[0.5]))


@given(seeds)
@some
def test_a_cut_before_joining_changes_nothing_that_is_over_it(seed: int) -> None:
    one = cluttered(np.random.default_rng(seed), 15)
    for join in ("nms", "soft_nms"):
        loose, tight = (decode(one, 100, 100, config(join=join, min_score=cut)) for cut in (0.0, 0.4))
        keep = loose["scores"] >= np.float32(0.4)
        np.testing.assert_array_equal(loose["bboxes"][keep], tight["bboxes"])
        np.testing.assert_allclose(loose["scores"][keep], tight["scores"], rtol=1e-6)


def test_an_object_in_two_windows_is_found_once_with_its_score() -> None:
    left, right = stored([[20, 5, 30, 15]], [0.8]), stored([[0, 5, 10, 15], [30, 0, 35, 5]], [0.7, 0.6])
    whole = join_windows([shift_boxes(left, 0, 0), shift_boxes(right, 20, 0)])
    for join in ("nms", "wbf"):
        answer = decode(whole, 20, 60, config(join=join))
        np.testing.assert_array_equal(answer["bboxes"], [[20, 5, 30, 15], [50, 0, 55, 5]])
        np.testing.assert_allclose(answer["scores"], [0.8, 0.6])


@given(seeds, st.sampled_from([*GEOMETRY, "scale1.5", "scale0.5"]), st.integers(20, 90), st.integers(20, 90))
@some
def test_boxes_seen_in_a_view_come_back_to_their_place(seed: int, name: str, height: int, width: int) -> None:
    """A predictor that marks bright pixels marks the same object in every view."""
    rng = np.random.default_rng(seed)
    x1, y1 = rng.integers(0, width - 8), rng.integers(0, height - 8)
    x2, y2 = rng.integers(x1 + 1, width), rng.integers(y1 + 1, height)
    image = np.zeros((height, width), dtype=bool)
    image[y1:y2, x1:x2] = True
    view = view_of(name)
    seen = image[:: -1 if view.flip_rows else 1, :: -1 if view.flip_columns else 1]
    seen = seen.T if view.swap_axes else seen
    rows, columns = np.nonzero(seen)
    found = stored([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], [0.5])
    back = undo_view(found, view, height, width)
    np.testing.assert_array_equal(back["boxes"], [[x1, y1, x2, y2]])
    assert {key: (v.dtype, v.shape) for key, v in back.items()} == {k: (v.dtype, v.shape) for k, v in found.items()}


def test_boxes_of_no_overlap_are_all_kept_in_the_order_of_their_scores() -> None:
    boxes = np.array([[20 * k, 0, 20 * k + 10, 10] for k in range(4)], dtype=np.float32)
    assert suppress(boxes, np.array([0.1, 0.4, 0.3, 0.2]), np.zeros(4, int), 0.5).tolist() == [1, 2, 3, 0]
