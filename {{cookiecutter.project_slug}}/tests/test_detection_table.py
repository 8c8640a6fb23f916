"""train.csv of a detection competition: rows become boxes, faults name file and line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.config import validate
from competition.errors import CompetitionError
from competition.tasks.detection.settings import TaskConfig
from competition.tasks.detection.table import DetectionTable, read_table

HEADER = "image_id,width,height,class_id,x,y,w,h"


def read(folder: Path, *rows: str, header: str = HEADER, **data: Any) -> DetectionTable:
    (folder / "train.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    config = validate({"name": "t", "task": "detection", "data": {"dir": str(folder), **data}}, {}, "test")
    assert isinstance(config, TaskConfig)
    return read_table(config)


def faults(folder: Path, *rows: str, header: str = HEADER, **data: Any) -> list[str]:
    with pytest.raises(CompetitionError) as caught:
        read(folder, *rows, header=header, **data)
    return str(caught.value).splitlines()


def test_rows_become_corners_and_class_numbers(tmp_path: Path) -> None:
    table = read(tmp_path, "a,100,50,dog,10,20,30,5", "a,100,50,cat,0,0.5,1.25,2", "b,100,50,dog,1,2,3,4")
    target = table.target(0, 50, 100)
    np.testing.assert_array_equal(target["bboxes"], [[10, 20, 40, 25], [0, 0.5, 1.25, 2.5]])
    assert target["bboxes"].dtype == np.float32
    assert target["labels"].tolist() == [1, 0]
    np.testing.assert_array_equal(table.target(1, 50, 100)["bboxes"], [[1, 2, 4, 6]])
    assert table.classes == ("cat", "dog")


def test_rows_of_an_image_need_not_stand_together(tmp_path: Path) -> None:
    table = read(tmp_path, "b,9,9,x,1,1,1,1", "a,9,9,x,2,2,2,2", "b,9,9,x,3,3,3,3", "a,9,9,,,,,")
    assert table.image_ids.tolist() == ["b", "a"]
    assert table.lines.tolist() == [2, 3]
    assert table.target(0, 9, 9)["bboxes"][:, 0].tolist() == [1, 3]
    assert table.target(1, 9, 9)["bboxes"][:, 0].tolist() == [2]


def test_an_image_without_boxes_keeps_its_place(tmp_path: Path) -> None:
    table = read(tmp_path, "a,9,9,,,,,", "b,9,9,x,1,1,2,2", "c,9,9,,,,,")
    assert table.image_ids.tolist() == ["a", "b", "c"]
    for index in (0, 2):
        target = table.target(index, 9, 9)
        assert target["bboxes"].shape == (0, 4)
        assert target["labels"].shape == (0,)
    assert len(table.target(1, 9, 9)["bboxes"]) == 1


def test_boxes_are_cut_at_the_image_and_those_without_area_left_out(tmp_path: Path) -> None:
    rows = ["-5,-5,10,10", "95,40,10,20", "10,10,0,5", "10,10,5,0", "200,10,5,5", "-9,0,9,5", "0,0,100,50"]
    table = read(tmp_path, *(f"a,100,50,x,{row}" for row in rows))
    np.testing.assert_array_equal(
        table.target(0, 50, 100)["bboxes"], [[0, 0, 5, 5], [95, 40, 100, 50], [0, 0, 100, 50]]
    )
    assert "boxes without area, which are left out: 2" in table.summary()


@given(st.lists(st.tuples(*[st.floats(-50, 150, width=32)] * 2, *[st.floats(0, 80, width=32)] * 2), max_size=8))
@settings(max_examples=40, deadline=None)
def test_every_box_that_is_left_lies_in_the_image_and_has_area(
    tmp_path_factory: pytest.TempPathFactory, boxes: list[tuple[float, float, float, float]]
) -> None:
    rows = [f"a,100,60,x,{x!r},{y!r},{w!r},{h!r}" for x, y, w, h in boxes]
    table = read(tmp_path_factory.mktemp("t"), "a,100,60,,,,,", *rows, classes=["x"])
    found = table.target(0, 60, 100)["bboxes"]
    assert (found >= 0).all()
    assert (found <= [100, 60, 100, 60]).all()
    assert (found[:, 2:] > found[:, :2]).all()


def test_the_same_box_twice_stays_twice(tmp_path: Path) -> None:
    assert len(read(tmp_path, "a,9,9,x,1,1,2,2", "a,9,9,x,1,1,2,2").target(0, 9, 9)["labels"]) == 2


def test_numbers_are_sorted_as_numbers_and_listed_classes_keep_their_order(tmp_path: Path) -> None:
    rows = ("a,9,9,10,1,1,1,1", "a,9,9,9,1,1,1,1")
    assert read(tmp_path, *rows).classes == ("9", "10")
    table = read(tmp_path, *rows, classes=["11", "10", "9"])
    assert table.target(0, 9, 9)["labels"].tolist() == [1, 2]


def test_width_and_height_of_the_csv_are_not_needed(tmp_path: Path) -> None:
    table = read(tmp_path, "a,x,1,2,3,4", header="image_id,class_id,x,y,w,h")
    np.testing.assert_array_equal(table.target(0, 9, 9)["bboxes"], [[1, 2, 4, 6]])


def test_images_share_a_stratum_by_their_rarest_class(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        *(f"{i},9,9,common,1,1,1,1" for i in range(3)),
        "3,9,9,rare,1,1,1,1",
        "3,9,9,common,1,1,1,1",
        "4,9,9,rare,1,1,1,1",
        "5,9,9,,,,,",
    )
    strata = table.strata().tolist()
    assert strata[0] == strata[1] == strata[2]
    assert strata[3] == strata[4]
    assert len(set(strata)) == 3


def test_the_summary_counts_boxes_and_empty_images(tmp_path: Path) -> None:
    table = read(tmp_path, "a,9,9,x,1,1,1,1", "a,9,9,x,2,2,1,1", "b,9,9,y,1,1,1,1", "c,9,9,,,,,")
    assert table.summary() == ["boxes: x 2, y 1", "images without any box: 1 of 3"]


@pytest.mark.parametrize(
    ("row", "found", "expected"),
    [
        ("b,9,9,cat,one,2,3,4", "'one,2,3,4'", "four numbers"),
        ("b,9,9,cat,1,2,3,", "'1,2,3,'", "four numbers"),
        ("b,9,9,cat,,,,", "',,,'", "four numbers"),
        ("b,9,9,cat,nan,2,3,4", "'nan,2,3,4'", "four numbers"),
        ("b,9,9,cat,1,2,inf,4", "'1,2,inf,4'", "four numbers"),
        ("b,9,9,cat,1,2,-3,4", "'1,2,-3,4'", "0 or more"),
        ("b,9,9,,1,2,3,4", "'1,2,3,4'", "without a class_id"),
        ("b,9,9,cow,1,2,3,4", "'cow'", "cat, dog"),
        (",9,9,cat,1,2,3,4", "", "image_id is empty"),
    ],
)
def test_faults_name_file_line_value_and_what_was_expected(tmp_path: Path, row: str, found: str, expected: str) -> None:
    (message,) = faults(tmp_path, "a,9,9,cat,1,1,1,1", row, classes=["cat", "dog"])
    assert message.startswith(f"{tmp_path / 'train.csv'}: line 3: ")
    assert found in message
    assert expected in message


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    lines = faults(tmp_path, ",9,9,cat,1,1,1,1", "a,9,9,cow,1,1,1,1", "b,9,9,cat,x,1,1,1", classes=["cat"])
    assert [line.split(": ")[1] for line in lines] == ["line 2", "line 3", "line 4"]


def test_a_missing_column_is_named_with_those_there(tmp_path: Path) -> None:
    (message,) = faults(tmp_path, "a,x,1,1,1", header="image_id,class_id,x,y,w")
    assert str(tmp_path / "train.csv") in message
    assert "'h' is missing" in message


def test_a_table_without_any_class_is_refused(tmp_path: Path) -> None:
    assert "no row has a class_id" in faults(tmp_path, "a,9,9,,,,,")[0]
    assert "no row" in faults(tmp_path)[0]
