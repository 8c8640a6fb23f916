"""Views of test-time augmentation: what is seen is what numpy shows, and each is undone exactly."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from competition.config.views import DIVISOR, GEOMETRY, View, fault_of_view, view_of, views_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

NAMES = sorted(GEOMETRY)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
some_settings = settings(max_examples=60, deadline=None)
# What numpy makes of an array (..., H, W).
SHOWN = {
    "hflip": lambda a: np.flip(a, -1),
    "vflip": lambda a: np.flip(a, -2),
    "rot180": lambda a: np.rot90(a, 2, (-2, -1)),
    "transpose": lambda a: a.swapaxes(-1, -2),
    "rot90": lambda a: np.rot90(a, 1, (-2, -1)),
    "rot270": lambda a: np.rot90(a, 3, (-2, -1)),
    "antitranspose": lambda a: np.rot90(a, 2, (-2, -1)).swapaxes(-1, -2),
}


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape)


@given(st.sampled_from(NAMES), SHAPES)
@some_settings
def test_a_view_shows_what_numpy_shows(name: str, shape: tuple[int, int, int]) -> None:
    array = numbers(shape)
    np.testing.assert_array_equal(view_of(name).see(torch.from_numpy(array)).numpy(), SHOWN[name](array))


@given(st.sampled_from([*NAMES, "scale0.5", "scale2"]), SHAPES)
@some_settings
def test_a_map_is_undone_exactly(name: str, shape: tuple[int, int, int]) -> None:
    view, array = view_of(name), numbers(shape)
    np.testing.assert_array_equal(view.undo_map(view.see(torch.from_numpy(array)).numpy()), array)


@given(st.sampled_from(NAMES), st.integers(2, 20), st.integers(2, 20), st.data())
@some_settings
def test_the_box_of_a_rectangle_seen_in_a_view_is_undone_exactly(
    name: str, height: int, width: int, data: st.DataObject
) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[top:bottom, left:right] = 1
    view = view_of(name)
    rows, columns = np.nonzero(view.see(torch.from_numpy(mask)).numpy())
    seen = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], dtype=np.float32)
    assert view.undo_boxes(seen, height, width).tolist() == [[left, top, right, bottom]]
    assert view.undo_boxes(np.zeros((0, 4), dtype=np.float32), height, width).shape == (0, 4)


def test_all_eight_ways_to_lay_a_picture_are_there_and_each_is_another() -> None:
    picture = torch.arange(6).reshape(2, 3)
    seen = {(tuple(v.see(picture).shape), *v.see(picture).flatten().tolist()) for v in views_of(NAMES)}
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("name", "size"), [("scale1.25", (192, 320)), ("scale0.5", (64, 128)), ("scale0.01", (32, 32))]
)
def test_a_scale_gives_sides_that_networks_take(name: str, size: tuple[int, int]) -> None:
    assert view_of(name).scaled_size(150, 250) == size
    assert all(side % DIVISOR == 0 for side in size)
    assert View().scaled_size(150, 250) == (150, 250)


@given(st.integers(32, 700), st.integers(32, 700), st.floats(0.3, 3))
@some_settings
def test_a_scale_that_changes_nothing_is_refused_with_others_that_do(height: int, width: int, scale: float) -> None:
    name = f"scale{scale:.3g}"
    fault = fault_of_view(name, height, width)
    is_changed = scale == 1 or view_of(name).scaled_size(height, width) != (height, width)
    assert (fault is None) == (is_changed or name == "scale1")
    for other in re.findall(r"scale[\d.]+", (fault or "").partition("not so")[2]):
        assert fault_of_view(other, height, width) is None


class Blur(nn.Module):
    """A network that treats all directions and mirror images alike: the mean of a pixel's surroundings, squared."""

    def forward(self, images: Tensor) -> Any:
        return nn.functional.avg_pool2d(images, 3, stride=1, padding=1) ** 2


@given(st.sampled_from(NAMES), st.integers(3, 9), st.integers(3, 9))
@some_settings
def test_a_network_that_knows_no_direction_says_the_same_in_every_view(name: str, height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    view, network = view_of(name), Blur()
    np.testing.assert_allclose(view.undo_map(network(view.see(images)).numpy()), network(images).numpy(), rtol=1e-5)
