"""train.csv of a detection competition: rows become boxes, faults name file and line."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from competition.config.loading import validate
from competition.support.errors import CompetitionError
from competition.tasks.detection.settings import TaskConfig
from competition.tasks.detection.table import DetectionTable, read_table
from hypothesis import given, settings
from hypothesis import strategies as st

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
    table = read(tmp_path_factory.mktemp("t"), "a,100,60,x,10,10,80,40", *rows)
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


WHEAT: dict[str, Any] = {"class_id": None, "boxes": "bbox"}
REEF: dict[str, Any] = {"class_id": None, "boxes": "annotations", "box_keys": ["x", "y", "width", "height"]}


def read_as(folder: Path, form: dict[str, Any], *lines: str, **data: Any) -> DetectionTable:
    (folder / "train.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    values = {"name": "t", "task": "detection", "data": {"dir": str(folder), **data}, "format": form}
    config = validate(values, {}, "test")
    assert isinstance(config, TaskConfig)
    return read_table(config)


def xyxy(rows: list[tuple[float, float, float, float]]) -> np.ndarray:
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([table[:, :2], table[:, :2] + table[:, 2:]], axis=1).astype(np.float32)


NUMBERS = st.tuples(*[st.floats(-50, 150, width=32)] * 2, *[st.floats(0, 80, width=32)] * 2)


@given(st.lists(NUMBERS, min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_boxes_are_the_same_however_they_are_written(
    tmp_path_factory: pytest.TempPathFactory, boxes: list[tuple[float, float, float, float]]
) -> None:
    """Degenerate ones and those outside, too; images without any keep their place."""
    boxes = [*boxes, (10, 10, 40, 40)]  # pixels for sure
    folder, wanted = tmp_path_factory.mktemp("t"), xyxy(boxes)
    strings = [f'a,"{list(box)}"' for box in boxes]
    dicts = [dict(zip(("x", "y", "width", "height"), box, strict=True)) for box in boxes]
    corners = [",".join(map(repr, [*box[:2], box[0] + box[2], box[1] + box[3]])) for box in boxes]
    in_corners = {"class_id": None, "boxes": ["x1", "y1", "x2", "y2"], "layout": "xyxy"}
    tables = [
        read_as(folder, WHEAT, "image_id,bbox", *strings, "b,"),
        read_as(folder, WHEAT, "image_id,bbox", *strings, "b,[]"),
        read_as(folder, REEF, "image_id,annotations", f'a,"{dicts}"', "b,[]"),
        read_as(folder, in_corners, "image_id,x1,y1,x2,y2", *(f"a,{c}" for c in corners), "b,,nan,NaN,"),
    ]
    for table in tables:
        np.testing.assert_allclose(table.boxes, wanted, atol=1e-4)
        assert table.image_ids.tolist() == ["a", "b"]
        assert table.classes == ("object",)
        assert table.amounts().tolist() == [len(boxes), 0]
        inside = table.target(0, 60, 100)["bboxes"]
        assert (inside[:, 2:] > inside[:, :2]).all()
        assert (inside <= [100, 60, 100, 60]).all()


@pytest.mark.parametrize(
    ("form", "cell", "expected"),
    [
        (WHEAT, "[1, 2, 3]", "four numbers in brackets"),
        (WHEAT, "[1, 2, 3, 4, 5]", "four numbers in brackets"),
        (WHEAT, "1, 2, 3, 4", "four numbers in brackets"),
        (WHEAT, "[1, 2, x, 4]", "four numbers in brackets"),
        (WHEAT, "[1, 2, inf, 4]", "four numbers in brackets"),
        (WHEAT, "[1, 2, -3, 4]", "width and height of 0 or more"),
        (REEF, "[{'x': 1, 'y': 2, 'width': 3}]", "list of dicts with numbers x, y, width, height"),
        (REEF, "[{'x': 1, 'y': 2, 'width': 3, 'height': 'tall'}]", "list of dicts"),
        (REEF, "[{'x': 1, 'y': 2, 'width': -3, 'height': 4}]", "width and height of 0 or more"),
        (REEF, "[{'x': 1, 'y': 2, 'width': 3, 'height': 4}", "list of dicts"),
        (REEF, "__import__('os').getcwd()", "list of dicts"),
        (REEF, "7", "list of dicts"),
    ],
)
def test_a_malformed_cell_is_named_with_its_line(
    tmp_path: Path, form: dict[str, Any], cell: str, expected: str
) -> None:
    good = "[1, 2, 3, 4]" if form is WHEAT else "[{'x': 1, 'y': 2, 'width': 3, 'height': 4}]"
    with pytest.raises(CompetitionError) as caught:
        read_as(tmp_path, form, f"image_id,{form['boxes']}", f'a,"{good}"', f'b,"{cell}"')
    (message,) = str(caught.value).splitlines()
    assert message.startswith(f"{tmp_path / 'train.csv'}: line 3: found {cell[:50]!r}"[:-1])
    assert expected in message


def test_a_class_that_means_no_box_is_none_to_predict(tmp_path: Path) -> None:
    form = {"no_finding": "14"}
    rows = ("image_id,class_id,x,y,w,h", "a,14,,,,", "a,14,0,0,1,1", "b,3,1,1,5,5", "b,0,2,2,5,5")
    table = read_as(tmp_path, form, *rows)
    assert table.classes == ("0", "3")
    assert table.amounts().tolist() == [0, 2]
    with pytest.raises(CompetitionError, match=r"data\.classes: lists '14'"):
        read_as(tmp_path, form, *rows, classes=["0", "3", "14"])
    with pytest.raises(CompetitionError, match=r"line 2: .*format\.no_finding"):
        read_as(tmp_path, {}, *rows)


def test_boxes_of_several_readers_add_up_or_are_fused(tmp_path: Path) -> None:
    rows = ("image_id,class_id,x,y,w,h", "a,c,0,0,10,10", "a,c,0,0,10,12", "a,d,0,0,10,10", "b,c,30,0,9,9")
    assert read_as(tmp_path, {}, *rows).amounts().tolist() == [3, 1]
    fused = read_as(tmp_path, {"fuse_readers": 0.5}, *rows)
    target = fused.target(0, 50, 50)
    np.testing.assert_allclose(target["bboxes"], [[0, 0, 10, 11], [0, 0, 10, 10]], rtol=1e-6)
    assert target["labels"].tolist() == [0, 1]
    assert fused.amounts().tolist() == [2, 1]


def test_an_id_is_put_together_from_columns(tmp_path: Path) -> None:
    form = {**REEF, "image_id": "video_{video}/{frame}"}
    table = read_as(tmp_path, form, "video,frame,annotations", "0,12,[]", "1,7,[]")
    assert table.image_ids.tolist() == ["video_0/12", "video_1/7"]


def test_images_without_a_row_are_without_box_where_the_config_says_so(tmp_path: Path) -> None:
    for folder, names in (("train_images", "abc"), ("test_images", "xyz")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.png").touch()
    lines = ("image_id,bbox", 'b,"[1, 2, 3, 4]"')
    data: dict[str, Any] = {"image_file": "{image_id}.png", "absent_images": "empty"}
    table = read_as(tmp_path, WHEAT, *lines, **data)
    assert table.image_ids.tolist() == ["b", "a", "c"]
    assert table.lines.tolist() == [2, 0, 0]
    assert table.amounts().tolist() == [1, 0, 0]
    assert read_as(tmp_path, WHEAT, *lines, **data | {"absent_images": "ignore"}).image_ids.tolist() == ["b"]
    values = {"name": "t", "task": "detection", "data": {"dir": str(tmp_path), **data}, "format": WHEAT}
    solution, elsewhere = tmp_path / "solution.csv", tmp_path / "run" / "pseudo.csv"
    elsewhere.parent.mkdir()
    for path in (solution, elsewhere):
        path.write_text('image_id,bbox\ny,"[1, 2, 3, 4]"\n', encoding="utf-8")
    config = validate(values, {}, "test")
    assert isinstance(config, TaskConfig)
    assert read_table(config, solution).image_ids.tolist() == ["y", "x", "z"]
    assert read_table(config, elsewhere).image_ids.tolist() == ["y"]


def test_one_class_bears_the_name_that_data_gives_it(tmp_path: Path) -> None:
    lines = ("image_id,bbox", 'b,"[1, 2, 3, 4]"')
    assert read_as(tmp_path, WHEAT, *lines, classes=["wheat"]).classes == ("wheat",)
    with pytest.raises(CompetitionError, match=r"data\.classes: lists 2 classes"):
        read_as(tmp_path, WHEAT, *lines, classes=["wheat", "weed"])


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"boxes": ["x", "y", "w"]}, "lists 3 columns; expected four"),
        ({"box_keys": ["x", "y", "w", "h"]}, "box_keys is for boxes in one column"),
        ({"class_id": None, "no_finding": "14"}, "format.class_id must name its column"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(tmp_path: Path, form: dict[str, Any], message: str) -> None:
    with pytest.raises(CompetitionError, match=message):
        read_as(tmp_path, form, "image_id,class_id,x,y,w,h", "a,c,1,1,1,1")


def test_a_hundred_thousand_rows_are_read_in_seconds(tmp_path: Path) -> None:
    strings = (f'{i // 20},"[{i % 900}.0, 22.5, 50.0, 32.0]"' for i in range(100_000))
    dicts = "[{'x': 559, 'y': 213, 'width': 50, 'height': 32}, {'x': 9, 'y': 3, 'width': 5, 'height': 2}]"
    started = time.process_time()
    assert len(read_as(tmp_path, WHEAT, "image_id,bbox", *strings).boxes) == 100_000
    lists = (f'{i},"{dicts}"' for i in range(100_000))
    assert len(read_as(tmp_path, REEF, "image_id,annotations", *lists).boxes) == 200_000
    assert time.process_time() - started < 15


SHARES = {"class_id": "name", "boxes": ["x1", "y1", "x2", "y2"], "layout": "xyxy", "units": "shares"}


def test_shares_of_the_sides_become_pixels_of_each_image(tmp_path: Path) -> None:
    rows = ("image_id,name,x1,y1,x2,y2", "a,dog,0.1,0.2,0.5,1", "b,cat,0,0,1,0.5")
    table = read_as(tmp_path, SHARES, *rows)
    np.testing.assert_allclose(table.target(0, 50, 200)["bboxes"], [[20, 10, 100, 50]], rtol=1e-6)
    np.testing.assert_allclose(table.target(1, 300, 60)["bboxes"], [[0, 0, 60, 150]], rtol=1e-6)


def test_a_centre_with_width_and_height_is_read_as_yolo_writes_it(tmp_path: Path) -> None:
    form = {"class_id": None, "boxes": ["x", "y", "w", "h"], "layout": "cxcywh", "units": "shares"}
    table = read_as(tmp_path, form, "image_id,x,y,w,h", "a,0.5,0.25,0.2,0.5")
    np.testing.assert_allclose(table.target(0, 40, 100)["bboxes"], [[40, 0, 60, 20]], atol=1e-5)


def test_shares_read_as_pixels_and_pixels_read_as_shares_are_refused(tmp_path: Path) -> None:
    rows = ("image_id,name,x1,y1,x2,y2", "a,dog,0.1,0.2,0.5,1", "a,dog,0.3,0.3,0.4,0.4")
    with pytest.raises(CompetitionError, match=r"no box reaches further than 1 pixels.*format\.units: shares"):
        read_as(tmp_path, {**SHARES, "units": "pixels"}, *rows)
    with pytest.raises(CompetitionError, match=r"line 2: found '10,10,20,20'; expected shares.*format\.units"):
        read_as(tmp_path, SHARES, rows[0], "a,dog,10,10,20,20")


def test_boxes_that_cannot_be_of_their_image_are_refused_with_its_line(tmp_path: Path) -> None:
    header = "image_id,class_id,x,y,w,h"
    table = read(tmp_path, "a,dog,10,10,5,5", "b,dog,300,20,5,5", "b,dog,20,900,5,5", header=header)
    assert len(table.target(0, 50, 100)["bboxes"]) == 1
    with pytest.raises(CompetitionError, match="line 3: image 'b': all its 2 boxes lie outside its 100 x 50 pixels"):
        table.target(1, 50, 100)
    table = read(tmp_path, "a,1024,768,dog,10,10,5,5", "b,1024,768,,,,,")
    with pytest.raises(CompetitionError, match=r"line 2: .*1024 x 768 pixels by the columns width,height, its file 96"):
        table.target(0, 96, 96)
    assert not len(table.target(1, 96, 96)["bboxes"])  # nothing that could be at the wrong place


@pytest.mark.parametrize(
    ("string", "cell"),
    [
        ("class box", "dog 10 20 30 40 cat 0 0 5 5"),
        ("class conf box", "dog 1 10 20 30 40 cat .5 0 0 5 5"),
    ],
)
def test_a_string_holds_classes_and_boxes_again_and_again(tmp_path: Path, string: str, cell: str) -> None:
    form = {"class_id": None, "boxes": "labels", "box_string": string, "no_finding": "none"}
    table = read_as(tmp_path, form, "image_id,labels", f"a,{cell}", "b,", "c,none 1 0 0 1 1")
    assert table.classes == ("cat", "dog")
    assert table.amounts().tolist() == [2, 0, 0]
    np.testing.assert_array_equal(table.boxes, [[10, 20, 40, 60], [0, 0, 5, 5]])
    assert table.labels.tolist() == [1, 0]
    with pytest.raises(CompetitionError, match=rf"line 3: found 'dog 1 2'; expected `{string}` again and again"):
        read_as(tmp_path, form, "image_id,labels", f"a,{cell}", "b,dog 1 2")


def test_regions_of_a_crowd_are_no_boxes_to_learn(tmp_path: Path) -> None:
    header, rows = f"{HEADER},iscrowd", ("a,100,50,dog,1,2,3,4,0", "a,100,50,dog,0,0,90,40,1", "b,100,50,,,,,,")
    (told,) = faults(tmp_path, *rows, header=header)
    assert f"{tmp_path / 'train.csv'}: line 3: iscrowd is 1 here, and in 1 rows of 3" in told
    assert "data.train_csv='train.csv where iscrowd!=1'" in told
    table = read(tmp_path, *rows, header=header, train_csv="train.csv where iscrowd!=1")
    assert table.image_ids.tolist() == ["a", "b"]
    assert table.lines.tolist() == [2, 4]
    np.testing.assert_array_equal(table.target(0, 50, 100)["bboxes"], [[1, 2, 4, 6]])
    assert len(table.target(1, 50, 100)["bboxes"]) == 0
