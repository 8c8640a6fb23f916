"""Formats told from columns and first rows alone; files of other tasks are left to them."""

import io
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from competition.checking.recognise_format import recognise_folder
from competition.config.loading import load_config, validate
from competition.tasks.classification.formats.recognise import recognise


def frame(*lines: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO("\n".join(lines)), dtype=str, keep_default_na=False)


RECOGNISED = {
    "labels by name": (
        ("id,breed", "a,boxer", "b,pug", "c,pug"),
        ("id,boxer,pug", "d,0.5,0.5"),
        {"format": {"target": "single", "train": {"keys": {"id": "{image_id}"}, "column": "breed"}}},
    ),
    "labels by name, of which one is none of the sample's": (
        ("id,breed", "a,boxer", "b,pug", "c,pgu"),
        ("id,boxer,pug", "d,0.5,0.5"),
        {"format": {"target": "single", "train": {"keys": {"id": "{image_id}"}, "column": "breed"}}},
    ),
    "labels by number": (
        ("id_code,diagnosis", "a,2", "b,0", "c,4"),
        ("id_code,diagnosis", "d,0"),
        {
            "format": {
                "target": "single",
                "train": {"keys": {"id_code": "{image_id}"}, "column": "diagnosis"},
                "submission": {"layout": "label"},
            }
        },
    ),
    "several classes": (
        ("StudyInstanceUID,ETT,NGT,PatientID", "a,0,0,p", "b,1,1,p", "c,1,0,q"),
        ("StudyInstanceUID,ETT,NGT", "d,0,0"),
        {
            "format": {
                "target": "multi",
                "train": {"keys": {"StudyInstanceUID": "{image_id}"}, "layout": "columns"},
            }
        },
    ),
    "a yes or no": (
        ("id,has_cactus", "a.jpg,1", "b.jpg,0"),
        ("id,has_cactus", "c.jpg,0.5"),
        {
            "data": {"classes": ["has_cactus"]},
            "format": {"target": "multi", "train": {"keys": {"id": "{image_id}"}, "layout": "columns"}},
        },
    ),
    "rows of image and class": (
        ("id,target", "a_x,1", "a_y,0", "b_x,0", "b_y,0"),
        ("id,target", "c_x,0.5", "c_y,0.5"),
        {
            "format": {
                "target": "multi",
                "train": {"keys": {"id": "{image_id}_{class_id}"}, "layout": "rows", "column": "target"},
                "submission": {"layout": "rows"},
            }
        },
    ),
    "label strings": (
        ("id,attribute_ids", "a,1 7", "b,3", "c,1"),
        ("id,attribute_ids", "d,0 1 2"),
        {
            "format": {
                "target": "multi",
                "train": {"keys": {"id": "{image_id}"}, "layout": "label_string", "column": "attribute_ids"},
                "submission": {"layout": "label_string"},
            }
        },
    ),
    "the best few": (
        ("Image,Id", "a.jpg,w_1", "b.jpg,new_whale", "c.jpg,w_2"),
        ("Image,Id", "d.jpg,new_whale w_1 w_2 w_3 w_4"),
        {
            "format": {
                "target": "single",
                "train": {"keys": {"Image": "{image_id}"}, "column": "Id"},
                "submission": {"layout": "top", "top": 5},
            }
        },
    ),
    "labels joined by a bar": (
        ("Image Index,Finding,OriginalImagePixelSpacing", "1_0.png,A,0.1", "1_1.png,B C,0.1", "2_0.png,A|B C,0.2"),
        ("Image Index,Finding", "3_0.png,A"),
        {
            "format": {
                "target": "multi",
                "train": {
                    "keys": {"Image Index": "{image_id}"},
                    "layout": "label_string",
                    "column": "Finding",
                    "separator": "|",
                },
                "submission": {"layout": "label_string"},
            }
        },
    ),
    "names with blanks": (
        ("file,species", "a,Common wheat", "b,Common Chickweed", "c,Sugar beet", "d,Maize"),
        ("file,species", "e,Sugar beet"),
        {
            "format": {
                "target": "single",
                "train": {"keys": {"file": "{image_id}"}, "column": "species"},
                "submission": {"layout": "label"},
            }
        },
    ),
    "a yes or no of a spreadsheet": (
        ("id,has_cactus", "a.jpg,TRUE", "b.jpg,FALSE"),
        ("id,has_cactus", "c.jpg,0.5"),
        {
            "data": {"classes": ["has_cactus"]},
            "format": {"target": "multi", "train": {"keys": {"id": "{image_id}"}, "layout": "columns"}},
        },
    ),
    "a probability of one of two words": (
        ("filename,label", "a,FAKE", "b,REAL", "c,FAKE"),
        ("filename,label", "d,0.5"),
        {
            "format": {
                "target": "multi",
                "train": {
                    "keys": {"filename": "{image_id}"},
                    "layout": "label_string",
                    "column": "label",
                    "separator": "|",
                },
                "submission": {"layout": "columns"},
                "none": "REAL",
            }
        },
    ),
    "rows of image and target": (
        (
            "sample_id,name,target",
            "I1__Dry_g,Dry_g,1.5",
            "I1__GDM_x_g,GDM_x_g,2",
            "I2__Dry_g,Dry_g,0",
            "I2__GDM_x_g,GDM_x_g,3",
        ),
        ("sample_id,target", "I3__Dry_g,0", "I3__GDM_x_g,0"),
        {
            "format": {
                "target": "regression",
                "train": {"keys": {"sample_id": "{image_id}__{class_id}"}, "layout": "rows", "column": "target"},
                "submission": {"layout": "rows"},
            },
        },
    ),
    "columns of classes asked by rows": (
        ("Study,all_of_it,C1", "1.2,1,1", "1.3,0,0"),
        ("row_id,fractured", "1.4_all_of_it,0.5", "1.4_C1,0.5", "1.5_all_of_it,0.5", "1.5_C1,0.5"),
        {
            "data": {"classes": ["all_of_it", "C1"]},
            "format": {
                "target": "multi",
                "train": {"keys": {"Study": "{image_id}"}, "layout": "columns"},
                "submission": {"keys": {"row_id": "{image_id}_{class_id}"}, "layout": "rows"},
            },
        },
    ),
    "numbers": (
        ("filename,age", "a.png,31.5", "b.png,70"),
        ("filename,age", "c.png,50"),
        {
            "data": {"classes": ["age"]},
            "format": {"target": "regression", "train": {"keys": {"filename": "{image_id}"}, "layout": "columns"}},
        },
    ),
}


@pytest.mark.parametrize(("train", "sample", "expected"), RECOGNISED.values(), ids=RECOGNISED)
def test_a_format_is_told_by_what_the_columns_hold(
    train: tuple[str, ...], sample: tuple[str, ...], expected: dict[str, Any]
) -> None:
    found = recognise(frame(*train), frame(*sample))
    assert found == expected
    metrics = {"single": ["accuracy"], "multi": ["micro_f1"], "regression": ["rmse"]}[found["format"]["target"]]
    validate({"name": "t", "task": "classification", "metrics": metrics, **found}, {}, "test")


@pytest.mark.parametrize(
    ("train", "sample"),
    [
        (("image_id,class_id,rle", "a,x,1 3"), ("image_id,class_id,rle", "b,x,")),
        (("Image_Label,EncodedPixels", "a_Fish,1 3"), ("Image_Label,EncodedPixels", "b_Fish,1 1")),
        (("id,class,segmentation", "a,x,1 3"), ("id,class,predicted", "b,x,")),
        (("image_id,width,height,bbox,source", 'a,9,9,"[1, 2, 3, 4]",u'), ("image_id,PredictionString", "b,")),
        (("patientId,x,y,width,height,Target", "a,,,,,0"), ("patientId,PredictionString", "b,")),
        (("image_id,class_name,class_id,x_min", "a,c,0,1"), ("image_id,PredictionString", "b,14 1 0 0 1 1")),
        (("a,b", "1,2"), ("c,d", "1,2")),
    ],
)
def test_files_of_other_tasks_are_left_to_them(train: tuple[str, ...], sample: tuple[str, ...]) -> None:
    assert recognise(frame(*train), frame(*sample)) is None


def test_a_config_of_a_regression_has_metrics_that_can_score_it(project: Path, tmp_path: Path) -> None:
    """Those of the base it stands on are of classes."""
    (tmp_path / "train.csv").write_text("id,weight\na,1.5\nb,2.25\nc,7\n")
    (tmp_path / "sample_submission.csv").write_text("id,weight\nd,0.5\n")
    shutil.copy(project / "configs" / "classification.yaml", tmp_path)
    (tmp_path / "mine.yaml").write_text("\n".join(recognise_folder([f"data.dir={tmp_path}"])))
    config = load_config([tmp_path / "mine.yaml"])
    assert (config.format.target, config.metrics[0]) == ("regression", "rmse")
