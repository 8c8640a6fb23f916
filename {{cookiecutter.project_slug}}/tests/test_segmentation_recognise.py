"""The format of files nobody has named: told by their rows, or not at all where they are of another task."""

from typing import Any

import pandas as pd
import pytest

from competition.config import validate
from competition.tasks.segmentation.recognise import recognise

RUNS = ("1 300 500 20", "", "2000 40")


def frame(header: str, *rows: str) -> pd.DataFrame:
    return pd.DataFrame([row.split(",") for row in rows], columns=header.split(","), dtype=str)


def rows(*values: str, name: str = "a{}.png") -> list[str]:
    return [f"{name.format(i)},{value}" for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("train", "sample", "keys", "asked"),
    [
        ("ImageId,EncodedPixels", "ImageId,EncodedPixels", {"ImageId": "{image_id}"}, {"ImageId": "{image_id}"}),
        ("id,rle_mask", "id,rle_mask", {"id": "{image_id}"}, {"id": "{image_id}"}),
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
    found = recognise(frame("name", "a", "b"), frame("name,rle", *rows("")))
    assert found is not None
    assert found["format"]["train"] == {"keys": {"name": "{image_id}"}, "files": "train_masks/{image_id}.png"}


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
