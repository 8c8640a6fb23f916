"""How train.csv is read: rows of points, strings, shares, and what is wrong with them, by line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.config.loading import validate
from competition.support.errors import CompetitionError
from competition.tasks.points.formats.recognise import readings
from competition.tasks.points.settings import TaskConfig
from competition.tasks.points.table import PointsTable, read_table

ROWS = ["a.png,dot,10.5,20", "b.png,,,", "a.png,ring,3,4", "c.png,ring,nan,NaN"]


def config_of(folder: Path, **sections: Any) -> TaskConfig:
    values = {"name": "t", "task": "points", **sections}
    values["data"] = {"dir": str(folder), **values.get("data", {})}
    config = validate(values, {}, "t")
    assert isinstance(config, TaskConfig)
    return config


def table_of(folder: Path, lines: list[str], header: str = "image_id,class_id,x,y", **sections: Any) -> PointsTable:
    (folder / "train.csv").write_text("\n".join([header, *lines, ""]))
    return read_table(config_of(folder, **sections))


def test_rows_are_points_and_an_image_without_any_has_an_empty_one(tmp_path: Path) -> None:
    table = table_of(tmp_path, ROWS[:3])
    assert table.image_ids.tolist() == ["a.png", "b.png"]
    assert table.classes == ("dot", "ring")
    assert table.lines.tolist() == [2, 3]
    target = table.target(0, 30, 40)
    assert target["keypoints"].tolist() == [[10.5, 20], [3, 4]]
    assert target["labels"].tolist() == [0, 1]
    assert table.target(1, 30, 40)["keypoints"].shape == (0, 2)
    assert table.present().tolist() == [[True, True], [False, False]]
    assert table.amounts().tolist() == [2, 0]
    assert table.summary() == ["points: dot 1, ring 1", "images without any point: 1 of 2"]


def test_strings_tell_points_and_classes_of_boxes_the_centre(tmp_path: Path) -> None:
    form = {"class_id": None, "points": "labels", "point_string": "class x y w h"}
    table = table_of(tmp_path, ["a.png,U+1 10 20 4 6 U+2 1 2 2 2", "b.png,"], "image_id,labels", format=form)
    assert table.classes == ("U+1", "U+2")
    assert table.target(0, 30, 40)["keypoints"].tolist() == [[12, 23], [2, 3]]
    assert "half_sides" not in table.target(0, 30, 40)
    assert len(table.target(1, 30, 40)["labels"]) == 0


def test_boxes_are_kept_where_a_point_counts_anywhere_within(tmp_path: Path) -> None:
    form = {"class_id": None, "points": "labels", "point_string": "class x y w h"}
    lines = ["b.png,", "a.png,U+1 10 20 4 6 U+2 100 200 2 2 U+2 1 2 2 8"]
    table = table_of(tmp_path, lines, "image_id,labels", format=form, matching={"inside_box": True})
    assert table.target(1, 30, 40)["half_sides"].tolist() == [[2, 3], [1, 4]]
    assert table.target(0, 30, 40)["half_sides"].shape == (0, 2)
    with pytest.raises(CompetitionError, match=r"inside_box: found true, but train.csv tells no boxes"):
        config_of(tmp_path, matching={"inside_box": True})


def test_shares_are_of_the_images_sides_and_another_text_may_mean_none(tmp_path: Path) -> None:
    form = {"units": "shares", "class_id": None, "empty": "-1"}
    table = table_of(tmp_path, ["a.png,0.5,0.25", "b.png,-1,-1"], "image_id,x,y", format=form)
    assert table.target(0, 100, 200)["keypoints"].tolist() == [[100, 25]]
    assert table.target(0, 100, 200)["size"].tolist() == [100, 200]
    assert table.amounts().tolist() == [1, 0]


def test_a_class_has_a_distance_of_its_own(tmp_path: Path) -> None:
    table = table_of(tmp_path, ROWS[:3], matching={"distance": [3.0, 7.5]})
    assert table.target(0, 30, 40)["reach"].tolist() == [3.0, 7.5]
    with pytest.raises(CompetitionError, match="distance: lists 3 values for 2 classes"):
        table_of(tmp_path, ROWS[:3], matching={"distance": [1.0, 2.0, 3.0]})


FAULTS = {
    "a,dot,1,": r"line 3: found '1,'; expected x,y as two numbers",
    "a,dot,one,2": r"line 3: found 'one,2'; expected x,y as two numbers",
    "a,dot,inf,2": r"line 3: found 'inf,2'; expected x,y as two numbers",
    "a,,1,2": r"line 3: found '1,2'; a point without a class_id; name its class",
    "a,dot,,": r"line 3: found ','; expected x,y of a point of the row's class_id",
    ",dot,1,2": r"line 3: image_id is empty",
}


@pytest.mark.parametrize(("line", "told"), FAULTS.items(), ids=list(FAULTS))
def test_a_faulty_row_is_named_by_its_line(line: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match=told):
        table_of(tmp_path, ["b,dot,3,4", line])


def test_points_in_other_units_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match=r"no point lies further than 0\.75 pixels"):
        table_of(tmp_path, ["a,dot,0.5,0.75"])
    with pytest.raises(CompetitionError, match=r"line 2: found '5,7'; expected shares of the image's sides"):
        table_of(tmp_path, ["a,dot,5,7"], format={"units": "shares"})


def test_points_of_another_image_are_refused_and_single_ones_outside_left_out(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["a,dot,5,7", "a,dot,50,7", "b,dot,50,60"])
    assert table.target(0, 30, 40)["keypoints"].tolist() == [[5, 7]]
    with pytest.raises(CompetitionError, match="line 4: image 'b': all its 1 points lie outside its 40 x 30 pixels"):
        table.target(1, 30, 40)


def frame(header: str, *lines: str) -> Any:
    import io

    import pandas as pd

    return pd.read_csv(io.StringIO("\n".join([header, *lines])), dtype=str, keep_default_na=False)


RECOGNISED: dict[str, tuple[Any, Any, Any]] = {
    "the sample": (
        frame("image_id,class_id,x,y", "a,dot,1.5,2"),
        frame("image_id,class_id,x,y,confidence", "b,,,,"),
        "sample",
    ),
    "kuzushiji": (
        frame("image_id,labels", "a,U+1 1 2 3 4"),
        frame("image_id,labels", "b,U+1 1 2 U+2 3 4"),
        "kuzushiji",
    ),
    "other columns": (
        frame("tile_id,kind,center_x,center_y,label", "a,k,10.5,20,cell", "b,k,,,"),
        frame("tile_id,center_x,center_y,label,score", "c,1,1,cell,0.5"),
        {
            "image_id": "tile_id",
            "class_id": "label",
            "points": ["center_x", "center_y"],
            "submission": {
                "image_id": "tile_id",
                "class_id": "label",
                "points": ["center_x", "center_y"],
                "confidence": "score",
            },
        },
    ),
    "a string an image": (
        frame("image_id,x,y", "a,10.5,20"),
        frame("image_id,PredictionString", "c,0.5 10 20 0.4 3 4"),
        {
            "image_id": "image_id",
            "class_id": None,
            "points": ["x", "y"],
            "submission": {"image_id": "image_id", "points": "PredictionString", "string": "conf x y"},
        },
    ),
}


@pytest.mark.parametrize("case", RECOGNISED)
def test_files_of_points_are_recognised(case: str) -> None:
    train, sample, expected = RECOGNISED[case]
    assert readings(train, sample) == [{"format": expected}]


def test_boxes_are_no_points() -> None:
    boxes = frame("image_id,class_id,x,y,w,h", "a,dot,1,2,3,4")
    assert readings(boxes, frame("image_id,PredictionString", "b,")) == []
    assert readings(boxes, frame("image_id,class_id,x,y,confidence", "b,,,,")) == []


def test_targets_hold_what_the_table_says(tmp_path: Path) -> None:
    table = table_of(tmp_path, ROWS[:3])
    assert table.strata().tolist() == [2, 0]
    np.testing.assert_array_equal(table.in_pixels(0, 1, 1), [[10.5, 20], [3, 4]])
