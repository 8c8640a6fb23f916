"""The metrics that count boxes, by hand and against implementations that were published for their competitions."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.tasks.contract import Evidence
from competition.tasks.detection.boxes import box_iou
from competition.tasks.detection.metrics import THRESHOLDS
from competition.tasks.detection.score import COCO_THRESHOLDS, scores
from competition.tasks.detection.score import evidence as evidence_for

evidence = partial(evidence_for, metrics=())

Box = tuple[float, float, float, float]
HERE, THERE, BESIDE = (0.0, 0.0, 10.0, 10.0), (20.0, 20.0, 30.0, 40.0), (50.0, 0.0, 60.0, 10.0)
COUNTED = tuple(THRESHOLDS)
some = settings(max_examples=40, deadline=None)


def image(
    found: Sequence[Box], true: Sequence[Box], labels: Sequence[int] = (), true_labels: Sequence[int] = ()
) -> Evidence:
    """Compare boxes, best first, with the truth."""
    boxes, true_boxes = (np.array(each, dtype=np.float32).reshape(-1, 4) for each in (found, true))
    confidence = np.linspace(0.9, 0.1, len(found)).astype(np.float32)
    answer = {"bboxes": boxes, "scores": confidence, "labels": np.array(labels or [0] * len(found), dtype=np.int64)}
    return evidence(answer, {"bboxes": true_boxes, "labels": np.array(true_labels or [0] * len(true), dtype=np.int64)})


def score(metric: str, *images: Evidence, classes: int = 1) -> float:
    return scores(images, [metric], classes)[metric]


@pytest.mark.parametrize("metric", COUNTED)
def test_the_truth_is_one_and_nothing_found_is_zero(metric: str) -> None:
    assert score(metric, image([HERE, THERE], [THERE, HERE]), image([BESIDE], [BESIDE])) == 1
    assert score(metric, image([], [HERE])) == 0
    assert score(metric, image([HERE], [])) == 0
    assert score(metric, image([BESIDE], [HERE])) == 0
    assert score(metric, image([], [])) == 1


def test_wheat_is_the_mean_over_images_of_right_over_found_or_true() -> None:
    # IoU .72 passes .50 to .70, five of six thresholds; with a false box beside it half of 5/6.
    near = (0.0, 0.0, 10.0, 7.2)
    assert score("wheat", image([near], [HERE])) == pytest.approx(5 / 6)
    assert score("wheat", image([near, BESIDE], [HERE])) == pytest.approx(5 / 12)
    assert score("wheat", image([near], [HERE, THERE])) == pytest.approx(5 / 12)
    assert score("wheat", image([near], [HERE]), image([HERE], []), image([], [])) == pytest.approx((5 / 6 + 0 + 1) / 3)


def test_rsna_leaves_images_out_that_have_no_box_and_get_none() -> None:
    near = (0.0, 0.0, 10.0, 7.2)  # .40 to .70: seven of eight thresholds
    assert score("rsna", image([near], [HERE]), image([], [])) == pytest.approx(7 / 8)
    assert score("rsna", image([near], [HERE]), image([BESIDE], [])) == pytest.approx(7 / 16)
    assert score("rsna", image([], [])) == 1  # no image is left


def test_f2_counts_boxes_of_all_images_and_a_missing_one_four_times() -> None:
    # IoU .72 passes .30 to .70, nine of eleven thresholds.
    right, missed, false = image([(0, 0, 10, 7.2)], [HERE]), image([], [HERE]), image([BESIDE], [])
    assert score("f2", right, missed) == pytest.approx(9 / 11 * 5 / (5 + 4))
    assert score("f2", right, false) == pytest.approx(9 / 11 * 5 / (5 + 1))
    assert score("f2", right, missed, false, image([], [])) == pytest.approx(9 / 11 * 5 / (5 + 4 + 1))


def test_f1_counts_at_an_iou_of_a_half() -> None:
    assert score("f1", image([(0, 0, 10, 5), BESIDE], [HERE, THERE])) == pytest.approx(2 / (2 + 1 + 1))
    assert score("f1", image([(0, 0, 10, 4.9)], [HERE])) == 0


def test_a_second_box_on_the_same_object_and_one_of_another_class_are_false() -> None:
    assert score("f1", image([HERE, HERE], [HERE])) == pytest.approx(2 / 3)
    assert score("f1", image([HERE, HERE], [HERE], labels=[1, 0]), classes=2) == pytest.approx(2 / 3)
    assert score("f1", image([HERE], [HERE], labels=[1], true_labels=[0]), classes=2) == 0


def test_the_better_box_takes_the_object_it_overlaps_most() -> None:
    # The first takes the whole box, so the second, which fits that one only at .5, is left with nothing.
    found = image([(0, 0, 10, 9), (0, 0, 10, 6)], [HERE, (0.0, 20.0, 10.0, 30.0)])
    assert score("f1", found) == pytest.approx(2 / 4)


def published_f2(images: Sequence[Evidence]) -> float:
    """F2 as in the public notebook of the Barrier Reef competition: `calc_f2_score` of its metric's implementation."""
    each = []
    for threshold in np.arange(0.3, 0.85, 0.05):
        tp = fp = fn = 0
        for one in images:
            left = one["true_boxes"].tolist()
            for box in one["boxes"]:
                overlaps = box_iou(box[None], np.array(left).reshape(-1, 4))[0].tolist()
                if left and max(overlaps) > threshold:
                    left.pop(int(np.argmax(overlaps)))
                    tp += 1
                else:
                    fp += 1
            fn += len(left)
        each.append(5 * tp / (5 * tp + 4 * fn + fp) if tp + fn + fp else 1.0)
    return float(np.mean(each))


def published_wheat(images: Sequence[Evidence]) -> float:
    """Mean over images of the precision at .5:.05:.75, as in the public notebook of the wheat competition."""
    results = []
    for one in images:
        precisions = []
        for threshold in np.arange(0.5, 0.76, 0.05):
            left, tp, fp = one["true_boxes"].tolist(), 0, 0
            for box in one["boxes"]:
                best, best_overlap = -1, -np.inf
                for index, true in enumerate(left):
                    overlap = float(box_iou(box[None], np.array([true]))[0, 0])
                    if overlap >= threshold and overlap > best_overlap:
                        best, best_overlap = index, overlap
                if best >= 0:
                    tp += 1
                    left.pop(best)
                else:
                    fp += 1
            precisions.append(tp / (tp + fp + len(left)) if tp + fp + len(left) else 1.0)
        results.append(np.mean(precisions))
    return float(np.mean(results))


@given(st.integers(0, 2**20), st.sampled_from([("f2", published_f2), ("wheat", published_wheat)]))
@some
def test_a_metric_is_that_of_its_published_implementation(
    seed: int, pair: tuple[str, Callable[[Sequence[Evidence]], float]]
) -> None:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(rng.integers(1, 5)):
        corners = rng.uniform(0, 60, (rng.integers(0, 5), 2))
        true = np.concatenate([corners, corners + rng.uniform(10, 40, corners.shape)], axis=1)
        found = np.concatenate([true + rng.normal(0, 3, true.shape), true[:2] + rng.normal(0, 6, true[:2].shape)])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        images.append(image(found[rng.random(len(found)) < 0.8].tolist(), true.tolist()))
    metric, published = pair
    assert score(metric, *images) == pytest.approx(published(images), abs=1e-9)
    assert score(metric, *images[::-1]) == pytest.approx(score(metric, *images))


def test_map_at_one_iou_is_cocos_and_map_their_mean() -> None:
    rng = np.random.default_rng(0)
    boxes = [(x, y, x + 20.0, y + 20.0) for x, y in rng.uniform(0, 200, (30, 2)).tolist()]
    images = [
        image([(a + d, b, c + d, e)], [(a, b, c, e)])
        for (a, b, c, e), d in zip(boxes, rng.uniform(0, 8, 30), strict=True)
    ]
    names = [f"map{round(100 * threshold)}" for threshold in COCO_THRESHOLDS]
    found = scores(images, ["map40", *names, "map"], 1)
    assert list(found) == ["map40", *names, "map"]
    assert found["map"] == pytest.approx(np.mean([found[name] for name in names]))
    assert all(found[a] >= found[b] for a, b in zip(["map40", *names], names, strict=False))
    assert found["map50"] > found["map75"] > 0


def test_vinbigdata_is_the_area_under_the_whole_curve_and_counts_images_without_finding() -> None:
    # Class 0: right, wrong, wrong, right, for two true boxes: 1/2 x 1 + 1/2 x 2/4. No finding: one of two is said.
    both = image([HERE, BESIDE, THERE], [HERE, THERE])
    unsure = image([BESIDE], []) | {"scores": both["scores"][1:2] - 0.01}
    assert score("vinbigdata", both, image([], []), unsure) == pytest.approx((3 / 4 + 1 / 2) / 2)
    # A wrong "No finding" is one step with the right one, as its score is the same, whichever comes first.
    assert score("vinbigdata", image([], []), image([], [HERE])) == pytest.approx((0 + 1 / 2) / 2)
    assert score("vinbigdata", image([], [HERE]), image([], [])) == pytest.approx((0 + 1 / 2) / 2)
    # IoU of exactly .4 is not over it; what another box found already is wrong.
    assert score("vinbigdata", image([(0, 0, 10, 4)], [HERE])) == 0
    assert score("vinbigdata", image([(0, 0, 10, 4.1)], [HERE])) == pytest.approx(1)
    assert score("voc_map", image([(0, 0, 10, 4.1)], [HERE])) == score("voc_map", image([(0, 0, 10, 5)], [HERE])) == 0
    assert score("voc_map", image([(0, 0, 10, 5.1)], [HERE]), image([], [])) == pytest.approx(1)


@given(st.integers(0, 2**20))
@some
def test_a_voc_metric_does_not_depend_on_the_order_of_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [image([HERE, THERE][: rng.integers(3)], [HERE, THERE][rng.integers(3) :]) for _ in range(6)]
    for metric in ("vinbigdata", "voc_map"):
        wanted = score(metric, *images)
        assert score(metric, *(images[place] for place in rng.permutation(6))) == pytest.approx(wanted)


def by_the_devkit(images: Sequence[Evidence], label: int, iou: float) -> float:
    """Compute a class's AP as VOCevaldet.m and VOCap.m of the PASCAL VOC 2010 development kit do, line by line."""
    ranked = sorted(
        ((s, i, box) for i, one in enumerate(images) for box, s, own in zip(one["boxes"], one["scores"], one["labels"],
         strict=True) if own == label),
        key=lambda row: -row[0],
    )  # fmt: skip
    truth = [one["true_boxes"][one["true_labels"] == label] for one in images]
    taken = [np.zeros(len(boxes), dtype=bool) for boxes in truth]
    right = []
    for _, i, box in ranked:
        overlaps = box_iou(box[None].astype(float), truth[i].astype(float))[0]
        best = int(overlaps.argmax()) if len(overlaps) else -1
        right.append(best >= 0 and overlaps[best] > iou and not taken[i][best])
        if right[-1]:
            taken[i][best] = True
    recall = np.cumsum(right) / sum(map(len, truth))
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    mrec, mpre = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    steps = np.flatnonzero(mrec[1:] != mrec[:-1]) + 1
    return float(np.sum((mrec[steps] - mrec[steps - 1]) * mpre[steps]))


@given(st.integers(0, 2**20))
@some
@pytest.mark.parametrize(("metric", "iou"), [("vinbigdata", 0.4), ("voc_map", 0.5)])
def test_a_voc_metric_is_that_of_the_devkit_where_every_image_has_boxes(metric: str, iou: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(rng.integers(1, 5)):
        found, true = (rng.uniform(0, 30, (number, 2)) for number in rng.integers(1, 8, 2))
        boxes = [np.concatenate([corner, corner + 20], axis=1) for corner in (found, true)]
        one = image(*(list(map(tuple, each)) for each in boxes))
        labels = {"labels": rng.integers(0, 2, len(found)), "true_labels": rng.integers(0, 2, len(true))}
        images.append(one | labels | {"scores": rng.random(len(found))})
    there = [label for label in (0, 1) if any((one["true_labels"] == label).any() for one in images)]
    wanted = np.mean([by_the_devkit(images, label, iou) for label in there])
    assert score(metric, *images, classes=2) == pytest.approx(wanted)
