"""Classes of points in columns of any name: told by their values, or said to be left out."""

from pathlib import Path

import pandas as pd
from tiny import PROJECT

from competition.tasks.points.formats.recognise import readings
from tests.checking.test_recognise_folder import draw, printed, write

ROWS = [f"a{k % 4},{('proton', 'ion')[k % 2]},{10 + k},{20 - k}" for k in range(8)]


def frame(header: str, *rows: str) -> pd.DataFrame:
    return pd.DataFrame([row.split(",") for row in rows], columns=header.split(","), dtype=str)


def test_a_column_of_classes_of_any_name_is_told_by_the_sample() -> None:
    train = frame("image_id,tissue,x,y", *ROWS)
    (rows,) = readings(train, frame("image_id,tissue,x,y,score", "b,ion,1,1,0.5"))
    assert (rows["format"]["class_id"], rows["format"]["submission"]["class_id"]) == ("tissue", "tissue")
    (strings,) = readings(train, frame("image_id,labels", "b,ion 30 40 proton 5 6"))
    assert (strings["format"]["class_id"], strings["format"]["submission"]["string"]) == ("tissue", "class x y")


def test_columns_that_nothing_is_made_of_are_told(tmp_path: Path) -> None:
    draw(tmp_path, *(f"train_images/a{k}.png" for k in range(4)), "test_images/b.png")
    write(tmp_path / "train.csv", "image_id,tissue,x,y", *ROWS)
    write(tmp_path / "sample_submission.csv", "image_id,x,y,score", "b,1,1,0.5")
    lines, values = printed(tmp_path, PROJECT)
    assert values["format"]["class_id"] is None
    assert [line for line in lines if "tissue (2 values)" in line and "format.class_id" in line]
