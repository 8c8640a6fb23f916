"""Images and categories that train.csv or COCO's json names and no row is left of: `check` says so."""

import json
from pathlib import Path
from typing import Any

import pytest

from competition.checking.check import check
from competition.config.loading import task_names, validate
from competition.config.settings import Config
from competition.tasks.contract import Task
from tests.checking.test_recognise_folder import draw, write

pytestmark = pytest.mark.skipif("detection" not in task_names(), reason="boxes are read")
BOX = [1, 2, 10, 12]
CROWDS = [[0], [1], [0, 1], [1, 1], []]  # by image, what `iscrowd` is in its annotations


def lay_out(folder: Path, **data: Any) -> Config:
    """Write five images and their boxes as COCO's json and as csv; the files are called by other names in json."""
    draw(folder, *(f"train_images/{kind}{k}.png" for kind in ("a", "s/p") for k in range(5)), "test_images/b.png")
    write(folder / "sample_submission.csv", "image_id,PredictionString", "b.png,")
    images = [{"id": f"a{k}", "file_name": f"s/p{k}.png"} for k in range(5)]
    notes = [
        {"image_id": f"a{k}", "category_id": 3, "bbox": BOX, "iscrowd": one}
        for k, crowds in enumerate(CROWDS)
        for one in crowds
    ]
    kinds = [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}]
    (folder / "t.json").write_text(json.dumps({"images": images, "annotations": notes, "categories": kinds}))
    rows = [f'{one["image_id"]},3,"{one["bbox"]}",{one["iscrowd"]}' for one in notes]
    write(folder / "t.csv", "image_id,category_id,bbox,iscrowd", *rows, "a4,,,")
    form = {"class_id": "category_id", "boxes": "bbox"}
    given = {"dir": str(folder), "test_image_file": "{image_id}", "near_duplicates": False, **data}
    return validate({"name": "t", "task": "detection", "data": given, "format": form}, {}, "test")


TABLES = [("t.json", "{file_name}"), ("t.csv", "{image_id}.png"), ("t.json", "{image_id}.png")]


@pytest.mark.parametrize(("table", "image_file"), TABLES)
def test_images_of_which_no_row_is_left_are_counted_or_without_boxes(
    tmp_path: Path, table: str, image_file: str
) -> None:
    rows = f"{table} where iscrowd!=1"
    config = lay_out(tmp_path, train_csv=rows, image_file=image_file)
    (told,) = [line for line in check(config) if line.startswith(f"{rows}: leaves out")]
    assert told.startswith(f"{rows}: leaves out 2 images with all their rows, as 'a1'; ")
    assert told.endswith("data.absent_images: empty")
    config = lay_out(tmp_path, train_csv=rows, image_file=image_file, absent_images="empty")
    read = Task("detection").table.read_table(config)
    amounts = dict(zip(read.image_ids.tolist(), read.amounts().tolist(), strict=True))
    assert amounts == {"a0": 1, "a1": 0, "a2": 1, "a3": 0, "a4": 0}
    said = check(config)
    assert "images without any box: 3 of 5" in said
    assert not [line for line in said if "leaves out" in line]


def test_an_image_without_a_file_is_not_told_as_left_out(tmp_path: Path) -> None:
    config = lay_out(tmp_path, train_csv="t.json where iscrowd!=1", image_file="{file_name}", absent_images="empty")
    (tmp_path / "train_images/s/p1.png").unlink()
    assert "images without any box: 2 of 4" in check(config)


@pytest.mark.parametrize(
    ("classes", "told"),
    [(None, ", which are no classes unless data.classes lists them"), (["3", "5"], "")],
)
def test_categories_without_a_box_are_said(tmp_path: Path, classes: list[str] | None, told: str) -> None:
    rows = "t.json where iscrowd=0"
    config = lay_out(tmp_path, train_csv=rows, image_file="{file_name}", classes=classes)
    assert f"{rows}: 1 of 2 categories have no row, as 5 (dog){told}" in check(config)
    config = lay_out(tmp_path, train_csv="t.csv where iscrowd=0", image_file="{image_id}.png", classes=classes)
    assert not [line for line in check(config) if "categories" in line]
