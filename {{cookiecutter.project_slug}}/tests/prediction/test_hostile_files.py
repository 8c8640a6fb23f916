"""Files of others that would lead out of their folder, be run as code, or be read as what they are not."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.config.loading import task_names
from competition.config.settings import Config
from competition.data.dataset import ImageDataset
from competition.files.image_folder import file_name
from competition.prediction.stored import Predictions
from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction

Command = Callable[..., CompletedProcess[str]]

one_task = pytest.mark.parametrize("task", task_names()[:1], indirect=True)
OUTSIDE = ("../../../../x.png", "/etc/x.png", "a/../../x.png", "..", "a\0.png")
PARTS = st.lists(st.sampled_from(["..", ".", "a", "b.png", "", "/", "\\", "c d", "..."]), max_size=6).map("/".join)


@given(PARTS, st.sampled_from(["{image_id}", "{image_id}.png", "a/{image_id}/b", ".{image_id}", "{image_id}/../c"]))
@settings(max_examples=400, deadline=None)
def test_no_id_leads_out_of_the_folder(image_id: str, pattern: str) -> None:
    try:
        name = file_name(pattern, image_id)
    except CompetitionError:
        return
    inside = os.path.normpath(os.path.join("/data/images", name))  # noqa: PTH118
    assert inside == "/data/images" or inside.startswith("/data/images/")


@pytest.mark.parametrize("image_id", ["a", "a.png", "study/series/1.png", "a..b", "..a", "a b", "ä", "a:b", "-"])
def test_ids_of_files_and_folders_below_pass(image_id: str) -> None:
    assert file_name("{image_id}.jpg", image_id) == f"{image_id}.jpg"


@one_task
def test_check_names_ids_that_leave_their_folder_with_their_lines(
    words: list[str], data_dir: Path, command: Command
) -> None:
    for name, line in (("train.csv", "train.csv line 2"), ("sample_submission.csv", "image 1 of sample_submission")):
        path = data_dir / name
        text = path.read_text()
        first = text.splitlines()[1].split(",")[0]
        for image_id in OUTSIDE[:4]:
            path.write_text(text.replace(first, image_id))
            done = command("check", "--no-page", *words)
            assert done.returncode == 1
            [fault] = done.stderr.splitlines()
            assert fault.startswith(f"image {image_id!r}: leads out of its folder")
            assert line in fault
        path.write_text(text)


@one_task
@pytest.mark.parametrize("image_id", OUTSIDE)
def test_an_image_outside_of_its_folder_is_not_read(config: Config, image_id: str) -> None:
    dataset = ImageDataset(config, np.array([image_id], dtype=object))
    for read in (dataset.read, dataset.read_size):
        with pytest.raises(CompetitionError, match="leads out of its folder"):
            read(0)


@pytest.mark.parametrize("image_id", [one for one in OUTSIDE if one != ".."])  # "...png" is a name
def test_a_mask_outside_of_its_folder_is_not_read(image_id: str) -> None:
    files = pytest.importorskip("competition.tasks.segmentation.formats.mask_files")
    unread: Any = None  # data, lines and layout
    pattern = "data/masks/{class_id}/{image_id}.png"
    masks = files.MaskFiles(pattern, np.array([image_id]), ("a", "b"), unread, unread, unread)
    with pytest.raises(CompetitionError, match="leads out of its folder"):
        masks.paths(0)


# -- stored predictions


def save(path: Path, **others: Any) -> Path:
    """Write a file of predictions of two images, with other arrays than it should have."""
    arrays: Mapping[str, Any] = {
        "image_ids": np.array(["a", "b"]),
        "sizes": np.array([[4, 4], [5, 5]]),
        "classes": np.array(["x"]),
        "boxes_starts": np.array([0, 1, 3]),
        "boxes": np.arange(12.0).reshape(3, 4),
    } | others
    kept: dict[str, Any] = {name: values for name, values in arrays.items() if values is not None}
    np.savez(path, **kept)
    return path


MISFITS: dict[str, dict[str, Any]] = {
    "objects": {"boxes": np.array([[{}], [1], [2]], dtype=object)},
    "records with objects": {"boxes": np.array([(1, {})] * 3, dtype=[("a", "i4"), ("b", "O")])},
    "texts": {"boxes": np.array(["a", "b", "c"])},
    "ids of objects": {"image_ids": np.array(["a", {}], dtype=object)},
    "ids of numbers": {"image_ids": np.array([1, 2])},
    "an id twice": {"image_ids": np.array(["a", "a"])},
    "too few sizes": {"sizes": np.array([[4, 4]])},
    "sizes of numbers": {"sizes": np.array([4, 5])},
    "no starts": {"boxes_starts": None},
    "starts of floats": {"boxes_starts": np.array([0.0, 1.0, 3.0])},
    "starts that go back": {"boxes_starts": np.array([0, 4, 3])},
    "starts beyond the end": {"boxes_starts": np.array([0, 1, 9])},
    "starts below 0": {"boxes_starts": np.array([-2, 1, 3])},
    "other shapes": {"boxes_shapes": np.array([[1, 4], [3, 4]])},
    "a number alone": {"boxes": np.array(1.0)},
}


def test_stored_predictions_of_two_images_are_read(tmp_path: Path) -> None:
    stored = Predictions(save(tmp_path / "oof.npz"))
    assert [prediction["boxes"].shape for _, _, prediction in stored] == [(1, 4), (2, 4)]


@pytest.mark.parametrize("kind", MISFITS)
def test_stored_arrays_that_do_not_fit_are_refused(kind: str, tmp_path: Path) -> None:
    path = save(tmp_path / "oof.npz", **MISFITS[kind])
    with pytest.raises(CompetitionError, match=r"oof\.npz: damaged \(") as refused:
        Predictions(path)
    assert "\n" not in str(refused.value)


def test_a_packed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "oof.npz", image_ids=np.zeros(10**6, dtype="U1"))
    with pytest.raises(CompetitionError, match="is packed"):
        Predictions(tmp_path / "oof.npz")


@pytest.mark.parametrize("header", ["(3, 5)", "(9, 4)", "(-3, 4)", "(2**62, 4)", "()", "(3, )"])
def test_a_header_of_other_values_than_are_there_is_refused(header: str, tmp_path: Path) -> None:
    path = save(tmp_path / "oof.npz")
    data = path.read_bytes()
    assert data.count(b"'shape': (3, 4), }") == 1
    new = f"'shape': {header}, }}".encode()
    old = b"'shape': (3, 4), }"
    path.write_bytes(data.replace(old + b" " * (len(new) - len(old)), new.ljust(len(old))))
    with pytest.raises(CompetitionError, match=r"oof\.npz: damaged \("):
        Predictions(path)


def everything(path: Path) -> list[tuple[str, tuple[int, int], Prediction]]:
    return list(Predictions(path))


def test_a_bit_that_was_changed_anywhere_is_told_or_does_not_matter(tmp_path: Path) -> None:
    path = save(tmp_path / "0.npz")
    data, expected = path.read_bytes(), everything(path)
    told = refused = 0
    for number, at in enumerate(range(0, len(data), 7), start=1):
        changed = tmp_path / f"{number}.npz"
        changed.write_bytes(data[:at] + bytes([data[at] ^ 1 << number % 8]) + data[at + 1 :])
        try:
            found = everything(changed)
        except CompetitionError as error:
            told += "damaged (" in str(error) and "\n" not in str(error)
            refused += 1
            continue
        for (name, size, one), (name_before, size_before, before) in zip(found, expected, strict=True):
            assert (name, size) == (name_before, size_before)
            np.testing.assert_array_equal(one["boxes"], before["boxes"])
    assert told == refused > 100


def test_a_file_that_changes_while_a_process_lives_is_compared_anew(tmp_path: Path) -> None:
    path = save(tmp_path / "oof.npz")
    assert everything(path)
    data = path.read_bytes()
    at = data.index(np.arange(12.0).tobytes())
    path.write_bytes(data[:at] + b"\x01" + data[at + 1 :])
    with pytest.raises(CompetitionError, match="has another checksum"):
        everything(path)
