"""Single objects in a submission: COCO's run lengths, zlib and base64, each with a class and how sure one is."""

import base64
import zlib
from functools import partial

import cv2
import numpy as np
import pytest
from competition.tasks.contract import Evidence
from competition.tasks.segmentation.decode import decode
from competition.tasks.segmentation.formats.cells import add_objects, encode_objects
from competition.tasks.segmentation.formats.rle import decode_coco, encode_coco
from competition.tasks.segmentation.objects import parts_of
from competition.tasks.segmentation.score import OBJECT_METRICS, scores
from competition.tasks.segmentation.score import evidence as evidence_for
from competition.tasks.segmentation.settings import SegmentationFormat, TaskConfig
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

evidence = partial(evidence_for, metrics=OBJECT_METRICS)

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
    words = encode_objects(parts_of(answer["mask"]), answer["confidence"]).split()
    assert list(zip(words[::3], words[1::3], strict=True)) == [("0", "1"), ("1", "1"), ("0", "0.75")]
    back = np.zeros_like(answer["mask"])
    add_objects(" ".join(words), back)
    np.testing.assert_array_equal(back, answer["mask"])
    assert encode_objects(parts_of(np.zeros((4, 6, 2), np.uint8))) == ""
    assert encode_objects(parts_of(answer["mask"])).split()[1::3] == ["1"] * 3


def test_objects_are_ranked_in_the_file_as_they_are_scored() -> None:
    mask, confidence = np.zeros((3, 40, 1), np.uint8), np.zeros((3, 40, 1), np.float16)
    mask[1, ::2] = 1
    confidence[1, ::2, 0] = np.random.default_rng(0).uniform(0, 1e-4, size=20)
    written = [float(word) for word in encode_objects(parts_of(mask), confidence).split()[1::3]]
    assert written == sorted(confidence[1, ::2, 0].astype(float), reverse=True)


def squares(*places: tuple[int, int, int]) -> np.ndarray:
    """Return a mask (20, 60, 1) of squares by top, left and side."""
    mask = np.zeros((20, 60, 1), np.uint8)
    for top, left, side in places:
        mask[top : top + side, left : left + side] = 1
    return mask


def seen(answer: np.ndarray, confidence: np.ndarray, truth: np.ndarray) -> Evidence:
    return evidence({"mask": answer, "confidence": confidence}, {"mask": truth})


def test_average_precision_of_objects_by_hand() -> None:
    truth = squares((0, 0, 10), (0, 20, 10), (0, 40, 10))
    answer = squares((0, 0, 10), (12, 5, 5), (0, 20, 8), (0, 40, 7))  # IoU 1, 0, .64 and .49
    confidence = np.zeros(truth.shape, np.float16)
    confidence[:10, :15], confidence[12:], confidence[:10, 20:30], confidence[:10, 40:] = 0.5, 0.75, 1, 0.25
    # By confidence: right, wrong, right, wrong; of three to find: 1/3 x 1 + 1/3 x 2/3.
    one = seen(answer, confidence, truth)
    assert scores([one], ["map60"], 1)["map60"] == pytest.approx(5 / 9)
    # A wrong object that is surer than all, in another image: right at 1/2, 2/4.
    wrong = seen(squares((0, 0, 3)), np.full_like(confidence, 1), squares((8, 30, 3)))
    assert scores([wrong, one], ["map60"], 1)["map60"] == pytest.approx((1 / 2 + 1 / 2) / 4)
    nothing = seen(squares(), confidence, truth)
    assert scores([nothing], ["map60"], 1) == {"map60": 0}
    assert scores([evidence({"mask": np.zeros((1, 1, 1), np.uint8)}, {"mask": truth})], ["map60"], 1) == {"map60": 0}


def test_average_precision_needs_the_confidence_of_objects() -> None:
    with pytest.raises(ValueError, match="map60 ranks objects by confidence"):
        TaskConfig(name="t", task="segmentation", metrics=["map60"])


@given(st.integers(0, 2**20))
@settings(max_examples=40, deadline=None)
def test_average_precision_of_objects_is_that_of_every_object_looked_at_by_itself(seed: int) -> None:
    """As the Open Images challenge's evaluation: the best overlap of each object, the surest first, each once."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(rng.integers(1, 4)):
        truth = squares(
            *((3 + 9 * (i % 2), 8 * i + 1, int(rng.integers(3, 7))) for i in range(7) if rng.random() < 0.7)
        )
        answer = truth | squares(*((0, 9 * i, 2) for i in range(6) if rng.random() < 0.3))
        answer[:, ::8] = 0  # some lose a part
        images.append((answer, rng.random(truth.shape).astype(np.float16), truth))
    found, number = [], 0
    for image, (answer, confidence, truth) in enumerate(images):
        said, true = (cv2.connectedComponents(mask[:, :, 0])[1] for mask in (answer, truth))
        number += true.max()
        for one in range(1, said.max() + 1):
            part = said == one
            ious = [(part & (true == t)).sum() / (part | (true == t)).sum() for t in range(1, true.max() + 1)]
            best = int(np.argmax(ious)) if ious else 0
            is_near = max(ious, default=0) >= 0.6
            found.append((confidence[:, :, 0][part].astype(float).mean(), image, best if is_near else None))
    area, right, taken, points = 0.0, 0, set(), []
    for rank, (_, image, best) in enumerate(sorted(found, key=lambda one: -one[0]), 1):
        is_right = best is not None and (image, best) not in taken
        taken.add((image, best))
        right += is_right
        points.append((right / rank, is_right))
    for place, (_, is_right) in enumerate(points):
        area += max(precision for precision, _ in points[place:]) / number if is_right else 0
    assert scores([seen(*one) for one in images], ["map60"], 1)["map60"] == pytest.approx(area)
