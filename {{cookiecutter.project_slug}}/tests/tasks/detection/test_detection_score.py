"""Mean average precision by hand, and the way from stored boxes to those handed in."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from competition.tasks.contract import Evidence
from competition.tasks.detection.boxes import box_iou, suppress
from competition.tasks.detection.decode import average, decode
from competition.tasks.detection.score import constant_answers, scores
from competition.tasks.detection.score import evidence as evidence_for
from competition.tasks.detection.settings import DetectionDecode, TaskConfig
from competition.tasks.detection.table import DetectionTable
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

evidence = partial(evidence_for, metrics=())

ALL = ("map", "map50")
Box = tuple[float, float, float, float]
Found = tuple[Box, float, int]  # box, score, label
True_ = tuple[Box, int]
HERE, THERE, BESIDE = (0.0, 0.0, 10.0, 10.0), (20.0, 20.0, 30.0, 40.0), (50.0, 0.0, 60.0, 10.0)
some = settings(max_examples=60, deadline=None)


def config(**decode_settings: Any) -> TaskConfig:
    return TaskConfig(name="t", task="detection", decode=DetectionDecode.model_validate(decode_settings))


def boxes_of(boxes: Sequence[Box]) -> np.ndarray:
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)


def image(found: Sequence[Found], true: Sequence[True_]) -> Evidence:
    return evidence(
        {
            "bboxes": boxes_of([box for box, _, _ in found]),
            "scores": np.array([score for _, score, _ in found], dtype=np.float32),
            "labels": np.array([label for _, _, label in found], dtype=np.int64),
        },
        {
            "bboxes": boxes_of([box for box, _ in true]),
            "labels": np.array([label for _, label in true], dtype=np.int64),
        },
    )


def score(*images: Evidence, classes: int = 1) -> dict[str, float]:
    return scores(images, ALL, classes)


def test_all_boxes_found_exactly_is_one() -> None:
    one = image([(HERE, 0.9, 0), (THERE, 0.3, 1)], [(THERE, 1), (HERE, 0)])
    two = image([(BESIDE, 0.5, 0)], [(BESIDE, 0)])
    assert score(one, two, image([], []), classes=2) == pytest.approx({"map": 1, "map50": 1})


def test_nothing_found_everything_wrong_or_nothing_there_is_zero() -> None:
    zero = {"map": 0.0, "map50": 0.0}
    assert score(image([], [(HERE, 0)])) == zero
    assert score(image([(BESIDE, 0.9, 0)], [(HERE, 0)])) == zero
    assert score(image([(HERE, 0.9, 1)], [(HERE, 0)]), classes=2) == zero
    assert score(image([(HERE, 0.9, 0)], [])) == zero
    assert score(image([], [])) == zero


def test_one_of_two_found_covers_51_of_the_101_recall_points() -> None:
    assert score(image([(HERE, 0.9, 0)], [(HERE, 0), (THERE, 0)]))["map50"] == pytest.approx(51 / 101)


def test_a_false_box_between_two_right_ones_lowers_what_comes_after() -> None:
    found = image([(HERE, 0.9, 0), (BESIDE, 0.8, 0), (THERE, 0.7, 0)], [(HERE, 0), (THERE, 0)])
    assert score(found)["map50"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_second_box_on_the_same_object_is_false() -> None:
    found = image([(HERE, 0.9, 0), (HERE, 0.8, 0), (THERE, 0.7, 0)], [(HERE, 0), (THERE, 0)])
    assert score(found)["map50"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_overlap_decides_at_how_many_thresholds_a_box_counts() -> None:
    # IoU .72 passes .50, .55, .60, .65 and .70: five of the ten thresholds.
    assert score(image([((0, 0, 10, 7.2), 0.9, 0)], [(HERE, 0)])) == pytest.approx({"map": 0.5, "map50": 1})
    assert score(image([((0, 0, 10, 4.9), 0.9, 0)], [(HERE, 0)])) == pytest.approx({"map": 0, "map50": 0})


def test_images_without_boxes_count() -> None:
    right = image([(HERE, 0.5, 0)], [(HERE, 0)])
    assert score(right, image([], []))["map50"] == pytest.approx(1)
    assert score(right, image([(HERE, 0.4, 0)], []))["map50"] == pytest.approx(1)  # after all that could be found
    assert score(right, image([(HERE, 0.9, 0)], []))["map50"] == pytest.approx(1 / 2)


def test_classes_count_alike_and_those_that_never_occur_not_at_all() -> None:
    found = image([(HERE, 0.9, 0), (BESIDE, 0.9, 2)], [(HERE, 0), (THERE, 1)])
    assert score(found, classes=4)["map50"] == pytest.approx(1 / 2)


def average_precision(images: Sequence[tuple[list[Found], list[True_]]]) -> float:
    """Compute one class's AP at IoU .5 by COCO's definition, step by step."""
    ranked = sorted(((s, i, box) for i, (found, _) in enumerate(images) for box, s, _ in found), key=lambda r: -r[0])
    free = [[box for box, _ in true] for _, true in images]
    hits: list[bool] = []
    for _, i, box in ranked:
        overlaps = box_iou(boxes_of([box]), boxes_of(free[i]))[0].tolist()
        best = max(overlaps, default=0.0)
        hits.append(best >= 0.5)
        if hits[-1]:
            free[i].pop(overlaps.index(best))
    number = sum(len(true) for _, true in images)
    right = np.cumsum(hits)
    recall, precision = right / number, right / np.arange(1, len(hits) + 1)
    levels = np.linspace(0, 1, 101)
    return float(np.mean([precision[recall >= level].max(initial=0) for level in levels]))


@given(st.integers(0, 2**20))
@some
def test_average_precision_is_that_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images: list[tuple[list[Found], list[True_]]] = []
    for _ in range(rng.integers(1, 5)):
        corners = rng.integers(0, 20, (rng.integers(0, 4), 2)) * 20.0
        true: list[True_] = [((x, y, x + 10, y + 10), 0) for x, y in np.unique(corners, axis=0).tolist()]
        moved = [(b, s) for (b, _), s in zip(true, rng.uniform(-4, 4, len(true)), strict=True)]
        found: list[Found] = [((b[0] + s, b[1], b[2] + s, b[3]), rng.random(), 0) for b, s in moved]
        found += [((500.0 + k, 0, 510.0 + k, 10), rng.random(), 0) for k in range(rng.integers(0, 3))]
        images.append((found, true))
    if not any(true for _, true in images):
        return
    assert score(*(image(*one) for one in images))["map50"] == pytest.approx(average_precision(images), abs=1e-6)
    assert score(*(image(*one) for one in images[::-1])) == pytest.approx(score(*(image(*one) for one in images)))


def test_the_score_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    score(image([(HERE, 0.9, 0)], [(HERE, 0)]))
    assert capfd.readouterr().out == ""


def test_the_blind_submission_has_no_box() -> None:
    none = np.zeros(0, dtype=np.int64)
    table: Any = DetectionTable(none, ("x",), none, np.zeros((0, 4), np.float32), none, np.zeros(1, np.int64))
    name, answer = constant_answers(table)
    assert name == "an empty submission"
    assert {key: len(value) for key, value in answer.items()} == {"bboxes": 0, "scores": 0, "labels": 0}


def of_one_model(number: int) -> dict[str, np.ndarray]:
    return {"model": np.zeros(number, dtype=np.int16), "model_weights": np.ones(1, dtype=np.float32)}


def stored(found: Sequence[Found]) -> dict[str, np.ndarray]:
    one = image(found, [])
    return {**{key: one[key] for key in ("boxes", "scores", "labels")}, **of_one_model(len(found))}


@st.composite
def predictions(draw: st.DrawFn) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    number = draw(st.integers(0, 30))
    corner = rng.uniform(-20, 120, (number, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(-2, 60, (number, 2))], axis=1).astype(np.float32)
    found = rng.permutation(np.linspace(0.01, 0.99, number)).astype(np.float32)
    return {"boxes": boxes, "scores": found, "labels": rng.integers(0, 3, number), **of_one_model(number)}


@given(predictions())
@some
def test_decoded_boxes_keep_every_rule(prediction: dict[str, np.ndarray]) -> None:
    answer = decode(prediction, 80, 100, config(min_score=0.2, iou=0.4, max_boxes=10))
    boxes, found, labels = answer["bboxes"], answer["scores"], answer["labels"]
    assert len(boxes) == len(found) == len(labels) <= 10
    assert (boxes >= 0).all()
    assert (boxes <= [100, 80, 100, 80]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (found >= 0.2).all()
    assert (np.diff(found) <= 0).all()
    overlap = box_iou(boxes, boxes) * (labels[:, None] == labels[None, :])
    np.fill_diagonal(overlap, 0)
    assert (overlap <= 0.4).all()


@given(predictions(), st.floats(0.1, 0.9))
@some
def test_suppression_keeps_what_torchvision_keeps(prediction: dict[str, np.ndarray], max_iou: float) -> None:
    boxes = prediction["boxes"][:, [0, 1, 2, 3]]
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    kept = suppress(boxes, prediction["scores"], prediction["labels"], max_iou)
    tensors = (torch.from_numpy(a) for a in (boxes, prediction["scores"], prediction["labels"]))
    assert kept.tolist() == batched_nms(*tensors, max_iou).tolist()


def decoded(found: Sequence[Found], **decode_settings: float) -> list[tuple[list[float], int]]:
    answer = decode(stored(found), 50, 60, config(**decode_settings))
    return list(zip(answer["bboxes"].tolist(), answer["labels"].tolist(), strict=True))


def test_of_overlapping_boxes_the_best_of_each_class_stays() -> None:
    near = (1.0, 0.0, 11.0, 10.0)
    found = decoded([(HERE, 0.5, 0), (near, 0.6, 0), (HERE, 0.4, 1), (THERE, 0.3, 0)])
    assert found == [([*near], 0), ([*HERE], 1), ([*THERE], 0)]


def test_boxes_of_low_score_or_no_area_go_and_the_rest_is_cut_at_the_image() -> None:
    line = (5.0, 5.0, 5.0, 9.0)
    outside = (70.0, 10.0, 90.0, 20.0)
    over = (50.0, 40.0, 99.0, 99.0)
    assert decoded([(HERE, 0.1, 0), (line, 0.9, 0), (outside, 0.9, 0), (over, 0.8, 0)], min_score=0.2) == [
        ([50.0, 40.0, 60.0, 50.0], 0)
    ]


def test_the_best_boxes_stay_when_there_are_too_many() -> None:
    many = [((10.0 * k, 0.0, 10.0 * k + 9, 9.0), 0.1 + 0.1 * k, 0) for k in range(5)]
    assert [box[0] for box, _ in decoded(many, max_boxes=2)] == [40.0, 30.0]


def test_the_average_of_networks_holds_the_boxes_of_all() -> None:
    joined = average([stored([(box, 0.5, 0)]) for box in (HERE, THERE)], config())
    np.testing.assert_array_equal(joined["boxes"], [HERE, THERE])
    assert joined["model"].tolist() == [0, 1]
    assert {key: len(value) for key, value in joined.items()} == dict.fromkeys(joined, 2)
    assert set(joined) == {"boxes", "scores", "labels", "model", "model_weights", "model_trust"}


@pytest.mark.parametrize("join", ["nms", "soft_nms", "wbf"])
def test_a_run_counts_by_its_weight_however_many_networks_it_has(join: str) -> None:
    one, other = [(HERE, 0.9, 0)], [(THERE, 0.6, 0)]
    scores = []
    for networks in (1, 4):
        runs = [average([stored(one)] * networks, config()), average([stored(other)], config())]
        for weights in (None, [2.0, 1.0]):
            answer = decode(average(runs, config(), weights), 50, 60, config(join=join, min_score=0.01))
            scores.append(np.sort(answer["scores"]).round(4).tolist())
    assert scores[:2] == scores[2:]
    assert scores[0] != scores[1]
