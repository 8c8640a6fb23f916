"""Which points are found, and the metrics, against other ways to compute them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from competition.tasks.contract import Evidence
from competition.tasks.points.metrics import match
from competition.tasks.points.score import scores

REACH = np.array([5.0, 8.0])
SEEDS = st.integers(0, 100_000)
some_settings = settings(max_examples=60, deadline=None)


def drawn(seed: int, number: int = 8, side: float = 30.0) -> Evidence:
    """Return what is said of an image of few points, and the truth; scores may be equal."""
    rng = np.random.default_rng(seed)
    said, true = rng.integers(number + 1, size=2)
    return {
        "points": rng.uniform(0, side, (said, 2)).astype(np.float32),
        "scores": (rng.integers(1, 10, said) / 10).astype(np.float32),
        "labels": rng.integers(2, size=said),
        "true_points": rng.uniform(0, side, (true, 2)).astype(np.float32),
        "true_labels": rng.integers(2, size=true),
        "reach": REACH,
    }


def matched_by_loops(one: Evidence) -> list[bool]:
    """Go through the points, surest first, each to the nearest true one that nobody has."""
    taken: set[int] = set()
    hits = [False] * len(one["labels"])
    for i in sorted(range(len(hits)), key=lambda i: -one["scores"][i]):
        best, least = None, np.inf
        for k, (label, (x, y)) in enumerate(zip(one["true_labels"], one["true_points"].tolist(), strict=True)):
            away = float(np.hypot(one["points"][i][0] - x, one["points"][i][1] - y))
            if k not in taken and label == one["labels"][i] and away <= REACH[label] and away < least:
                best, least = k, away
        if best is not None:
            taken.add(best)
            hits[i] = True
    return hits


def found_in_boxes(one: Evidence) -> int:
    """Count as Kuzushiji Recognition does: each true box takes the first point of its class within it that is left."""
    left = list(zip(one["labels"].tolist(), one["points"].tolist(), strict=True))
    number = len(left)
    boxes = zip(one["true_labels"].tolist(), one["true_points"].tolist(), one["half_sides"].tolist(), strict=True)
    for label, (x, y), (half_width, half_height) in boxes:
        inside = (
            point
            for point in left
            if point[0] == label
            and x - half_width < point[1][0] < x + half_width
            and y - half_height < point[1][1] < y + half_height
        )
        if (hit := next(inside, None)) is not None:
            left.remove(hit)
    return number - len(left)


def counted(evidence: list[Evidence], label: int | None) -> tuple[int, int, int]:
    """Return how many points are right, said and true, of a class or of all."""
    right = said = true = 0
    for one in evidence:
        hits = matched_by_loops(one)
        right += sum(hit for hit, own in zip(hits, one["labels"], strict=True) if label in (None, own))
        said += sum(label in (None, own) for own in one["labels"])
        true += sum(label in (None, own) for own in one["true_labels"])
    return right, said, true


@given(SEEDS)
@some_settings
def test_points_are_matched_one_to_one_the_surest_first(seed: int) -> None:
    one = drawn(seed)
    assert match(one).tolist() == matched_by_loops(one)


@given(SEEDS)
@some_settings
def test_points_in_boxes_apart_from_each_other_are_counted_as_the_host_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = rng.permutation(9)[: rng.integers(10)]
    sides = rng.integers(1, 6, (len(cells), 2))
    one = drawn(seed) | {
        "true_points": (10 * np.stack(np.divmod(cells, 3), axis=1) + 5).astype(np.float32),
        "true_labels": rng.integers(2, size=len(cells)),
        "half_sides": sides.astype(np.float32),
    }
    one["points"] = one["points"].round()  # onto the boxes' sides, too, where none is found
    assert match(one).sum() == found_in_boxes(one)


@given(SEEDS)
@some_settings
def test_what_a_point_finds_does_not_depend_on_points_of_lower_score(seed: int) -> None:
    one = drawn(seed)
    hits, sure = match(one), one["scores"] >= 0.5
    kept = {key: one[key][sure] for key in ("points", "scores", "labels")}
    np.testing.assert_array_equal(match({**one, **kept}), hits[sure])


@given(SEEDS)
@some_settings
def test_as_many_are_found_as_by_the_best_assignment_where_true_points_are_far_apart(seed: int) -> None:
    one = drawn(seed, side=300.0)
    far = np.linalg.norm(one["true_points"][:, None] - one["true_points"][None], axis=2) + 1e9 * np.eye(
        len(one["true_points"])
    )
    if len(far) and far.min() < 2 * REACH.max():
        return
    offs = np.random.default_rng(seed).normal(0, 4, (len(one["true_points"]), 2)).astype(np.float32)
    one |= {
        "points": one["true_points"] + offs,
        "labels": one["true_labels"],
        "scores": np.ones(len(offs), dtype=np.float32),
    }
    away = np.linalg.norm(one["points"][:, None] - one["true_points"][None], axis=2)
    can = (away <= REACH[one["true_labels"]]) & (one["labels"][:, None] == one["true_labels"][None])
    rows, columns = linear_sum_assignment(-can.astype(float))
    assert match(one).sum() == can[rows, columns].sum()


@given(st.lists(SEEDS, min_size=1, max_size=4), st.sampled_from([0.5, 1.0, 2.0, 4.0]))
@some_settings
def test_f_scores_precision_and_recall_are_those_of_counts(seeds: list[int], beta: float) -> None:
    evidence = [drawn(seed) for seed in seeds]
    name = f"f{beta:g}"
    found = scores(evidence, [name, f"{name}_mean", "precision", "recall"], 2)
    right, said, true = counted(evidence, None)
    if right:
        precision, recall = right / said, right / true
        assert found["precision"] == pytest.approx(precision)
        assert found["recall"] == pytest.approx(recall)
        assert found[name] == pytest.approx((1 + beta**2) * precision * recall / (beta**2 * precision + recall))
    else:
        assert found[name] == float(not said + true)
    of_classes = [counted(evidence, label) for label in (0, 1)]
    means = [
        (1 + beta**2) * hit / (beta**2 * in_truth + in_answer) for hit, in_answer, in_truth in of_classes if in_truth
    ]
    if means:
        assert found[f"{name}_mean"] == pytest.approx(np.mean(means))


@given(st.lists(SEEDS, min_size=1, max_size=4))
@some_settings
def test_average_precision_is_the_area_under_the_curve(seeds: list[int]) -> None:
    evidence = [drawn(seed) for seed in seeds]
    for one in evidence:  # no two of equal score, which may stand in either order
        one["scores"] = np.random.default_rng(len(one["labels"])).permutation(len(one["labels"])) / 10 + 0.05
    evidence[0]["scores"] = evidence[0]["scores"] + np.float32(0.001)
    areas = []
    for label in (0, 1):
        _, _, true = counted(evidence, label)
        if not true:
            continue
        marked = sorted(
            (-score, hit)
            for one in evidence
            for score, hit, own in zip(one["scores"].tolist(), matched_by_loops(one), one["labels"], strict=True)
            if own == label
        )
        if len({score for score, _ in marked}) < len(marked):
            return
        rights = np.cumsum([hit for _, hit in marked])
        precision = rights / np.arange(1, len(marked) + 1)
        area = sum(precision[k:].max() for k, (_, hit) in enumerate(marked) if hit) / true
        areas.append(area)
    if areas:
        assert scores(evidence, ["ap"], 2)["ap"] == pytest.approx(np.mean(areas))


def test_nothing_found_where_nothing_is_is_right_and_anything_else_is_not() -> None:
    one = drawn(0)
    nothing = {key: one[key][:0] for key in ("points", "scores", "labels", "true_points", "true_labels")} | {
        "reach": REACH
    }
    names = ["f1", "f4_mean", "precision", "recall"]
    assert set(scores([nothing], names, 2).values()) == {1.0}
    said = {"points": np.ones((1, 2), np.float32), "scores": np.ones(1, np.float32), "labels": np.zeros(1, int)}
    assert scores([nothing | said], ["f1", "precision"], 2) == {"f1": 0.0, "precision": 0.0}
    missed = {"true_points": np.ones((1, 2), np.float32), "true_labels": np.zeros(1, int)}
    assert scores([nothing | missed], ["f1", "recall"], 2) == {"f1": 0.0, "recall": 0.0}


def test_a_point_at_the_distance_itself_counts() -> None:
    one = drawn(0) | {
        "points": np.array([[3.0, 4.0]], np.float32),
        "scores": np.ones(1, np.float32),
        "labels": np.zeros(1, int),
        "true_points": np.zeros((1, 2), np.float32),
        "true_labels": np.zeros(1, int),
    }
    assert match(one).tolist() == [True]
    assert match(one | {"points": np.array([[3.01, 4.0]], np.float32)}).tolist() == [False]
