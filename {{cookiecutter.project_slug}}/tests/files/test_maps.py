"""What another run says of an image's pixels is among its channels: read, cropped, copied; and what is refused."""

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
import torch

from competition.config.loading import task_names, validate
from competition.config.settings import Config
from competition.data.dataset import ImageDataset, ready, share_cache
from competition.files.item_source import copied_source, own_part, seen_of, train_source
from competition.files.item_source import test_source as source_of_test
from competition.files.maps import INDEX, MAPS, map_files, refuse_absent_stages, write_maps
from competition.prediction.stored import Predictions, PredictionWriter
from competition.runs.folder import Run
from competition.support.errors import CompetitionError
from competition.support.freshness import MadeFrom
from competition.tasks.contract import Task

SHAPE, IDS = (40, 60), np.array(["x/y"], dtype=object)


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
    names = source_of_test(config, "x/y").copy_to(tmp_path, "copy")
    np.testing.assert_array_equal(copied_source(config.data, tmp_path, names).read(), of_test)


@pytest.mark.parametrize(("kind", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1000)])
def test_maps_keep_their_range_beside_images_of_any_type_also_in_a_cache(
    tmp_path: Path, pixels: np.ndarray, kind: type[np.generic], white: int
) -> None:
    whole = (pixels[:, :, :1] / 255 * white).astype(kind)
    for part in ("train", "test"):
        np.save(tmp_path / f"{part}_images" / "x" / "y.npy", whole)
    here = {"image_file": "{image_id}.npy", "channels": 3, "mean": [0.4], "std": [0.2], "image_size": 16}
    config = config_of(tmp_path, **here)
    assert (config.data.mean, config.data.std) == ([0.4, 0.5, 0.5], [0.2, 0.25, 0.25])
    largest, seen = (255, 255) if kind == np.uint8 else (1, 1000 if kind == np.float32 else 1)
    read = source_of_test(config, "x/y").read()
    np.testing.assert_allclose(read[..., 0] / seen, pixels[..., 0] / 255, atol=1e-4)
    np.testing.assert_allclose(read[0, :, 1] / largest, np.linspace(1, 0, 60), atol=0.01)
    np.testing.assert_array_equal(seen_of(config.data, "x/y", whole), read)
    names = source_of_test(config, "x/y").copy_to(tmp_path, "copy")
    np.testing.assert_array_equal(copied_source(config.data, tmp_path, names).read(), read)
    plain, cached = (ImageDataset(config_of(tmp_path, **here, **more), IDS) for more in ({}, {"cache": "disk"}))
    share_cache(cached.config, [cached])
    assert cached.kept is not None
    assert torch.equal(cached[0]["image"], plain[0]["image"])
    values = ready(plain.collate([plain[0]]), config, torch.float32)["image"][0]
    assert values[1].min() == pytest.approx(-2, abs=0.2)  # by the mean and deviation of maps
    assert values[1].max() == pytest.approx(2, abs=0.2)


def test_maps_of_an_image_follow_it_and_its_neighbours(tmp_path: Path, pixels: np.ndarray) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / "train_images" / f"s{number}.png"), np.full(SHAPE, number, np.uint8))
    maps = ((f"s{number}", np.full((2, *SHAPE), 0.2 + 0.2 * number)) for number in range(3))
    shutil.rmtree(tmp_path / "masks")
    write_maps(tmp_path / "masks" / MAPS, ["a/b", "c"], (("train", name, one, SHAPE) for name, one in maps))
    stack = {"by": "s{n}", "take": [-1, 0, 1], "edge": "zero"}
    config = config_of(tmp_path, stack=stack, channels=5, mean=[0.1], std=[1])
    assert config.data.mean == [0.1, 0.1, 0.1, 0.5, 0.5]
    source = train_source(config, "s2")
    read = source.read()
    assert read[0, 0].tolist() == [1, 2, 0, 153, 153]
    np.testing.assert_array_equal(own_part(read, config.data), read[:, :, 1:2])
    own = source.own_file(config.data)
    assert own is not None
    assert own.path.name == "s2.png"
    names = source.copy_to(tmp_path, "copy")
    np.testing.assert_array_equal(copied_source(config.data, tmp_path, names).read(), read)


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
    MadeFrom.now(index, [stored]).note()
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
        ({"channels": 10}, r"data.channels 10 is that of all 3 files of an image"),
        ({"channels": 6}, r"data.mean has 3 values for data.channels 6, which are 2 for each of 3 files and maps;"),
        ({"extra": [{"csv": "a.csv"}]}, "data.extra: a.csv: of its images the run of data.maps says nothing; name one"),
        ({"extra": [{"csv": "a.csv", "maps": "b", "crop": "whole"}]}, "data.extra: a.csv: crop goes with data.crop"),
        (
            {
                "files": ["{image_id}a.png", "{image_id}b.png"],
                **{"channels": 4, "mean": [0], "std": [1]},
                "extra": [{"csv": "a.csv", "maps": "b", "image_file": "{image_id}"}],
            },
            "leave data.maps out, or image_file of data.extra",
        ),
    ],
)
def test_what_does_not_go_with_maps_is_refused(tmp_path: Path, data: dict[str, Any], said: str) -> None:
    with pytest.raises(CompetitionError, match=said):
        config_of(tmp_path, **data)


def test_maps_come_beside_the_channels_that_an_image_has_where_nobody_says_how_many(tmp_path: Path) -> None:
    maps = {"maps": {"run": "masks", "classes": ["a", "b"]}}
    stack = {"stack": {"by": "s{n}", "take": [-1, 0, 1]}}
    for more, channels in (({}, 9), (stack, 5), ({"channels": 3, "mean": [0], "std": [1]}, 3)):
        data = {"dir": str(tmp_path), **maps, **more}
        config = validate({"name": "t", "task": task_names()[0], "data": data}, {}, "test")
        assert config.data.channels == channels


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


@pytest.mark.parametrize(("data", "key"), [({"files": []}, "files"), ({"stack": {"by": "{a}", "take": []}}, "take")])
def test_an_image_of_no_file_beside_maps_is_told_where_it_is_said(data: dict[str, Any], key: str) -> None:
    settings = {"maps": {"run": "masks", "classes": ["a"]}, **data}
    with pytest.raises(CompetitionError, match=rf"data\.([a-z]+\.)?{key}: found \[\]; expected a list of at least 1"):
        validate({"name": "t", "task": task_names()[0], "data": settings}, {}, "test")
