"""Peaks of heatmaps: points come back from their own targets, through flips, windows and averages."""

import numpy as np
import pytest
import torch
from competition.config.views import GEOMETRY, view_of
from competition.tasks.contract import Prediction
from competition.tasks.points.decode import average, decode
from competition.tasks.points.loss import heat_of
from competition.tasks.points.peaks import apart
from competition.tasks.points.prediction import joining, undo_view
from competition.tasks.points.settings import PointsDecode, TaskConfig
from competition.tasks.windows import places
from hypothesis import given, settings
from hypothesis import strategies as st

STRIDE, SIGMA = 4, 5.0
CONFIG = TaskConfig(name="t", task="points", decode=PointsDecode(min_score=0.5))


def heatmap_of(points: np.ndarray, labels: np.ndarray, height: int, width: int, num_classes: int = 2) -> Prediction:
    """Return what a perfect network says of an image."""
    like = torch.zeros(1, num_classes, height // STRIDE, width // STRIDE)
    heat = heat_of([torch.from_numpy(points)], [torch.from_numpy(labels)], like, STRIDE, SIGMA)
    return {"heatmap": heat.bumps[0].half().numpy()}


def scattered(seed: int, height: int, width: int, least: float = 24.0) -> tuple[np.ndarray, np.ndarray]:
    """Return points, up to the border, of which those of a class are apart, and their classes."""
    rng = np.random.default_rng(seed)
    points, labels = rng.uniform(0, [width, height], (12, 2)).astype(np.float32), rng.integers(2, size=12)
    near = np.linalg.norm(points[:, None] - points[None], axis=2) < least
    keep = [i for i in range(12) if not (near[i, :i] & (labels[:i] == labels[i])).any()]
    return points[keep], labels[keep]


def assert_found(
    prediction: Prediction, points: np.ndarray, labels: np.ndarray, size: tuple[int, int], off: float
) -> None:
    answer = decode(prediction, *size, CONFIG)
    assert sorted(answer["labels"].tolist()) == sorted(labels.tolist())
    for point, label in zip(points, labels, strict=True):
        own = answer["keypoints"][answer["labels"] == label]
        assert np.abs(own - point).max(axis=1).min() < off


@given(st.integers(0, 10_000), st.sampled_from([(96, 128), (128, 64), (96, 96)]))
@settings(max_examples=40, deadline=None)
def test_points_are_recovered_from_their_own_targets_to_a_tenth_of_a_pixel(seed: int, size: tuple[int, int]) -> None:
    points, labels = scattered(seed, *size)
    assert_found(heatmap_of(points, labels, *size), points, labels, size, 0.1)


@pytest.mark.parametrize("name", GEOMETRY)
def test_a_view_that_is_undone_shows_points_where_they_are(name: str) -> None:
    points, labels = scattered(3, 96, 128)
    view = view_of(name)
    seen = view.see(torch.from_numpy(heatmap_of(points, labels, 96, 128)["heatmap"])).numpy()
    undone = undo_view({"heatmap": seen}, view, 96, 128)
    assert_found(undone, points, labels, (96, 128), 0.1)
    assert_found(average([undone, heatmap_of(points, labels, 96, 128)], CONFIG), points, labels, (96, 128), 0.1)


@pytest.mark.parametrize("size", [(300, 210), (97, 131), (40, 30)])
def test_windows_join_to_what_the_whole_image_shows(size: tuple[int, int]) -> None:
    points, labels = scattered(5, *size)
    join = joining(*size)
    for place in places(*size, (64, 96), 0.3):
        moved = points - np.array([place.left, place.top], dtype=np.float32)
        inside = ((moved >= 0) & (moved <= [place.width, place.height])).all(axis=1)
        join.add(heatmap_of(moved[inside], labels[inside], 64, 96), place)
    joined = join.joined()
    assert joined["heatmap"].shape == (2, round(size[0] / STRIDE), round(size[1] / STRIDE))
    assert joined["heatmap"].dtype == np.float16
    assert_found(joined, points, labels, size, 1.5)


def test_an_even_plateau_is_one_point_and_nothing_is_none() -> None:
    flat = np.zeros((1, 8, 8), dtype=np.float16)
    assert len(decode({"heatmap": flat}, 32, 32, CONFIG)["labels"]) == 0
    flat[0, 3:5, 3:5] = 1
    answer = decode({"heatmap": flat}, 32, 32, CONFIG)
    assert len(answer["labels"]) == 1
    assert np.abs(answer["keypoints"][0] - 16).max() <= 4


@given(st.integers(0, 10_000), st.floats(0, 30))
@settings(max_examples=40, deadline=None)
def test_of_points_near_each_other_the_better_stays(seed: int, distance: float) -> None:
    rng = np.random.default_rng(seed)
    points, labels = rng.uniform(0, 60, (15, 2)), rng.integers(2, size=15)
    stay: list[int] = []
    for i in range(15):
        if all(labels[i] != labels[k] or np.hypot(*(points[i] - points[k])) > distance or not distance for k in stay):
            stay.append(i)
    assert apart(points, labels, distance).tolist() == stay


def test_bumps_are_gaussians_around_the_points_and_the_highest_counts_where_they_overlap() -> None:
    points, labels = np.array([[10.3, 7.9], [14.0, 9.0], [0.0, 31.9]], dtype=np.float32), np.array([0, 0, 1])
    like = torch.zeros(1, 2, 8, 8)
    heat = heat_of([torch.from_numpy(points)], [torch.from_numpy(labels)], like, STRIDE, SIGMA)
    rows, columns = (np.mgrid[:8, :8] + 0.5) * STRIDE
    for label in (0, 1):
        bumps = [
            np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * SIGMA**2))
            for x, y in points[labels == label].tolist()
        ]
        found = heat.bumps[0, label].numpy()
        expected = np.max(bumps, axis=0)
        near = found > 0
        np.testing.assert_allclose(found[near], expected[near], atol=2e-3)
        assert expected[~near].max() < np.exp(-3)  # beyond three sigmas nothing is drawn
    centres = np.argwhere(heat.centres[0].numpy()).tolist()
    assert centres == [[0, 1, 2], [0, 2, 3], [1, 7, 0]]
