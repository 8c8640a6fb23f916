"""Run-length encoding: a pair of inverses, checked against a slow reading of the definition."""

import base64
import tracemalloc
import zlib
from collections.abc import Callable
from itertools import groupby, product
from typing import Any

import numpy as np
import pytest
from competition.tasks.segmentation.formats.rle import decode_coco, decode_rle, encode_rle
from competition.tasks.segmentation.settings import RunLengths
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
MASKS = arrays.arrays(np.uint8, SHAPES, elements=st.integers(0, 1))
many = settings(max_examples=150, deadline=None)


def slow_encode(mask: np.ndarray) -> str:
    """Walk down the columns pixel by pixel, counting from 1."""
    height, width = mask.shape
    pixels = [(x * height + y + 1, bool(mask[y, x])) for x in range(width) for y in range(height)]
    runs = [list(run) for inside, run in groupby(pixels, key=lambda pixel: pixel[1]) if inside]
    return " ".join(f"{run[0][0]} {len(run)}" for run in runs)


@given(MASKS)
@example(np.zeros((3, 5), np.uint8))
@example(np.ones((3, 5), np.uint8))
@example(np.ones((1, 1), np.uint8))
@many
def test_decoding_undoes_encoding(mask: np.ndarray) -> None:
    decoded = decode_rle(encode_rle(mask), *mask.shape)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, mask)


@given(MASKS)
@many
def test_encoding_is_what_a_walk_down_the_columns_gives(mask: np.ndarray) -> None:
    assert encode_rle(mask) == slow_encode(mask)


@given(SHAPES, st.data())
@many
def test_a_single_pixel_is_found_where_it_is(shape: tuple[int, int], data: st.DataObject) -> None:
    y, x = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    mask = np.zeros(shape, np.uint8)
    mask[y, x] = 1
    assert encode_rle(mask) == f"{x * shape[0] + y + 1} 1"


def test_hand_worked_masks() -> None:
    assert encode_rle(np.array([[1, 0], [1, 0]])) == "1 2"  # the left column
    assert encode_rle(np.array([[1, 1], [0, 0]])) == "1 1 3 1"  # the top row
    assert encode_rle(np.array([[0, 1, 1], [0, 0, 1]])) == "3 1 5 2"  # a run goes on from column to column
    np.testing.assert_array_equal(decode_rle("2 4", 2, 3), [[0, 1, 1], [1, 1, 0]])


def test_empty_and_full_masks() -> None:
    assert encode_rle(np.zeros((3, 4), np.uint8)) == ""
    assert encode_rle(np.ones((3, 4), np.uint8)) == "1 12"
    assert not decode_rle("", 3, 4).any()
    assert decode_rle("1 12", 3, 4).all()


@pytest.mark.parametrize("inside", [True, 255, -1, 0.5])
def test_whatever_is_not_zero_is_inside(inside: float) -> None:
    assert encode_rle(np.array([[0, inside], [0, 0]])) == "3 1"


def test_the_layout_in_memory_does_not_matter() -> None:
    mask = np.random.default_rng(0).integers(0, 2, (20, 30), dtype=np.uint8)
    for view in (np.asfortranarray(mask), mask[::2, ::3], mask[::-1], mask.T):
        np.testing.assert_array_equal(decode_rle(encode_rle(view), *view.shape), view)


@pytest.mark.parametrize(("rle", "size"), [(" ", 0), ("\t\n", 0), (" 2 3 ", 3), ("1 1  3\t1\n", 2)])
def test_space_around_numbers_does_no_harm(rle: str, size: int) -> None:
    assert decode_rle(rle, 2, 3).sum() == size


def test_neighbouring_runs_may_touch() -> None:
    np.testing.assert_array_equal(decode_rle("1 2 3 1", 2, 2), decode_rle("1 3", 2, 2))


@pytest.mark.parametrize(
    ("rle", "reason"),
    [
        ("1 2 3", "pairs.*found 3 numbers"),
        ("1", "pairs.*found 1 numbers"),
        ("1 3 2 1", "overlap or are not sorted"),
        ("4 1 1 1", "overlap or are not sorted"),
        ("5 1 1 1", "overlap or are not sorted"),
        ("0 1", "pixel"),
        ("-1 1", "pixel"),
        ("6 2", "pixels 1 to 6"),
        ("7 1", "pixels 1 to 6"),
        ("1 7", "length.*expected 1 to 6"),
        ("1 0", "length 0"),
        ("1 -1", "length -1"),
        ("a b", "whole numbers.*'a b'"),
        ("1 2 x", "whole numbers.*'1 2 x'"),
        ("1.5 2", "whole numbers"),
        ("1,2", "whole numbers"),
        ("nan nan", "whole numbers"),
        ("-1", "pairs"),
        ("１ ２", "whole numbers"),
        ("1 99999999999999999999", "length|whole numbers"),
        ("99999999999999999999 1", "pixel|whole numbers"),
        ("9223372036854775807 1", "pixel"),
        ("9223372036854775807 2", "pixel"),
        ("1 1 9223372036854775807 2", "pixel"),
        ("-9223372036854775808 1", "pixel"),
    ],
)
def test_malformed_strings_are_refused_with_the_reason(rle: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_rle(rle, 2, 3)


@given(st.lists(st.integers(-3, 14) | st.sampled_from([2**31, 2**62, 2**63 - 1, -(2**63)]), max_size=6))
@many
def test_a_string_is_either_refused_or_says_exactly_the_mask(numbers: list[int]) -> None:
    rle = " ".join(map(str, numbers))
    try:
        mask = decode_rle(rle, 3, 4)
    except ValueError:
        return
    assert mask.sum() == sum(numbers[1::2])
    expected = np.zeros(12, np.uint8)
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        expected[start - 1 : start - 1 + length] = 1
    np.testing.assert_array_equal(mask, expected.reshape(4, 3).T)


def assert_mask_or_refused(decode: Callable[[], np.ndarray]) -> None:
    """Fail where decoding for an image of 3 x 4 gives anything but a mask or a reason."""
    try:
        mask = decode()
    except ValueError:
        return
    assert mask.shape == (3, 4)
    assert set(np.unique(mask)) <= {0, 1}


FORMS = [
    RunLengths(order=order, base=base, relative=relative, empty=empty)
    for order, base, relative, empty in product(("columns", "rows"), (0, 1), (False, True), ("", "-", "-1", "1 0"))
]


def slow_encode_in(mask: np.ndarray, form: RunLengths) -> str:
    """Walk over the pixels in the form's order, counting from its base or from the end of the last run."""
    pixels = (mask if form.order == "rows" else mask.T).reshape(-1).tolist()
    numbers, place, end = [], 0, 0
    for inside, run in groupby(pixels, key=bool):
        length = len(list(run))
        if inside:
            base = 0 if form.relative and numbers else form.base
            numbers += [place - (end if form.relative else 0) + base, length]
            end = place + length
        place += length
    return " ".join(map(str, numbers)) or form.empty


@given(MASKS, st.sampled_from(FORMS))
@settings(max_examples=400, deadline=None)
def test_every_flavour_is_a_pair_of_inverses_and_what_a_walk_gives(mask: np.ndarray, form: RunLengths) -> None:
    text = encode_rle(mask, form)
    assert text == slow_encode_in(mask, form)
    np.testing.assert_array_equal(decode_rle(text, *mask.shape, form), mask)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 7), (1, 1)])
def test_empty_full_and_one_pixel_masks_in_every_flavour(form: RunLengths, shape: tuple[int, int]) -> None:
    one = np.zeros(shape, np.uint8)
    one[-1, shape[1] // 2] = 1
    for mask in (np.zeros(shape, np.uint8), np.ones(shape, np.uint8), one):
        np.testing.assert_array_equal(decode_rle(encode_rle(mask, form), *shape, form), mask)
    assert encode_rle(np.zeros(shape, np.uint8), form) == form.empty
    assert not decode_rle("", *shape, form).any()


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("3 1 5 2", {}),
        ("2 1 4 2", {"base": 0}),
        ("2 2 6 1", {"order": "rows"}),
        ("1 2 5 1", {"order": "rows", "base": 0}),
        ("2 1 1 2", {"base": 0, "relative": True}),  # SIIM: two pixels outside, one inside, one outside, two inside
        ("3 1 1 2", {"relative": True}),
    ],
)
def test_hand_worked_flavours(text: str, form: dict[str, Any]) -> None:
    mask, made = np.array([[0, 1, 1], [0, 0, 1]], np.uint8), RunLengths.model_validate(form)
    assert encode_rle(mask, made) == text
    np.testing.assert_array_equal(decode_rle(text, 2, 3, made), mask)


def test_empty_masks_have_their_token() -> None:
    nothing = np.zeros((2, 3), np.uint8)
    assert encode_rle(nothing, RunLengths(empty="-1")) == "-1"
    assert not decode_rle(" -1 ", 2, 3, RunLengths(empty="-1")).any()
    assert not decode_rle("1 0", 2, 3, RunLengths(empty="1 0")).any()
    with pytest.raises(ValueError, match="length 0"):
        decode_rle("1 0", 2, 3)


@pytest.mark.parametrize(
    ("rle", "form", "reason"),
    [
        ("6 1", {"base": 0}, "at pixel 6; .*pixels 0 to 5"),
        ("-1 1", {"base": 0}, "at pixel -1"),
        ("5 2", {"base": 0}, "ends at pixel 6; .*pixels 0 to 5"),
        ("1 2 3", {"base": 0, "relative": True}, "pairs"),
        ("1 1 -1 1", {"base": 0, "relative": True}, "after pixel -1"),
        ("0 3 3 1", {"base": 0, "relative": True}, "ends at pixel 6"),
        ("0 1", {"relative": True}, "after pixel 0"),
        ("1 1 9223372036854775807 1", {"relative": True}, "after pixel"),
        ("1 1 9223372036854775807 1", {"order": "rows"}, "at pixel"),
        ("-", {"order": "rows"}, "whole numbers"),
        ("- 1", {"base": 0}, "whole numbers"),
        ("0 1 + 1", {"base": 0}, "whole numbers"),
    ],
)
def test_malformed_strings_of_a_flavour_are_refused(rle: str, form: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_rle(rle, 2, 3, RunLengths.model_validate(form))


@given(st.lists(st.integers(-3, 14) | st.sampled_from([2**31, 2**62, 2**63 - 1, -(2**63)]), max_size=6))
@many
def test_a_relative_string_is_either_refused_or_says_exactly_the_mask(numbers: list[int]) -> None:
    form = RunLengths(base=0, relative=True)
    try:
        mask = decode_rle(" ".join(map(str, numbers)), 3, 4, form)
    except ValueError:
        return
    expected: list[int] = []
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        expected += [0] * gap + [1] * length
    np.testing.assert_array_equal(mask.T.reshape(-1), expected + [0] * (12 - len(expected)))


PIECES = st.sampled_from(
    ["1", "12", " ", "-", "+", ".5", "e3", "x", "\t", "\n", "\0", "0x1", "nan", "9" * 19, "9" * 5000, "١"]
)


@given(st.lists(PIECES, max_size=10).map("".join) | st.text(max_size=20), st.sampled_from(FORMS))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_mask_or_refused(text: str, form: RunLengths) -> None:
    assert_mask_or_refused(lambda: decode_rle(text, 3, 4, form))


@given(st.binary(max_size=12) | st.integers(1, 300).map(lambda n: b"o" * n) | st.lists(st.integers(0, 12)).map(bytes))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_mask_of_coco_or_refused(content: bytes) -> None:
    packed = base64.b64encode(zlib.compress(bytes(48 + byte if byte < 13 else byte for byte in content))).decode()
    for text in (packed, packed[:-5], packed[:9] + "A" + packed[10:], content.decode("latin-1")):
        assert_mask_or_refused(lambda text=text: decode_coco(text, 3, 4))


def test_a_mask_that_unpacks_to_gigabytes_is_refused_at_once() -> None:
    bomb = base64.b64encode(zlib.compress(b"0" * (1 << 24), 9)).decode()
    tracemalloc.start()
    with pytest.raises(ValueError, match="expected a mask as COCO's run lengths"):
        decode_coco(bomb, 3, 4)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
