"""Windows: they cover the image exactly, blend to what they were cut from, and show each box once."""

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import small_words
from trainings import run_on_two

from competition.config.loading import load_config, task_names
from competition.config.settings import Config
from competition.data.dataset import ImageDataset, ready
from competition.data.window_dataset import WholeImages, WindowDataset
from competition.files.images import read_image_size
from competition.prediction.predict import predict_images
from competition.prediction.stored import Predictions
from competition.runs.folder import OOF, TEST
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.tasks.windows import Blend, Place, blending_weights, cut_image, cut_target, is_cut_off, places, starts
from competition.training.fold_data import FoldData

SIDES = st.integers(1, 300)
SIZES = st.integers(16, 128)
OVERLAPS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])
some_settings = settings(max_examples=60, deadline=None)


@given(SIDES, SIZES, OVERLAPS)
@some_settings
def test_windows_cover_a_side_exactly_and_overlap_as_asked(length: int, size: int, overlap: float) -> None:
    found = starts(length, size, overlap)
    assert found[0] == 0
    assert found[-1] == max(length - size, 0)
    steps = np.diff(found)
    assert (steps > 0).all()
    assert (steps <= max(int(size * (1 - overlap)), 1)).all()
    assert np.ptp(steps) <= 1 if len(steps) else True


@given(st.integers(1, 90), st.integers(1, 90), st.tuples(st.integers(16, 50), st.integers(16, 50)), OVERLAPS)
@some_settings
def test_what_was_cut_into_windows_blends_to_itself(
    height: int, width: int, size: tuple[int, int], overlap: float
) -> None:
    image = np.random.default_rng(0).random((height, width, 2)).astype(np.float32)
    where = places(height, width, size, overlap)
    maps = [cut_image(image, place).transpose(2, 0, 1) for place in where]
    assert all(one.shape == (2, *size) for one in maps)
    blend = Blend(height, width)
    for values, place in zip(maps, where, strict=True):
        blend.add(values, place)
    np.testing.assert_allclose(blend.mean(), image.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("overlap", [0.25, 0.9])
def test_blending_holds_one_image_however_many_windows_it_has(overlap: float) -> None:
    sides, size, channels = (600, 500), (64, 64), 3
    window = np.ones((channels, *size), dtype=np.float32)
    tracemalloc.start()
    blend = Blend(*sides)
    for place in places(*sides, size, overlap):  # 130 and more than 6,000
        blend.add(window, place)
    mean = blend.mean()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(mean, 1, rtol=1e-5)
    one_image = 4 * sides[0] * sides[1] * (channels + 1)  # float32, with a weight a pixel
    assert peak < 1.5 * one_image + 4 * window.nbytes


@given(SIZES, SIZES)
@some_settings
def test_weights_fall_to_the_border_but_not_to_zero(height: int, width: int) -> None:
    weights = blending_weights(height, width)
    assert weights.min() > 0
    assert weights.max() == weights[height // 2, width // 2] or height % 2 == 0 or width % 2 == 0
    assert weights[0].max() < weights[height // 2].max()
    np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=1e-5)


def test_boxes_are_shifted_clipped_and_left_out_where_a_window_hardly_shows_them() -> None:
    target = {
        "bboxes": np.array([[10, 10, 30, 30], [55, 5, 75, 25], [58.5, 5, 78.5, 25], [90, 90, 99, 99]], np.float32),
        "labels": np.array([0, 1, 2, 3]),
    }
    found = cut_target(target, Place(5, 5, 55, 55))
    assert found["labels"].tolist() == [0, 1]
    assert found["bboxes"].tolist() == [[5, 5, 25, 25], [50, 0, 55, 20]]


def test_points_are_shifted_and_left_out_where_a_window_does_not_show_them() -> None:
    points = np.array([[10, 10], [60, 60], [61, 30], [4, 30]], dtype=np.float32)
    found = cut_target({"keypoints": points, "labels": np.arange(4)}, Place(5, 5, 55, 55))
    assert found["keypoints"].tolist() == [[5, 5], [55, 55]]
    assert found["labels"].tolist() == [0, 1]


boxes_of_a_side = st.tuples(st.integers(0, 180), st.integers(2, 16)).map(lambda box: (box[0], box[0] + box[1]))


@given(boxes_of_a_side, boxes_of_a_side)
@some_settings
def test_a_box_no_larger_than_the_overlap_is_whole_in_a_window_and_no_piece_of_it_stays(
    across: tuple[int, int], along: tuple[int, int]
) -> None:
    """A perfect network says in each window what it shows of the box."""
    box = np.array([[across[0], along[0], across[1], along[1]]], dtype=np.float32)
    where = places(200, 200, (64, 64), 0.25)
    kept = []
    for place in where:
        corner = np.array([place.left, place.top] * 2)
        seen = np.clip(box - corner, 0, 64) + corner
        if (seen[:, 2:] > seen[:, :2]).all() and not is_cut_off(seen, place, where, 200, 200)[0]:
            kept.append(seen[0])
    assert kept
    np.testing.assert_array_equal(np.unique(kept, axis=0), box)


def test_the_size_of_an_image_is_read_from_its_header(sample: Path, config: Config) -> None:
    for path in sorted((sample / "train_images").iterdir())[:5]:
        dataset = ImageDataset(config, np.array([path.name], dtype=object))
        assert read_image_size(path, 3) == read_image_size(path, 1)
        assert dataset.config.data.window is None
    with pytest.raises(CompetitionError, match="no such image file"):
        read_image_size(sample / "gone.png", 3)


# -- as part of the project


@pytest.fixture(scope="module")
def windowed(config_file: Path, sample: Path) -> Config:
    """Return a config whose windows are smaller than the images."""
    words = ["model.encoder=test_resnet", "data.image_size=64", "data.batch_size=4", "data.num_workers=0"]
    words += [*small_words(config_file.stem), "data.window={size: [48, 48], overlap: 0.25}"]
    return load_config([config_file], [*words, "trainer.accelerator=cpu", f"data.dir={sample}"])


def test_windows_of_images_come_one_after_the_other_and_leave_as_whole_images(windowed: Config) -> None:
    task = Task(windowed.task)
    table = task.table.read_table(windowed)
    images = ImageDataset(windowed, table.image_ids, table=table)
    windows = WindowDataset(images, [3, 1])
    whole = WholeImages(task)
    network = task.model.build_network(windowed, len(table.classes)).eval()
    done: list[tuple[str, int, int]] = []
    for start in range(0, len(windows), 3):
        batch = windows.collate([windows[i] for i in range(start, min(start + 3, len(windows)))])
        assert batch["image"].shape[1:] == (3, 64, 64)
        assert set(batch["height"].tolist()) == set(batch["width"].tolist()) == {48}
        with torch.no_grad():
            seen = ready(batch, windowed, torch.float32)["image"]
            predictions = task.prediction.predictions(network, network(seen), batch)
        done += [each[:3] for each in whole.add(batch, predictions)]
    sizes = [images.read(row).shape[:2] for row in (3, 1)]
    assert done == [(table.image_ids[row], *size) for row, size in zip((3, 1), sizes, strict=True)]
    assert len(windows) == sum(len(places(*size, (48, 48), 0.25)) for size in sizes)


def test_training_sees_random_windows_at_full_resolution(windowed: Config) -> None:
    table = Task(windowed.task).table.read_table(windowed)
    data = FoldData(windowed, table, np.arange(24) % 2)
    sample = data.train_set[0]
    assert sample["image"].shape == (3, 64, 64)


def test_predictions_in_windows_do_not_depend_on_batches_or_workers(windowed: Config, tmp_path: Path) -> None:
    task = Task(windowed.task)
    table = task.table.read_table(windowed)
    network = task.model.build_network(windowed, len(table.classes)).eval()
    found = []
    for batch_size, workers in ((4, 0), (7, 1)):
        data = windowed.data.model_copy(update={"batch_size": batch_size, "num_workers": workers})
        config = windowed.model_copy(update={"data": data})
        dataset = ImageDataset(config, table.image_ids[:6], table=table)
        path = tmp_path / f"{workers}" / "oof.npz"
        predict_images(config, [network], dataset, path, table.classes)
        found.append(Predictions(path))
    first, second = found
    assert first.image_ids == second.image_ids == table.image_ids[:6].tolist()
    for one, other in zip(first, second, strict=True):
        if "boxes" in one[2]:  # in order of their scores, of which some are as good as the same
            assert task.decode.difference(one[2], other[2]) < 2e-3
            continue
        for key, values in one[2].items():
            np.testing.assert_allclose(values.astype(float), other[2][key].astype(float), atol=2e-3)


@pytest.mark.slow
def test_two_processes_say_of_windows_what_one_says(
    words: list[str], command: Callable[..., CompletedProcess[str]], task: str
) -> None:
    if task != task_names()[0]:
        pytest.skip("one task type is enough")
    words = [*words, "data.window={size: [48, 48], overlap: 0.25}", "name=t", "fold=0"]
    assert command("folds", *words).returncode == 0
    assert command("train", *words, "trainer.limit_train_batches=1").returncode == 0
    run, found = Path("outputs/t"), []
    for together in ((), ("trainer.devices=2", "trainer.strategy=ddp")):
        copy = Path(shutil.copytree(run, Path("outputs") / f"copy{len(found)}"))
        if together:
            run_on_two("predict", copy.name, "tta=[hflip]", *together)
        else:
            assert command("predict", copy.name, "tta=[hflip]").returncode == 0
        found.append([Predictions(path) for path in (copy / TEST, copy / "fold0" / OOF)])
    for alone, by_two in zip(*found, strict=True):
        assert alone.image_ids == by_two.image_ids
        assert alone.sizes == by_two.sizes
        assert alone.views == by_two.views == ["hflip"]
        for one, other in zip(alone, by_two, strict=True):
            for key, values in one[2].items():
                np.testing.assert_allclose(values.astype(float), other[2][key].astype(float), atol=2e-3)
