"""Where an image's file is: by a pattern of its name, and found among files that nobody described."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import PROJECT

from competition.config.data_settings import Data
from competition.config.loading import load_config, task_names, validate
from competition.files.file_patterns import find_file
from competition.files.image_folder import absent_images, ids_in, image_path, train_image
from competition.files.image_folder import test_image as image_of_test
from competition.files.image_folder import test_pattern as pattern_of_tests
from competition.files.image_search import find_images
from competition.support.errors import CompetitionError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("pattern", "fields", "expected"),
    [
        ("{image_id}.png", {"image_id": "a"}, "a.png"),
        ("{label}/{image_id}", {"image_id": "a.jpg", "label": "x y"}, "x y/a.jpg"),
        ("{image_id[0]}/{image_id[:3]}/{image_id}.npy", {"image_id": "abcdef"}, "a/abc/abcdef.npy"),
        ("{image_id[-2:]}/{image_id:0>5}.png", {"image_id": "123"}, "23/00123.png"),
        ("{image_id}/{image_id}.png", {"image_id": "a"}, "a/a.png"),
        ("*/{image_id}.png", {"image_id": "b"}, "deep/b.png"),
        ("**/{image_id}.png", {"image_id": "c"}, "deep/er/c.png"),
        ("**/{image_id}.png", {"image_id": "a"}, "a.png"),
        ("deep/slice_{number}_*.png", {"image_id": "x", "number": "1"}, "deep/slice_1_64_64.png"),
        ("**/{image_id}.png", {"image_id": "gone"}, "**/gone.png"),
        ("*/{image_id}.png", {"image_id": "[b]"}, "*/[b].png"),
    ],
)
def test_a_pattern_names_a_file(tmp_path: Path, pattern: str, fields: dict[str, str], expected: str) -> None:
    touch(tmp_path, "a.png", "deep/b.png", "deep/er/c.png", "deep/slice_1_64_64.png", "deep/slice_11_64_64.png")
    assert find_file(tmp_path, pattern, fields) == tmp_path / expected


def test_a_pattern_that_names_several_files_is_refused_with_two_of_them(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.png", "y/a.png", "z/a.png")
    with pytest.raises(CompetitionError, match=r"3 files are named '\*/a\.png', as x/a\.png and y/a\.png"):
        find_file(tmp_path, "*/{image_id}.png", {"image_id": "a"})


@pytest.mark.parametrize("value", ["../x", "/etc/x", "a/../../x", "\0"])
def test_no_field_leads_out_of_the_folder(tmp_path: Path, value: str) -> None:
    with pytest.raises(CompetitionError, match="leads out of its folder"):
        find_file(tmp_path, "{label}/{image_id}.png", {"image_id": "a", "label": value})


def test_ids_are_those_of_the_files_that_follow_the_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "t/a/a.png", "t/b/b.png", "t/c/d.png", "u/case1/s_01_64.png", "u/case2/s_02_64.png")
    data = Data(dir=tmp_path)
    assert ids_in(data, "t", "{image_id}/{image_id}.png").tolist() == ["a", "b"]
    touch(tmp_path, "flat/a.png", "flat/masks/a.png")  # a folder that no pattern names
    assert ids_in(data, "flat", "{image_id}.png").tolist() == ["a"]
    assert ids_in(data, "t", "**/{image_id}.png").tolist() == ["a", "b", "d"]
    parts = data.model_copy(update={"id_parts": "{case}_slice_{number}"})
    assert ids_in(parts, "u", "{case}/s_{number}_*.png").tolist() == ["case1_slice_01", "case2_slice_02"]


@pytest.mark.parametrize(
    ("folders", "present", "expected"),
    [
        ({}, ["s1/a.png"], ["c.png", "s1/b.png", "s2/a.png"]),
        ({}, ["c.png"], []),
        ({"test_images": "train/s2"}, ["s1/a.png"], ["c.png", "s1/b.png"]),
        ({"test_images": "train"}, ["s1/a.png"], ["c.png", "s1/b.png"]),
        ({"train_images": ".", "test_images": "test"}, ["train/s1/a.png"], ["train/s1/b.png", "train/s2/a.png"]),
        ({"train_images": "train/s1", "test_images": "train"}, ["a.png"], ["b.png"]),
    ],
)
def test_images_without_a_row_are_found_in_the_folders_that_ids_have(
    tmp_path: Path, folders: dict[str, str], present: list[str], expected: list[str]
) -> None:
    touch(tmp_path, "train.csv", "train/s1/a.png", "train/s1/b.png", "train/s2/a.png", "train/c.png", "test/x/d.png")
    touch(tmp_path, "train/s1/masks/a.png", "train/.ipynb_checkpoints/a.png")
    data = Data.model_validate({"dir": tmp_path, "train_images": "train", "absent_images": "empty", **folders})
    config = load_config([PROJECT / "configs" / f"{task_names()[0]}.yaml"]).model_copy(update={"data": data})
    assert absent_images(config, tmp_path / "train.csv", np.array(present, object)).tolist() == expected


@pytest.mark.skipif("classification" not in task_names(), reason="labels are read")
def test_columns_of_either_table_and_parts_of_ids_name_files(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("file,label\nk1_a,cat\nk2_b,dog\nplain,cat\n")
    (tmp_path / "test.csv").write_text("file,site\nk3_c,north\n")
    given: dict[str, Any] = {
        "image_file": "{label}/{part}/{name}.png",
        "test_image_file": "{site}/{image_id}.png",
        "test_csv": "test.csv",
        "id_parts": "{part}_{name}",
    }
    values = {"name": "t", "task": "classification", "format": {"train": {"keys": {"file": "{image_id}"}}}}
    config = validate(values | {"data": {"dir": str(tmp_path), **given}}, {}, "test")
    assert train_image(config, "k2_b") == tmp_path / "train_images/dog/k2/b.png"
    assert image_of_test(config, "k3_c") == tmp_path / "test_images/north/k3_c.png"
    with pytest.raises(CompetitionError, match=r"train\.csv: has no row of image 'k9_z', whose label"):
        train_image(config, "k9_z")
    with pytest.raises(CompetitionError, match=r"'plain': does not follow data\.id_parts"):
        train_image(config, "plain")
    other = config.model_copy(update={"data": config.data.model_copy(update={"image_file": "{what}/{image_id}"})})
    with pytest.raises(CompetitionError, match="column 'what' is missing; found file,label"):
        train_image(other, "k2_b")


def frame(name: str, ids: list[str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({name: ids, **columns}, dtype=str)


LAYOUTS: dict[str, tuple[list[str], pd.DataFrame, pd.DataFrame, dict[str, str]]] = {
    "as they are": (
        ["train_images/a", "train_images/b", "test_images/c"],
        frame("id", ["a", "b"]),
        frame("id", ["c"]),
        {},
    ),
    "other folders, an ending": (
        ["train/a.jpg", "train/b.jpg", "test/c.jpg"],
        frame("id", ["a", "b"]),
        frame("id", ["c"]),
        {"train_images": "train", "test_images": "test", "image_file": "{image_id}.jpg"},
    ),
    "one folder for both": (
        ["images/a.jpg", "images/b.jpg", "images/c.jpg"],
        frame("id", ["a", "b"]),
        frame("id", ["c"]),
        {"train_images": "images", "test_images": "images", "image_file": "{image_id}.jpg"},
    ),
    "a folder a label, test images flat": (
        ["train/x/a.png", "train/y/b.png", "test/c.png"],
        frame("id", ["a.png", "b.png"], label=["x", "y"]),
        frame("id", ["c.png"]),
        {"train_images": "train", "test_images": "test", "image_file": "*/{image_id}", "test_image_file": "{image_id}"},
    ),
    "a folder a first letter": (
        ["train/a/ax.npy", "train/b/by.npy", "test/c/cz.npy", "test/d/dz.npy"],
        frame("id", ["ax", "by"]),
        frame("id", ["cz", "dz"]),
        {"train_images": "train", "test_images": "test", "image_file": "{image_id[0]}/{image_id}.npy"},
    ),
    "masks beside them": (
        [
            "train/images/ab.png",
            "train/masks/ab.png",
            "train/images/cd.png",
            "train/masks/cd.png",
            "test/images/ef.png",
        ],
        frame("id", ["ab", "cd"]),
        frame("id", ["ef"]),
        {"train_images": "train/images", "test_images": "test/images", "image_file": "{image_id}.png"},
    ),
    "a folder an image": (
        ["train/ab/images/ab.png", "train/cd/images/cd.png", "test/ef/images/ef.png", "test/gh/images/gh.png"],
        frame("id", ["ab", "cd"]),
        frame("id", ["ef", "gh"]),
        {"train_images": "train", "test_images": "test", "image_file": "{image_id}/images/{image_id}.png"},
    ),
    "a folder an image, which the sample names beside a class": (
        [f"train/1.{k}/{n}.dcm" for k in (10, 11) for n in (1, 2)] + ["test/1.12/1.dcm", "test/1.13/1.dcm"],
        frame("Study", ["1.10", "1.11"]),
        frame("row", ["1.12_all_of_it", "1.12_C1", "1.13_all_of_it", "1.13_C1"]),
        {"train_images": "train", "test_images": "test", "image_file": "{image_id}/1.dcm"},
    ),
    "the same word behind all ids": (
        ["train/s/abc.png", "train/t/def.png", "test/u/ghi.png", "test/v/jkl.png"],
        frame("id", ["abc_image", "def_image"]),
        frame("id", ["ghi_image", "jkl_image"]),
        {"train_images": "train", "test_images": "test", "image_file": "*/{name}.png", "id_parts": "{name}_image"},
    ),
    "classes behind the ids": (
        ["train_images/abc.jpg", "train_images/def.jpg", "test_images/ghi.jpg"],
        frame("id", ["abc__x_g", "abc__y_g", "def__x_g", "def__y_g"]),
        frame("id", ["ghi__x_g", "ghi__y_g"]),
        {"image_file": "{image_id}.jpg"},
    ),
    "parts of ids on the way": (
        [
            f"{p}/case{c}/case{c}_day{d}/scans/slice_000{n}_68_60.png"
            for p, c in (("train", 1), ("train", 2), ("test", 3))
            for d in (4, 5)
            for n in (6, 7)
        ],
        frame("id", [f"case{c}_day{d}_slice_000{n}" for c in (1, 2) for d in (4, 5) for n in (6, 7)]),
        frame("id", [f"case{c}_day{d}_slice_000{n}" for c in (3,) for d in (4, 5) for n in (6, 7)]),
        {
            "train_images": "train",
            "test_images": "test",
            "image_file": "{part1}/{part1}_{part2}/scans/slice_{part4}_*.png",
            "id_parts": "{part1}_{part2}_slice_{part4}",
        },
    ),
}


@pytest.mark.parametrize(("files", "train", "sample", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_images_are_found_however_they_lie(
    tmp_path: Path, files: list[str], train: pd.DataFrame, sample: pd.DataFrame, expected: dict[str, str]
) -> None:
    touch(tmp_path, *files)
    found = find_images(Data(dir=tmp_path), train, sample)
    assert found == expected
    data = Data.model_validate({"dir": str(tmp_path), **found})
    for frame_, folder, pattern in (
        (train, data.train_images, data.image_file),
        (sample, data.test_images, pattern_of_tests(data)),
    ):
        cells = [re.sub("__.*|_all.*|_C1", "", cell) for cell in frame_.iloc[:, 0]]
        assert all(image_path(data, folder, pattern, cell).is_file() for cell in cells)
