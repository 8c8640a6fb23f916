"""What another run found in an image is all that is seen of it: read, cached, copied; and what is refused."""

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from dicom_files import write_dicom

from competition.config.loading import task_names, validate
from competition.config.settings import Config
from competition.files.crops import (
    COLUMNS,
    describe_crops,
    folder_of_stage,
    refuse_absent_crops,
    shares_of,
    with_margin,
)
from competition.files.item_source import copied_source, train_source
from competition.files.item_source import test_source as source_of_test
from competition.files.maps import refuse_absent_stages
from competition.pipeline.train_fold import note_tables
from competition.prediction.stored import Predictions, PredictionWriter
from competition.runs.folder import Run, remember_config
from competition.support.errors import CompetitionError
from competition.support.freshness import MadeFrom
from competition.tasks.contract import Task


def config_of(folder: Path, crop: dict[str, Any] | None, **data: Any) -> Config:
    if "classification" not in task_names():
        pytest.skip("only a classification sees a part of an image")
    settings = {
        "dir": str(folder),
        "channels": 1,
        "mean": [0],
        "std": [1],
        "crop": crop,
        "image_file": "{image_id}.png",
    }
    return validate({"name": "t", "task": "classification", "data": settings | data}, {}, "test")


@pytest.fixture
def pixels(tmp_path: Path) -> np.ndarray:
    """Write an image for training and another of the same name for test, and what is seen of them."""
    whole = np.random.default_rng(0).integers(0, 255, (40, 60), dtype=np.uint8)
    for part, image in (("train_images", whole), ("test_images", 255 - whole)):
        (tmp_path / part).mkdir()
        for name in "abc":
            cv2.imwrite(str(tmp_path / part / f"{name}.png"), image)
    box, other = (0.25, 0.5, 0.5, 0.75), (0.75, 0.0, 1.0, 0.25)
    rows = [("train", "a", *box, 0.9), ("train", "a", *other, 0.2), ("train", "b", *[""] * 5), ("test", "a", *other, 1)]
    pd.DataFrame([*rows, ("test", "c", *box, 1)], columns=COLUMNS).to_csv(tmp_path / "crops.csv", index=False)
    return whole[:, :, None]


def test_of_a_training_and_a_test_image_the_own_box_is_seen(tmp_path: Path, pixels: np.ndarray) -> None:
    config = config_of(tmp_path, {"csv": str(tmp_path / "crops.csv"), "margin": 0})
    source = train_source(config, "a")
    np.testing.assert_array_equal(source.read(), pixels[20:30, 15:30])
    assert source.read_size() == (10, 15)
    np.testing.assert_array_equal(source_of_test(config, "a").read(), 255 - pixels[:10, 45:])
    np.testing.assert_array_equal(train_source(config, "b").read(), pixels)  # nothing was found
    np.testing.assert_array_equal(train_source(config, "c").read(), pixels[20:30, 15:30])  # not trained on there
    names = source.copy_to(tmp_path, "copy")
    np.testing.assert_array_equal(copied_source(config.data, tmp_path, names).read(), source.read())
    counts = describe_crops(config.data, np.array(["a", "b"]), np.array(["a"]))
    assert counts[0].endswith(
        "2 training images, of which 1 have no box and are seen whole; "
        "1 test images, of which 0 have no box and are seen whole"
    )


def test_what_is_seen_of_a_dicom_file_is_copied_as_its_windows_show_it(tmp_path: Path) -> None:
    (tmp_path / "train_images").mkdir()
    pixels = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60)
    write_dicom(tmp_path / "train_images" / "a.dcm", pixels)
    row = ("train", "a", 0.25, 0.5, 0.5, 0.75, 1)
    pd.DataFrame([row], columns=COLUMNS).to_csv(tmp_path / "crops.csv", index=False)
    window = {"dicom_window": [1000, 800], "image_file": "{image_id}.dcm"}
    config = config_of(tmp_path, {"csv": str(tmp_path / "crops.csv"), "margin": 0}, **window)
    source = train_source(config, "a")
    names = source.copy_to(tmp_path, "copy")
    copied = copied_source(config.data, tmp_path, names).read()
    assert copied.shape == (10, 15, 1)
    np.testing.assert_array_equal(copied, source.read())


def test_all_boxes_make_one_rectangle_and_a_margin_ends_at_the_image(tmp_path: Path, pixels: np.ndarray) -> None:
    config = config_of(tmp_path, {"csv": str(tmp_path / "crops.csv"), "margin": 0, "take": "all"})
    np.testing.assert_array_equal(train_source(config, "a").read(), pixels[:30, 15:])
    assert with_margin(np.array([[0.5, 0.5, 0.75, 0.6]]), 1) == pytest.approx((0.25, 0.4, 1, 0.7))
    assert with_margin(np.empty((0, 4)), 1) == ()


def test_an_image_that_was_not_asked_about_and_a_bad_row_are_named(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "crops.csv"
    config = config_of(tmp_path, {"csv": str(path)})
    with pytest.raises(CompetitionError, match=r"image 'b': .*crops\.csv \(data\.crop\) says nothing of it"):
        source_of_test(config, "b")
    path.write_text(path.read_text().replace("0.25,0.5,0.5,0.75,0.9", "0.25,0.5,0.1,0.75,0.9"))
    with pytest.raises(
        CompetitionError, match=r"crops\.csv: line 2: found 'train,0\.25,0\.5,0\.1,0\.75'; expected train"
    ):
        refuse_absent_crops(config.data)


def test_a_file_older_than_its_run_and_one_that_is_not_there_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    stored = tmp_path / "test.npz"
    np.savez(stored, one=np.zeros(1))
    MadeFrom.now(tmp_path / "crops.csv", [stored]).note()
    config = config_of(tmp_path, {"run": str(tmp_path)})
    refuse_absent_crops(config.data)
    np.savez(stored, one=np.ones(2))
    with pytest.raises(
        CompetitionError, match=r"crops\.csv: is older than .*test\.npz; make it anew with `competition"
    ):
        refuse_absent_crops(config.data)
    no_run = config_of(tmp_path, None, maps={"run": "no", "classes": ["a"]}, channels=2)
    for key, lost in (("crop", config_of(tmp_path, {"run": "no"})), ("maps", no_run)):
        with pytest.raises(CompetitionError, match=rf"no: no such run \(data\.{key}\); expected a run's name or, of"):
            refuse_absent_stages(lost.data)
    (tmp_path / "crops.csv").unlink()
    with pytest.raises(
        CompetitionError, match=r"crops\.csv: no such file \(data\.crop\); make it with `competition crops"
    ):
        refuse_absent_crops(config.data)


def test_a_training_does_not_go_on_by_other_crops_than_it_began_with(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = config_of(tmp_path, {"csv": str(tmp_path / "crops.csv")})
    config.fold_folder.mkdir(parents=True)
    note_tables(config)
    remember_config(config.fold_folder, config)
    (config.fold_folder / "latest.pt").touch()  # something was trained by them
    note_tables(config)
    (tmp_path / "crops.csv").write_text((tmp_path / "crops.csv").read_text().replace("0.25", "0.2"))
    with pytest.raises(
        CompetitionError, match=r"crops\.csv: is another than when .*fold0 was begun, which would learn"
    ):
        note_tables(config)


def test_the_run_is_of_this_project_or_another_and_on_kaggle_came_with_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("outputs/boxes", "elsewhere/outputs/boxes", "kaggle/input"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr("competition.support.paths.KAGGLE", tmp_path / "kaggle")
    for notebook, outputs in (("", Path("outputs")), ("Batch", tmp_path / "kaggle/working/outputs")):
        if notebook:
            monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", notebook)
        assert folder_of_stage("boxes") == Path("outputs/boxes")
        assert folder_of_stage("elsewhere/outputs/boxes") == Path("elsewhere/outputs/boxes")
        assert folder_of_stage("none") == outputs / "none"


@pytest.mark.parametrize("task", ["segmentation", "detection", "points"])
def test_only_a_classification_sees_a_part(task: str) -> None:
    if task not in task_names():
        pytest.skip("the task was left out")
    with pytest.raises(CompetitionError, match=r"data\.crop: answers of .* are places in the whole image"):
        validate({"name": "t", "task": task, "data": {"crop": {"run": "x"}}}, {}, "test")


def test_the_verb_writes_each_image_out_of_fold_and_of_test_and_refuses_a_run_without_places(
    task: str, runs: Path, command: Callable[..., CompletedProcess[str]]
) -> None:
    done = command("crops", "t")
    if task not in ("detection", "segmentation"):
        assert (done.returncode, done.stderr) == (1, f"t: is a run of {task}; crops are of boxes or masks\n")
        return
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(runs / "t" / "crops.csv", dtype=str, keep_default_na=False)
    for part, files in (("train", sorted(runs.glob("t/fold*/oof.npz"))), ("test", [runs / "t" / "test.npz"])):
        expected = {image_id for file in files for image_id in np.load(file)["image_ids"].tolist()}
        assert set(written["image_id"][written["part"] == part]) == expected
    refuse_absent_crops(config_of(runs, {"run": str(runs / "t")}).data)  # it is up to date, and can be read


@pytest.mark.parametrize(
    "task", [task for task in task_names() if task in ("detection", "segmentation")], indirect=True
)
def test_a_training_image_is_cropped_by_networks_that_have_not_seen_it_a_test_image_of_its_name_by_all(
    task: str, runs: Path, command: Callable[..., CompletedProcess[str]]
) -> None:
    run = Run.open("t")
    nothing, something = islice(Task(task).decode.trial_predictions(1, run.config), 2)
    first, second = run.out_of_fold_files()
    seen, unseen = Predictions(first).image_ids, Predictions(second).image_ids
    for path, ids, said in (
        (first, seen, nothing),
        (second, unseen, something),
        (runs / "t" / "test.npz", seen, something),
    ):
        classes = Predictions(path).classes
        with PredictionWriter(path.parent) as writer:
            for image_id in ids:
                writer.add(image_id, 64, 64, said)
            writer.finish(path, classes)
    assert command("crops", "t").returncode == 0
    data = config_of(runs, {"run": str(runs / "t")}).data
    assert {shares_of(data, image_id, of_test=False) for image_id in seen} == {()}
    assert all(shares_of(data, image_id, of_test=False) for image_id in unseen)
    assert all(shares_of(data, image_id, of_test=True) for image_id in seen)
    shutil.rmtree(first.parent)  # nobody has a fair word on those any more, whose ids test images have, too
    done = command("crops", "t")
    assert done.returncode == 1
    assert "is a training image that no fold has left out, and a test image, too; train all folds" in done.stderr
