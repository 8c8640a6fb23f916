"""The format of files nobody has named: told by their rows, or not at all where they are of another task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from competition.checking.recognise_format import recognise as recognise_files
from competition.config.data_settings import Data
from competition.config.loading import validate
from competition.files.image_folder import train_image
from competition.tasks.contract import Task
from competition.tasks.segmentation.formats.recognise import recognise

RUNS = ("1 300 500 20", "", "2000 40")


def frame(header: str, *rows: str) -> pd.DataFrame:
    return pd.DataFrame([row.split(",") for row in rows], columns=header.split(","), dtype=str)


def rows(*values: str, name: str = "a{}.png") -> list[str]:
    return [f"{name.format(i)},{value}" for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("train", "sample", "keys", "asked"),
    [
        ("ImageId,EncodedPixels", "ImageId,EncodedPixels", {"ImageId": "{image_id}"}, {"ImageId": "{image_id}"}),
        ("key,rle_mask", "key,rle_mask", {"key": "{image_id}"}, {"key": "{image_id}"}),
        ("img, mask_rle", "img,predicted", {"img": "{image_id}"}, {"img": "{image_id}"}),
    ],
)
def test_one_class_under_other_names(train: str, sample: str, keys: dict[str, str], asked: dict[str, str]) -> None:
    found = recognise(frame(train, *rows(*RUNS)), frame(sample, *rows("1 1", "1 1")))
    assert found is not None
    form = found["format"]
    assert form["train"] == {"keys": keys, "mask": train.split(",")[1].strip()}
    assert form["submission"] == {"keys": asked, "mask": sample.split(",")[1]}
    assert form["rle"] == {"order": "columns", "base": 1, "relative": False, "empty": ""}
    validate({"name": "t", "task": "segmentation", **found}, {}, "test")


def test_classes_in_a_column_or_joined_to_the_id() -> None:
    train = frame("image,category,runs", *(f"a{i},{c},1 300" for i in range(3) for c in ("x", "y")))
    sample = frame("image_category,runs_rle", *(f"a{i}_{c},1 300" for i in range(3) for c in ("x", "y")))
    found = recognise(train, sample)
    assert found is not None
    assert found["format"]["train"]["keys"] == {"image": "{image_id}", "category": "{class_id}"}
    assert found["format"]["submission"]["keys"] == {"image_category": "{image_id}_{class_id}"}
    # No name tells it, but every image has the same endings.
    unnamed = frame("key,runs", *(f"a_{i}_{c},1 300" for i in range(5) for c in ("x", "y")))
    found = recognise(unnamed, unnamed)
    assert found is not None
    assert found["format"]["train"]["keys"] == {"key": "{image_id}_{class_id}"}


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (("1 300 500 20", ""), {"base": 1, "relative": False, "empty": ""}),
        (("0 300 500 20", "-"), {"base": 0, "relative": False, "empty": "-"}),
        (("900 300 500 20", "-1"), {"base": 0, "relative": True, "empty": "-1"}),
        (("100 300 150 20", "nan"), {"base": 0, "relative": True, "empty": ""}),
    ],
)
def test_how_runs_are_counted(values: tuple[str, ...], form: dict[str, Any]) -> None:
    found = recognise(frame("key,runs", *rows(*values)), frame("key,rle", *rows("1 1")))
    assert found is not None
    assert found["format"]["rle"] == {"order": "columns", **form}


def test_a_known_competition_is_named_though_rows_do_not_tell_all() -> None:
    one_run = frame("ImageId, EncodedPixels", *rows("500 20", "-1"))
    assert recognise(one_run, frame("ImageId,EncodedPixels", *rows("1 1"))) == {"format": "siim"}
    slices = frame("id,rle", *(f"kidney_{k}_000{i},1 300" for k in (5, 6) for i in range(3)))
    assert recognise(slices, slices) == {"format": "sennet"}


def test_masks_as_files() -> None:
    sample = frame("record_id,encoded_pixels", *rows("-"))
    assert recognise(pd.DataFrame(), sample) == {"format": "contrails"}


def test_known_files_under_other_names_are_read_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "train_images").mkdir()
    several = frame("ImageId,EncodedPixels", "a.jpg,1 300", "a.jpg,900 20", "b.jpg,")
    sample = frame("ImageId,EncodedPixels", "t.jpg,1 2")
    found = recognise(several, sample, Data(dir=tmp_path))
    names = {"train_csv": "train.csv", "sample_submission": "sample_submission.csv", "train_images": "train_images"}
    assert found == {"format": "airbus", "data": names}
    (tmp_path / "train_v2").mkdir()
    csv_files = "train_ship_segmentations_v2.csv", "sample_submission_v2.csv"
    data = Data(dir=tmp_path, train_csv=csv_files[0], sample_submission=csv_files[1])
    assert recognise(several, sample, data) == {"format": "airbus"}
    # The same columns are those of another competition, too, whose ids have no ending.
    several["ImageId"], sample["ImageId"] = (one["ImageId"].str[:1] for one in (several, sample))
    assert recognise(several, sample) == {"format": "dsb2018"}


IDS = tuple(f"a_{i}" for i in range(12))
ONE, OF_CLASS = "id,rle\nt,1 1\n", "id,class,rle\nt,cat,\nt,dog,\n"
OF_NUMBER = OF_CLASS.replace("cat", "1").replace("dog", "2")


def competition(folder: Path, train: str, sample: str, image: str, masks: Sequence[str], values: Sequence[int]) -> Data:
    """Write a row, an image and masks for each id (masks by their pattern), and return where they lie."""
    if train:
        header, row = train.split()
        (folder / "train.csv").write_text("\n".join([header, *(row.format(one) for one in IDS), ""]))
    (folder / "sample_submission.csv").write_text(sample)
    mask = np.zeros((20, 20), np.uint8)
    mask[5:9, : len(values)] = values
    for pattern, pixels in [(image, np.zeros((20, 20, 3), np.uint8)), *((pattern, mask) for pattern in masks)]:
        for one in IDS:
            (folder / pattern.format(one)).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / pattern.format(one))
    return Data(dir=folder)


@pytest.mark.parametrize(
    ("train", "sample", "image", "masks", "values", "files", "classes"),
    [
        ("id {}", ONE, "train_images/{}.png", ["masks/{}.png"], [255], "masks/{image_id}.png", ("object",)),
        ("", ONE, "train_images/{}.png", ["masks/{}.tif"], [1], "masks/{image_id}.tif", ("object",)),
        ("id {}.jpg", ONE, "train/{}.jpg", ["labels/{}_mask.gif"], [1], "labels/{image_id}_mask.gif", ("object",)),
        ("id,width {},20", ONE, "train/{}.png", ["train/{}_mask.png"], [1], "train/{image_id}_mask.png", ("object",)),
        ("id {}", OF_NUMBER, "train/{}.png", ["masks/{}.png"], [1, 2], "masks/{image_id}.png", ("1", "2")),
        ("id {}", OF_NUMBER, "train/{}.png", ["masks/{}.png"], [1, 2, 255], "masks/{image_id}.png", ("1", "2")),
        (
            "id,class {},cat",
            OF_CLASS,
            "train/{}.png",
            ["masks/{}_cat.png", "masks/{}_dog.png"],
            [255],
            "masks/{image_id}_{class_id}.png",
            ("cat", "dog"),
        ),
        (
            "id {}",
            OF_CLASS,
            "train/images/{}.png",
            ["train/masks/cat/{}.png", "train/masks/dog/{}.png"],
            [255],
            "train/masks/{class_id}/{image_id}.png",
            ("cat", "dog"),
        ),
    ],
)
def test_mask_files_are_found_and_the_lines_read_them(
    tmp_path: Path,
    train: str,
    sample: str,
    image: str,
    masks: list[str],
    values: list[int],
    files: str,
    classes: tuple[str, ...],
) -> None:
    found = recognise_files("segmentation", competition(tmp_path, train, sample, image, masks, values))
    assert found is not None
    assert found["format"]["train"]["files"] == files
    found["data"] = {"dir": str(tmp_path), **found.get("data", {})}
    config = validate({"name": "t", "task": "segmentation", **found}, {}, "test")
    table = Task("segmentation").table.read_table(config)
    assert table.classes == classes
    assert len(table.image_ids) == len(IDS)
    assert all(train_image(config, image_id).is_file() for image_id in table.image_ids)
    assert table.present().all()


def test_copies_in_hidden_folders_are_no_class_of_masks(tmp_path: Path) -> None:
    folders = ("cat", "dog", ".ipynb_checkpoints", "cat/.hidden")
    masks = [f"train/masks/{name}/{{}}.png" for name in folders]
    data = competition(tmp_path, "id {}", OF_CLASS, "train/images/{}.png", masks, [255])
    found = recognise_files("segmentation", data)
    assert found is not None
    assert found["data"]["classes"] == ["cat", "dog"]


def test_mask_files_are_found_though_one_is_damaged(tmp_path: Path) -> None:
    data = competition(tmp_path, "id {}", ONE, "train/{}.png", ["masks/{}.png"], [255])
    (tmp_path / "masks" / f"{IDS[0]}.png").write_bytes(b"no mask")
    found = recognise_files("segmentation", data)
    assert found is not None
    assert found["format"]["train"]["files"] == "masks/{image_id}.png"


@pytest.mark.parametrize(
    ("sample", "masks", "values"),
    [
        (ONE, ["depths/{}.png"], [255]),  # of no mask's name
        (ONE, ["masks/b{}.png"], [255]),  # of other images
        (ONE, ["masks/{}.png"], [3, 77, 200]),  # shades
        (ONE, ["masks/{}_cat.png", "masks/{}_dog.png"], [255]),  # of which one would be handed in
        (OF_CLASS, ["masks/{}.png"], [1, 2]),  # of which neither is told to be the cat
        (OF_CLASS, ["masks/{}_car.png", "masks/{}_road.png"], [255]),
    ],
)
def test_files_that_are_no_masks_or_not_as_asked_are_not_claimed(
    tmp_path: Path, sample: str, masks: list[str], values: list[int]
) -> None:
    data = competition(tmp_path, "id {}", sample, "train/{}.png", masks, values)
    assert recognise_files("segmentation", data) is None


@pytest.mark.parametrize(
    ("train", "sample"),
    [
        (frame("image_id,label", "a,1", "b,2"), frame("image_id,label", "a,0")),
        (frame("image_id,label", "a,1"), frame("image_id,cat,dog", "a,0.5,0.5")),
        (frame("Id,Target", "a,16 0", "b,7 1 2 0"), frame("Id,Predicted", "a,0", "b,1")),
        (frame("image_id,width,height,class_id,x,y,w,h", "a,9,9,1,1,1,1,1"), frame("image_id,PredictionString", "a,")),
        (
            frame("patientId,x,y,width,height,Target", "a,,,,,0"),
            frame("patientId,PredictionString", "a,0.5 0 0 100 100"),
        ),
        (frame("Id,Pawpularity", "a,63"), frame("Id,Pawpularity", "a,65.75")),
        (frame("ID,Label", "ID_1_any,0"), frame("ID,Label", "ID_2_any,0.5")),
        (frame("image,individual_id", "a,x"), frame("image,predictions", "a,x y z")),
    ],
)
def test_files_of_other_tasks_are_not_claimed(train: pd.DataFrame, sample: pd.DataFrame) -> None:
    assert recognise(train, sample) is None


@pytest.mark.parametrize(
    ("header", "sample"),
    [
        ("id,tissue,runs_rle", frame("id,tissue,runs_rle", *(f"t{k},{c},1 1" for k in "01" for c in ("gut", "skin")))),
        ("id,source,tissue,rle", frame("key,rle", *(f"t{k}_{c},1 1" for k in range(4) for c in ("gut", "skin")))),
    ],
)
def test_a_column_of_classes_of_any_name_is_told_by_its_values(header: str, sample: pd.DataFrame) -> None:
    filler = {"id": "a{}", "source": "lab{half}"}
    lines = [
        ",".join(filler.get(name, c if name == "tissue" else "1 300") for name in header.split(",")).format(
            k, half=k % 2
        )
        for k in range(6)
        for c in ("gut", "skin")
    ]
    found = recognise(frame(header, *lines), sample)
    assert found is not None
    assert found["format"]["train"]["keys"] == {"id": "{image_id}", "tissue": "{class_id}"}


def test_columns_that_nothing_is_made_of_are_told(tmp_path: Path) -> None:
    lines = [f"a{k},{('gut', 'skin')[k % 2]},1 300" for k in range(6)]
    (tmp_path / "train.csv").write_text("\n".join(["id,tissue,rle", *lines, ""]))
    given = {"image_file": "{image_id}.png", "dir": str(tmp_path)}
    form = {"train": {"keys": {"id": "{image_id}"}, "mask": "rle"}}
    config = validate({"name": "t", "task": "segmentation", "data": given, "format": form}, {}, "test")
    task = Task("segmentation")
    _, said = task.recognise.settle(config, task.table.read_table(config))
    assert [line for line in said if "tissue (2 values)" in line and "format.train.keys" in line]
