"""What no name of a column says of boxes: their class, what it is called when handed in, which numbers they are."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny import PROJECT

from competition.checking.check import check
from competition.checking.recognise_format import recognise_folder
from competition.config.loading import load_config, validate
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from tests.checking.test_recognise_folder import draw, printed, write

TRAIN = [f"train_images/a{k}.png" for k in range(6)]


def lay_out(folder: Path, header: str, *rows: str, asked: str) -> None:
    """Write a competition of six images, a row each, {} being its id, and one test image."""
    draw(folder, *TRAIN, "test_images/b.png", side=64)
    filled = [rows[k % len(rows)].replace("{}", f"a{k}.png") for k in range(6)]
    write(folder / "train.csv", header, *filled)
    write(folder / "sample_submission.csv", "image_id,PredictionString", f"b.png,{asked}")


@pytest.mark.parametrize(
    ("asked", "form", "told"),
    [
        ("wheat 0.5 0 0 9 9", "{}", "format.submission.class_names: ['wheat']"),
        ("1 0.5 0 0 9 9", "{}", "format.submission.class_names: ['1']"),
        ("wheat 0.5 0 0 9 9", "{submission: {with_class: false}}", "format.submission.with_class: true"),
        ("0.5 0 0 9 9", "{}", "format.submission.with_class: false"),
    ],
)
def test_a_class_that_nobody_named_is_not_handed_in_where_the_sample_has_another(
    tmp_path: Path, asked: str, form: str, told: str
) -> None:
    lay_out(tmp_path, "image_id,x,y,w,h", "{},1,2,30,40", asked=asked)
    given = {"name": "t", "task": "detection", "data": {"dir": str(tmp_path)}}
    config = validate(given | {"format": {"class_id": None, **yaml.safe_load(form)}}, {}, "test")
    task = Task("detection")
    with pytest.raises(CompetitionError, match=r"sample_submission\.csv: line 2: PredictionString") as refused:
        task.submission.read_test_ids(config, task.table.read_table(config).classes)
    assert told in str(refused.value)
    key, _, value = told.removeprefix("format.submission.").partition(": ")  # as it is told, it is right
    way_on = {"class_id": None, "submission": {"class_names": ["wheat"], key: yaml.safe_load(value)}}
    right = validate(given | {"format": way_on}, {}, "test")
    assert task.submission.read_test_ids(right, ["object"]).tolist() == ["b.png"]
    boxes = {"bboxes": np.array([[1.0, 2, 31, 42]]), "scores": np.array([0.5]), "labels": np.array([0])}
    _, (row,) = task.submission.rows(right, [("b.png", boxes)], ["object"])
    assert len(row[1].split()) == len(asked.split())
    assert row[1].split()[: len(asked.split()) - 4] == asked.split()[:-4]


def test_what_classes_are_called_when_handed_in_is_one_name_for_each(tmp_path: Path) -> None:
    lay_out(tmp_path, "image_id,x,y,w,h", "{},1,2,30,40", asked="0 0.5 0 0 9 9")
    given = {"name": "t", "task": "detection", "data": {"dir": str(tmp_path)}}
    read = Task("detection").submission.read_test_ids
    by_number = validate(given | {"format": {"class_id": None, "submission": {"class_as": "index"}}}, {}, "test")
    assert read(by_number, ["object"]).tolist() == ["b.png"]
    twice = validate(given | {"format": {"submission": {"class_names": ["a", "a"]}}}, {}, "test")
    with pytest.raises(CompetitionError, match=r"class_names: found a, a; expected 2 that differ, one for each of"):
        read(twice, ["cat", "dog"])
    with pytest.raises(CompetitionError, match="class_names are of class_as: name"):
        validate(given | {"format": {"submission": {"class_as": "index", "class_names": ["a"]}}}, {}, "test")


def test_the_class_is_called_as_the_sample_has_it(tmp_path: Path) -> None:
    lay_out(tmp_path, "image_id,x,y,w,h", "{},1,2,30,40", asked="wheat 0.5 0 0 9 9")
    _, values = printed(tmp_path, PROJECT)
    assert values["data"]["classes"] == ["wheat"]
    lay_out(tmp_path, "image_id,x,y,w,h", "{},1,2,30,40", asked="")
    lines, _ = printed(tmp_path, PROJECT)
    assert [line for line in lines if "handed in as `conf x y w h`" in line]


def test_a_column_of_classes_is_told_by_the_words_of_the_sample_whatever_it_is_called(tmp_path: Path) -> None:
    lay_out(tmp_path, "image_id,tissue,x,y,w,h", "{},gut,1,2,30,40", "{},skin,5,6,7,8", asked="gut 0.5 0 0 9 9")
    _, values = printed(tmp_path, PROJECT)
    assert values["format"]["class_id"] == "tissue"
    lay_out(tmp_path, "image_id,tissue,x,y,w,h", "{},gut,1,2,30,40", "{},skin,5,6,7,8", asked="")
    lines, _ = printed(tmp_path, PROJECT)
    assert [line for line in lines if "tissue (2 values)" in line and "format.class_id" in line]


def test_four_numbers_in_brackets_are_told_by_the_images_or_said_to_be_assumed(tmp_path: Path) -> None:
    lay_out(tmp_path, "image_id,box", '{},"[20, 30, 60, 62]"', '{},"[1, 2, 30, 40]"', asked="1 0.5 0 0 9 9")
    lines, values = printed(tmp_path, PROJECT)
    assert values["format"]["layout"] == "xyxy"
    lay_out(tmp_path, "image_id,box", '{},"[2, 3, 20, 30]"', asked="1 0.5 0 0 9 9")
    lines, values = printed(tmp_path, PROJECT)
    assert values["format"]["layout"] == "xywh"
    assert [line for line in lines if "format.layout: xywh is assumed" in line]
    lay_out(tmp_path, "image_id,box", '{},"[20, 30, 9, 9]"', asked="1 0.5 0 0 9 9")
    assert "format.layout" not in "\n".join(recognise_folder([f"data.dir={tmp_path}"]))
    config = load_config([tmp_path / "mine.yaml"], ["data.near_duplicates=false"])
    assert not [line for line in check(config) if "format.layout" in line]


@pytest.mark.parametrize("asked", ["", "3 0.5 1 2 9 9", "0.5 1 2 9 9"])
@pytest.mark.parametrize("name", ["s{}/p_{}.png", "{}.png", "p_{}.png"])
def test_classes_of_coco_are_kept_whatever_its_images_are_called(tmp_path: Path, name: str, asked: str) -> None:
    names = [name.format(*[k] * name.count("{}")) for k in range(6)]
    draw(tmp_path, *(f"train_images/{one}" for one in names), "test_images/q/t_0.png", side=64)
    images = [{"id": k, "file_name": one, "width": 64, "height": 64} for k, one in enumerate(names)]
    notes = [{"id": k, "image_id": k, "category_id": (1, 3, 90)[k % 3], "bbox": [1, 2, 30, 40]} for k in range(6)]
    kinds = [{"id": k, "name": f"kind {k}"} for k in (1, 3, 90)]
    values = {"images": images, "annotations": notes, "categories": kinds}
    (tmp_path / "train.json").write_text(json.dumps(values))
    write(tmp_path / "sample_submission.csv", "image_id,PredictionString", f"q/t_0.png,{asked}")
    _, values = printed(tmp_path, PROJECT, "data.train_csv=train.json", "data.num_folds=2")
    assert values["format"]["class_id"] == "category_id"
    assert values["format"]["submission"]["with_class"] == (len(asked.split()) != 5)


def test_a_known_competition_without_classes_is_no_way_around_a_fault_of_them(tmp_path: Path) -> None:
    lay_out(tmp_path, "image_id,bbox,category_id", '{},"[1, 2, 30, 40]",cat', '{},"[1, 2, 30, 40]",', asked="")
    lines = recognise_folder([f"data.dir={tmp_path}"])
    assert "class_id: category_id" in "\n".join(lines)
    assert [line for line in lines if "a box without a category_id" in line]
