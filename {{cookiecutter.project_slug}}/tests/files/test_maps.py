"""What another run says of an image's pixels is among its channels: read, cropped, copied; and what is refused."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from competition.config.loading import task_names, validate
from competition.config.settings import Config
from competition.files.item_source import copied_source, seen_of, train_source
from competition.files.item_source import test_source as source_of_test
from competition.files.maps import INDEX, MAPS, map_files, refuse_absent_stages, write_maps
from competition.prediction.stored import Predictions, PredictionWriter
from competition.runs.folder import Run
from competition.support.errors import CompetitionError
from competition.support.freshness import remember_sources
from competition.tasks.contract import Task

SHAPE = (40, 60)


def config_of(folder: Path, **data: Any) -> Config:
    maps = {"run": str(folder / "masks"), "classes": ["a/b", "c"]}
    settings = {"dir": str(folder), "channels": 9, "maps": maps, "image_file": "{image_id}.png"}
    task = next(name for name in ("classification", *task_names()) if name in task_names())
    return validate({"name": "t", "task": task, "data": settings | data}, {}, "test")


@pytest.fixture
def pixels(tmp_path: Path) -> np.ndarray:
    """Write an image for training and for test, and what is said of them: of the first class more to the right."""
    image = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)
    for part in ("train_images", "test_images"):
        (tmp_path / part / "x").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / part / "x" / "y.png"), image[..., ::-1])
    right = np.tile(np.linspace(0, 1, 60, dtype=np.float16), (40, 1))
    maps = np.stack([right, np.full(SHAPE, 0.4, np.float16)])
    write_maps(
        tmp_path / "masks" / MAPS, ["a/b", "c"], [("train", "x/y", maps, SHAPE), ("test", "x/y", 1 - maps, SHAPE)]
    )
    return image


def test_maps_follow_the_image_and_are_cropped_and_copied_with_it(tmp_path: Path, pixels: np.ndarray) -> None:
    config = config_of(tmp_path)
    read = train_source(config, "x/y").read()
    np.testing.assert_array_equal(read[..., :3], pixels)
    for channel in (3, 4, 5):
        np.testing.assert_allclose(read[0, :, channel], np.linspace(0, 255, 60), atol=1)
    np.testing.assert_array_equal(read[..., 6:], 102)
    of_test = source_of_test(config, "x/y").read()
    np.testing.assert_allclose(of_test[..., 3:].astype(int) + read[..., 3:], 255, atol=1)
    row = {"part": "test", "image_id": "x/y", "left": 0.5, "top": 0.0, "right": 1.0, "bottom": 0.5, "confidence": 1}
    pd.DataFrame([row]).to_csv(tmp_path / "crops.csv", index=False)
    if "classification" in task_names():
        config = config_of(tmp_path, crop={"csv": str(tmp_path / "crops.csv"), "margin": 0})
        of_test = of_test[:20, 30:]
        np.testing.assert_array_equal(source_of_test(config, "x/y").read(), of_test)
    np.testing.assert_array_equal(seen_of(config.data, "x/y", pixels), of_test)
    with pytest.raises(CompetitionError, match=r"image 'x/y': found pixels of uint16, .*; expected uint8"):
        seen_of(config.data, "x/y", pixels.astype(np.uint16))
    names = source_of_test(config, "x/y").copy_to(tmp_path, "copy")
    np.testing.assert_array_equal(copied_source(config.data, tmp_path, names).read(), of_test)


def test_what_is_not_said_or_is_old_is_told(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, stored, index = config_of(tmp_path), tmp_path / "masks" / "test.npz", tmp_path / "masks" / MAPS / INDEX
    with pytest.raises(CompetitionError, match=r"image 'z': .*maps \(data\.maps\) says nothing of it; its run must"):
        map_files(config.data, "z", of_test=True)
    with pytest.raises(CompetitionError, match=r"data\.maps\.classes: found 'd'; .*maps has a%2Fb, c"):
        refuse_absent_stages(
            config_of(tmp_path, channels=6, maps={"run": str(tmp_path / "masks"), "classes": ["d"]}).data
        )
    np.savez(stored, one=np.zeros(1))
    monkeypatch.setattr("competition.support.freshness.PACKAGE", tmp_path.parent / "competition")
    remember_sources(index, [stored])
    monkeypatch.setattr("competition.support.freshness.PACKAGE", tmp_path / "other" / "competition")
    refuse_absent_stages(config.data)  # it is of another project
    np.savez(stored, one=np.ones(2))
    with pytest.raises(CompetitionError, match=r"maps\.csv: is older than .*test\.npz; make it anew with `competition"):
        refuse_absent_stages(config.data)
    index.unlink()
    with pytest.raises(CompetitionError, match=r"maps\.csv: no such file \(data\.maps\); make it with"):
        refuse_absent_stages(config.data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"channels": 6, "mean": [0, 0], "std": [1, 1]}, "data.maps: goes with images of one or three channels a file"),
        ({"channels": 10}, r"data.channels 10 is that of all 3 files of an image"),
        ({"extra": [{"csv": "more.csv"}]}, "without data.stack and data.extra"),
    ],
)
def test_what_does_not_go_with_maps_is_refused(tmp_path: Path, data: dict[str, Any], said: str) -> None:
    with pytest.raises(CompetitionError, match=said):
        config_of(tmp_path, **data)


def test_a_run_says_of_training_images_what_networks_say_that_have_not_seen_them(
    task: str, runs: Path, command: Callable[..., CompletedProcess[str]]
) -> None:
    if task != "segmentation":
        assert command("maps", "t").stderr == f"t: is a run of {task}; maps are of masks\n"
        return
    run = Run.open("t")
    first, second = run.out_of_fold_files()
    classes = Predictions(first).classes
    nothing, something = islice(Task(task).decode.trial_predictions(len(classes), run.config), 2)
    seen, unseen, test = Predictions(first).image_ids, Predictions(second).image_ids, runs / "t" / "test.npz"
    for path, ids, said in ((first, seen, nothing), (second, unseen, something), (test, seen, something)):
        with PredictionWriter(path.parent) as writer:
            for image_id in ids:
                writer.add(image_id, *SHAPE, said)
            writer.finish(path, classes)
    assert command("maps", "t").returncode == 0
    data = config_of(runs, channels=6, maps={"run": str(runs / "t"), "classes": list(classes)[:1]}).data
    refuse_absent_stages(data)

    def shades(ids: list[str], *, of_test: bool) -> set[int]:
        pictures = [cv2.imread(str(map_files(data, one, of_test=of_test)[0]), cv2.IMREAD_UNCHANGED) for one in ids]
        assert {picture.shape for picture in pictures if picture is not None} == {SHAPE}
        return {int(shade) for picture in pictures if picture is not None for shade in np.unique(picture)}

    assert shades(seen, of_test=False) == {0}
    assert shades(unseen, of_test=False) == {255}
    assert shades(seen, of_test=True) == {255}
