"""Single objects in a submission: COCO's run lengths, zlib and base64, each with a class and how sure one is."""

import base64
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from competition.tasks.segmentation.cells import add_objects, encode_objects
from competition.tasks.segmentation.coco_rle import decode_coco, encode_coco
from competition.tasks.segmentation.decode import decode
from competition.tasks.segmentation.settings import SegmentationFormat, TaskConfig

MASKS = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1))


@given(MASKS)
@example(np.zeros((3, 5), np.uint8))
@example(np.ones((3, 5), np.uint8))
@example(np.ones((1, 1), np.uint8))
@example(np.pad(np.ones((1, 1), np.uint8), ((300, 500), (20, 400))))
@settings(max_examples=150, deadline=None)
def test_decoding_undoes_encoding(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_coco(encode_coco(mask), *mask.shape), mask)


@given(MASKS)
@settings(max_examples=100, deadline=None)
def test_the_run_lengths_are_those_of_coco(mask: np.ndarray) -> None:
    coco = pytest.importorskip("faster_coco_eval.core.mask")  # the segmentation project itself goes without it
    expected = coco.encode(np.asfortranarray(mask))["counts"]
    assert zlib.decompress(base64.b64decode(encode_coco(mask))) == expected


def test_a_mask_by_hand() -> None:
    # Down the columns: 1 outside, 2 inside, 3 outside; as characters 48 + 1, 48 + 2, 48 + 3.
    text = zlib.decompress(base64.b64decode(encode_coco(np.array([[0, 1, 0], [1, 0, 0]]))))
    assert text == b"123"
    # From the fourth on a number is written as the difference to the last but one: 2 - 1 = 1, 1 - 1 = 0.
    text = zlib.decompress(base64.b64decode(encode_coco(np.array([[0, 1, 0, 1, 1, 0]]))))
    assert text == b"11110"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0 1", "found 2 words"),
        ("2 1 abc", "found class '2'; expected 0 to 1"),
        ("cat 1 abc", "found class 'cat'"),
        ("0 1.5 abc", "found confidence 1.5"),
        ("0 sure abc", "sure"),
        ("0 1 !!!!", "zlib and base64"),
        ("0 1 aGVsbG8=", "zlib and base64"),
        (f"0 1 {base64.b64encode(zlib.compress(b'1h')).decode()}", "zlib and base64"),
        (f"0 1 {encode_coco(np.ones((3, 3)))}", "has 9 pixels; the image of 2 x 3 has 6"),
    ],
)
def test_objects_that_do_not_fit_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        add_objects(text, np.zeros((2, 3, 2), np.uint8))


def test_each_connected_part_is_an_object_with_its_mean_probability_the_surest_first() -> None:
    probabilities = np.zeros((2, 4, 6), np.float16)
    probabilities[0, 0, :2] = 0.75
    probabilities[0, 3, 4:] = 0.5, 1.0
    probabilities[1, 2, 2] = 1.0
    form = SegmentationFormat.model_validate({"submission": {"style": "instances"}})
    config = TaskConfig(name="t", task="segmentation", format=form)
    answer = decode({"probabilities": probabilities}, 4, 6, config)
    words = encode_objects(answer["mask"], answer["confidence"]).split()
    assert list(zip(words[::3], words[1::3], strict=True)) == [("0", "1.0000"), ("1", "1.0000"), ("0", "0.7500")]
    back = np.zeros_like(answer["mask"])
    add_objects(" ".join(words), back)
    np.testing.assert_array_equal(back, answer["mask"])
    assert encode_objects(np.zeros((4, 6, 2), np.uint8)) == ""
    assert encode_objects(answer["mask"]).split()[1::3] == ["1.0000"] * 3
