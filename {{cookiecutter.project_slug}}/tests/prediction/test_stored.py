"""The file of predictions: written and read as a stream, and what is said of a damaged one."""

import pickle
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from competition.prediction import stored as predictions
from competition.prediction.stored import TOLERANCE, Predictions, PredictionWriter
from competition.runs.folder import OOF
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task

Images = Sequence[tuple[str, tuple[int, int], Mapping[str, np.ndarray]]]


def write(path: Path, images: Images, classes: Sequence[str] = ("a", "ü")) -> Path:
    with PredictionWriter(path.parent) as writer:
        for image_id, (height, width), prediction in images:
            writer.add(image_id, height, width, dict(prediction))
        writer.finish(path, classes)
    return path


def assert_equal(path: Path, images: Images) -> None:
    """Read everything back: ids, sizes, values, types and shapes."""
    stored = Predictions(path)
    assert len(stored) == len(images)
    for index, ((image_id, size, found), expected) in enumerate(zip(stored, images, strict=True)):
        assert (image_id, size) == expected[:2]
        assert found.keys() == expected[2].keys() == stored[index].keys()
        for key, values in expected[2].items():
            assert (found[key].dtype, found[key].shape) == (values.dtype, values.shape)
            np.testing.assert_array_equal(found[key], values)
            np.testing.assert_array_equal(stored[index][key], values)


def ragged(lengths: Sequence[int]) -> Images:
    """Make images with another number of boxes each, none in some."""
    rng = np.random.default_rng(0)
    return [
        (
            f"image {number}.png",
            (10 + number, 20),
            {"boxes": rng.random((length, 4), dtype=np.float32), "labels": rng.integers(0, 9, length)},
        )
        for number, length in enumerate(lengths)
    ]


some_settings = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
@some_settings
def test_arrays_of_any_length_read_back_as_they_were(tmp_path: Path, lengths: list[int]) -> None:
    images = ragged(lengths)
    assert_equal(write(tmp_path / "oof.npz", images), images)


@pytest.mark.parametrize("shape", [(3,), (2, 4, 5), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64, np.uint8])
def test_arrays_of_one_shape_read_back_as_they_were(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    rng = np.random.default_rng(1)
    images = [(f"{number}", (7, 9), {"values": (rng.random(shape) * 99).astype(dtype)}) for number in range(4)]
    assert_equal(write(tmp_path / "new" / "oof.npz", images), images)


def test_masks_of_images_of_other_sizes_read_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    shapes = [(2, 5, 7), (2, 7, 5), (2, 1, 3), (2, 5, 7)]
    images = [(f"{i}", shape[1:], {"values": rng.random(shape).astype(np.float16)}) for i, shape in enumerate(shapes)]
    assert_equal(write(tmp_path / "oof.npz", images), images)


def test_large_values_are_written_in_parts_and_the_views_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "PART_BYTES", 100)
    images = ragged([3, 0, 9, 1, 4])
    with PredictionWriter(tmp_path) as writer:
        for image_id, (height, width), prediction in images:
            writer.add(image_id, height, width, dict(prediction))
        assert len(list(tmp_path.glob(".predictions.*/boxes.*"))) > 1
        writer.finish(tmp_path / "oof.npz", ["a"], ["hflip"])
        assert not list(tmp_path.glob(".predictions.*/*"))
    assert_equal(tmp_path / "oof.npz", images)
    assert Predictions(tmp_path / "oof.npz").views == ["hflip"]


def test_an_array_that_does_not_lie_in_memory_in_order_is_written_in_order(tmp_path: Path) -> None:
    image = ("a", (3, 2), {"values": np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)[::-1]})
    assert_equal(write(tmp_path / "oof.npz", [image]), [image])


def test_the_file_is_a_plain_npz(tmp_path: Path) -> None:
    path = write(tmp_path / "oof.npz", ragged([2, 0, 1]))
    with np.load(path, allow_pickle=False) as archive:
        assert archive["image_ids"].tolist() == ["image 0.png", "image 1.png", "image 2.png"]
        assert archive["sizes"].tolist() == [[10, 20], [11, 20], [12, 20]]
        assert archive["classes"].tolist() == ["a", "ü"]
        assert archive["boxes"].shape == (3, 4)
        assert archive["boxes_starts"].tolist() == archive["labels_starts"].tolist() == [0, 2, 2, 3]
    assert Predictions(path).classes == ("a", "ü")
    assert list(tmp_path.iterdir()) == [path]


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """A file of 32 MB is written and read in a few MB."""
    values = np.random.default_rng(0).random((1, 256, 256), dtype=np.float32)
    images = ((f"{number}", (256, 256), {"probabilities": values}) for number in range(128))
    tracemalloc.start()
    with PredictionWriter(tmp_path) as writer:
        for image_id, (height, width), prediction in images:
            writer.add(image_id, height, width, prediction)
        writer.finish(tmp_path / "oof.npz", ["a"])
    total = sum(float(prediction["probabilities"][0, 0, 0]) for _, _, prediction in Predictions(tmp_path / "oof.npz"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == pytest.approx(128 * values[0, 0, 0])
    assert (tmp_path / "oof.npz").stat().st_size > 32e6
    assert peak < 6e6


def test_a_writer_that_fails_leaves_the_previous_file_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path / "oof.npz", ragged([1]))
    before = path.read_bytes()

    def interrupt() -> None:
        with PredictionWriter(tmp_path) as writer:
            writer.add("x", 1, 1, {"boxes": np.zeros((1, 4))})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "oof.npz", ragged([3, 4]))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CompetitionError) as refused:
        Predictions(path)
    assert str(refused.value).startswith(f"{path}: damaged (")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"text", b"\x93NUMPY\x01\x00"])
def test_another_file_under_its_name_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "oof.npz").write_bytes(content)
    with pytest.raises(CompetitionError, match="damaged"):
        Predictions(tmp_path / "oof.npz")


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "oof.npz", other=np.zeros(3))
    with pytest.raises(CompetitionError, match="damaged"):
        Predictions(tmp_path / "oof.npz")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match="no such file of predictions"):
        Predictions(tmp_path / "oof.npz")


def test_rounding_differs_less_than_the_tolerance_and_another_network_more(
    task: str, untrained: Path, replayable: Path
) -> None:
    difference = Task(task).decode.difference
    one, other = (Predictions(outputs / "t" / "fold0" / OOF)[0] for outputs in (untrained, replayable))
    key = "scores" if "scores" in one else next(iter(one))
    rounded = {**one, key: one[key].astype(np.float16).astype(one[key].dtype)}
    assert difference(one, one) == 0
    assert difference(rounded, one) < TOLERANCE / 10
    shifted = {**one, key: np.clip(one[key] + one[key].dtype.type(2 * TOLERANCE), 0, 1)}
    assert difference(shifted, one) > TOLERANCE
    assert difference(other, one) > 0


def test_what_a_network_says_more_or_less_is_a_difference(task: str, untrained: Path, replayable: Path) -> None:
    difference = Task(task).decode.difference
    stored = Predictions(untrained / "t" / "fold0" / OOF)[0]
    if "boxes" not in stored:
        key = next(iter(stored))
        opposite = (stored[key] < 0.5).astype(stored[key].dtype)
        assert difference({key: opposite}, stored) > TOLERANCE
        return
    few = {key: values if key.startswith("model_") else values[:1] for key, values in stored.items()}
    few["boxes"], few["scores"] = np.array([[2, 2, 20, 20]], np.float32), np.array([0.9], np.float32)
    more = {key: values if key.startswith("model_") else np.repeat(values, 2, axis=0) for key, values in few.items()}
    more["boxes"][1] += 40
    more["scores"][1] = 0.89
    assert difference(more, few) == difference(few, more) == pytest.approx(0.89)


def test_another_process_opens_the_file_itself_and_is_not_sent_what_is_in_it(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((2, 64, 64)).astype(np.float16)
    path = write(tmp_path / OOF, [("a", (64, 64), {"probabilities": values})])
    sent = pickle.dumps(Predictions(path))
    assert len(sent) < values.nbytes / 10
    np.testing.assert_array_equal(pickle.loads(sent)[0]["probabilities"], values)
