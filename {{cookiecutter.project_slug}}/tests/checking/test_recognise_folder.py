"""The config that `check` prints without one: it reads the files it was printed for, or says what it does not."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from competition.checking.check import check
from competition.checking.recognise_format import hint_at_format, recognise, recognise_folder
from competition.config.data_settings import Data
from competition.config.loading import load_config, task_names
from competition.data.folds import make_folds, read_folds
from competition.files.csv_file import read_csv
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task

needs_classes = pytest.mark.skipif("classification" not in task_names(), reason="labels are read")
needs_boxes = pytest.mark.skipif("detection" not in task_names(), reason="boxes are read")


def draw(folder: Path, *names: str, side: int = 24) -> None:
    rng = np.random.default_rng(len(names))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (side, side, 3)).astype(np.uint8)).save(folder / name)


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))


def printed(folder: Path, project: Path, *words: str) -> tuple[list[str], dict[str, Any]]:
    """Return the printed lines and the config, which must pass `check`."""
    lines = recognise_folder([f"data.dir={folder}", *words])
    path = folder / "mine.yaml"
    path.write_text("\n".join(lines))
    values = yaml.safe_load(path.read_text())
    (folder / values["base"]).write_text((project / "configs" / values["base"]).read_text())
    config = load_config([path], ["data.near_duplicates=false"])
    check(config)
    assert hint_at_format(config) == []  # no advice against a config that is right
    return lines, values


@needs_classes
def test_a_table_of_another_name_in_nested_folders_is_read_and_every_given_key_kept(
    tmp_path: Path, project: Path
) -> None:
    ids = [f"i{number}" for number in range(6)]
    draw(tmp_path, *(f"pictures/{k % 2}/{one}.jpg" for k, one in enumerate(ids)), "test/j0.jpg", "test/j1.jpg")
    write(tmp_path / "which.csv", "id,breed", *(f"{one},{'pug' if k % 2 else 'boxer'}" for k, one in enumerate(ids)))
    write(tmp_path / "sample_submission.csv", "id,breed", "j0,pug", "j1,pug")
    lines, values = printed(tmp_path, project, "data.num_folds=2", "data.train_csv=which.csv")
    assert values["data"] == {
        "num_folds": 2,
        "train_csv": "which.csv",
        "dir": str(tmp_path),
        "train_images": "pictures",
        "test_images": "test",
        "image_file": "*/{image_id}.jpg",
        "test_image_file": "{image_id}.jpg",
    }
    assert lines[0].startswith(f"# no config given; these lines in one read {tmp_path / 'which.csv'}")
    assert printed(tmp_path, project)[1]["data"]["train_csv"] == "which.csv"  # found without a word, too


@needs_classes
def test_labels_that_folders_tell_and_those_of_json_are_read(tmp_path: Path, project: Path) -> None:
    names = [f"{'ab'[k % 2]} b/x{k}.png" for k in range(6)]
    for folder in (tmp_path / "folders", tmp_path / "json"):
        draw(folder, *(f"train/{name}" for name in names), "test/y0.png", "test/y1.png")
    asked = [{"id": 900 + k, "file_name": f"test/y{k}.png"} for k in range(2)]
    (tmp_path / "json/test.json").write_text(json.dumps({"images": asked}))
    write(tmp_path / "folders/sample_submission.csv", "image,kind", "y0.png,a b", "y1.png,a b")
    _, values = printed(tmp_path / "folders", project)
    assert values["data"]["train_csv"] == "train/{kind}/{image}"
    images = [{"id": 70 + k, "file_name": f"train/{name}"} for k, name in enumerate(names)]
    notes = [{"id": k, "image_id": 70 + k, "category_id": 5 + k % 2} for k in range(6)]
    (tmp_path / "json/train.json").write_text(json.dumps({"images": images, "annotations": notes}))
    write(tmp_path / "json/sample_submission.csv", "Id,Predicted", "900,0", "901,0")
    _, values = printed(tmp_path / "json", project)
    assert (values["data"]["image_file"], values["data"]["test_csv"]) == ("{file_name}", "test.json")
    assert values["format"]["train"] == {"keys": {"image_id": "{image_id}"}, "column": "category_id"}


@needs_classes
def test_where_two_readings_fit_both_are_printed_the_likelier_first(tmp_path: Path, project: Path) -> None:
    draw(tmp_path, *(f"train_images/a{k}.png" for k in range(4)), "test_images/b.png")
    write(tmp_path / "train.csv", "image_id,label", *(f"a{k}.png,{('FAKE', 'REAL')[k % 2]}" for k in range(4)))
    write(tmp_path / "sample_submission.csv", "image_id,label", "b.png,0.5")
    lines, values = printed(tmp_path, project)
    assert (values["format"]["none"], values["format"]["submission"]) == ("REAL", {"layout": "columns"})
    assert "# or, as another reading that fits:" in lines
    assert "#   none: FAKE" in lines


@needs_classes
def test_what_fails_and_what_is_packed_is_told_beside_the_lines(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "image_id,label", "a,pug", "b,boxer")
    write(tmp_path / "sample_submission.csv", "image_id,boxer,pug", "c,0.5,0.5")
    with zipfile.ZipFile(tmp_path / "train_images.zip", "w") as archive:
        archive.writestr("a.png", b"")
    lines = recognise_folder([f"data.dir={tmp_path}"])
    assert "fail at images and their answers:" in lines[0]
    assert "train_images/a: no such image file" in lines[1]
    assert any("packed are train_images.zip" in line for line in lines)


@pytest.mark.skipif("segmentation" not in task_names(), reason="masks are read")
def test_one_damaged_mask_hides_no_format_and_its_line_is_told(tmp_path: Path) -> None:
    draw(tmp_path, *(f"train_images/a{k}.png" for k in range(12)), "test_images/b.png")
    rows = [f"a{k},0,{'1 10 90 x' if k == 5 else '1 10 70 10'}" for k in range(12)]
    write(tmp_path / "train.csv", "image_id,class_id,rle", *rows)
    write(tmp_path / "sample_submission.csv", "image_id,class_id,rle", "b,0,")
    lines = recognise_folder([f"data.dir={tmp_path}"])
    assert yaml.safe_load("\n".join(lines))["base"] == "segmentation.yaml"
    assert "line 7: rle: expected whole numbers" in lines[1]


@needs_classes
def test_a_label_joined_by_bars_and_a_class_column_are_no_typing_errors(tmp_path: Path, project: Path) -> None:
    draw(tmp_path, *(f"train_images/a{k}.png" for k in range(8)), "test_images/b.png")
    rows = [f"a{k}.png,{int(k < 5)},{int(k > 5)}" for k in range(8)]
    write(tmp_path / "train.csv", "image_id,ETT - Normal,NGT - Normal", *rows)
    write(tmp_path / "sample_submission.csv", "image_id,ETT - Normal,NGT - Normal", "b.png,0.5,0.5")
    printed(tmp_path, project)
    report = check(load_config([tmp_path / "mine.yaml"], ["data.near_duplicates=false"]))
    assert not [line for line in report if "typing error" in line]
    write(tmp_path / "train.csv", "image_id,label", *(f"a{k}.png,{'A|B' if k % 2 else 'A'}" for k in range(8)))
    write(tmp_path / "sample_submission.csv", "image_id,label", "b.png,A")
    _, values = printed(tmp_path, project)
    assert values["format"]["train"]["separator"] == "|"


@needs_classes
def test_a_blank_label_string_is_told_with_the_key_that_reads_it(tmp_path: Path) -> None:
    draw(tmp_path, *(f"train_images/a{k}.png" for k in range(4)), "test_images/b.png")
    write(tmp_path / "train.csv", "image_id,label", "a0.png,x y", "a1.png,x", "a2.png,y", "a3.png,")
    write(tmp_path / "sample_submission.csv", "image_id,label", "b.png,x")
    form = "format={target: multi, train: {layout: label_string}, submission: {layout: label_string}}"
    words = [form, f"data.dir={tmp_path}", "data.near_duplicates=false", "metrics=[macro_f1]"]
    (tmp_path / "mine.yaml").write_text("task: classification")
    with pytest.raises(CompetitionError, match=r"line 5: .*format\.none: ''"):
        check(load_config([tmp_path / "mine.yaml"], words))
    check(load_config([tmp_path / "mine.yaml"], [*words, "format.none=''"]))


@needs_classes
def test_columns_without_a_name_are_no_ids(tmp_path: Path, project: Path) -> None:
    draw(tmp_path, *(f"train_images/a{k}.png" for k in range(4)), "test_images/b.png")
    write(tmp_path / "train.csv", ",Id,Category", *(f"{k},a{k}.png,{k % 2 + 3}" for k in range(4)))
    write(tmp_path / "sample_submission.csv", ",Id,Category", "0,b.png,3")
    _, values = printed(tmp_path, project)
    assert values["format"]["train"] == {"keys": {"Id": "{image_id}"}, "column": "Category"}


@needs_boxes
def test_boxes_in_shares_and_in_strings_are_told_by_their_values(tmp_path: Path, project: Path) -> None:
    for folder in (tmp_path / "shares", tmp_path / "strings"):
        draw(folder, "train_images/a.jpg", "train_images/b.jpg", "test_images/c.jpg")
    shares = ("a,/m/1,0.1,0.5,0.2,0.9", "b,/m/2,0,1,0.25,0.75")
    write(tmp_path / "shares/train.csv", "ImageID,LabelName,XMin,XMax,YMin,YMax", *shares)
    write(tmp_path / "shares/sample_submission.csv", "ImageId,PredictionString", "c,/m/1 0.9 0.46 0.08 0.93 0.5")
    _, values = printed(tmp_path / "shares", project)
    assert (values["format"]["class_id"], values["format"]["units"]) == ("LabelName", "shares")
    write(tmp_path / "strings/train.csv", "image_id,labels", "a,U+306F 1 2 10 9 U+3070 5 5 4 4", "b,")
    write(tmp_path / "strings/sample_submission.csv", "image_id,labels", "c,U+003F 1 1 U+FF2F 2 2")
    form = (recognise("detection", Data(dir=tmp_path / "strings")) or {})["format"]
    assert form["box_string"] == "class box"
    assert form["submission"]["layout"] == "cxcy"
    lines, values = printed(tmp_path / "strings", project)
    if "points" in task_names():  # a known competition's, whose host counts points, before boxes of the same strings
        assert (values["base"], values["format"]) == ("points.yaml", "kuzushiji")
        assert "#   box_string: class box" in lines
    else:
        assert values["format"] == form


@needs_boxes
def test_a_box_outside_its_image_is_told_beside_those_inside(tmp_path: Path, project: Path) -> None:
    draw(tmp_path, "train_images/a.png", "train_images/b.png", "test_images/c.png")
    write(
        tmp_path / "train.csv", "image_id,class_id,x,y,w,h", "a.png,d,1,1,9,9", "a.png,d,90,90,5,5", "b.png,d,2,2,9,9"
    )
    write(tmp_path / "sample_submission.csv", "image_id,PredictionString", "c.png,")
    printed(tmp_path, project)
    report = check(load_config([tmp_path / "mine.yaml"], ["data.near_duplicates=false"]))
    assert any("1 boxes of 1 images lie outside their image" in line and "line 2" in line for line in report)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not a csv file: it is empty"),
        ("image_id,label\na,caf\xe9\n".encode("cp1252"), "not a csv file in UTF-8"),
        (b"image_id;label\na;0\n", "columns are separated by semicolons"),
    ],
)
def test_a_file_that_is_no_csv_is_told_for_the_true_reason(tmp_path: Path, content: bytes, told: str) -> None:
    for name in ("train.csv", "sample_submission.csv"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CompetitionError, match=told):
        recognise_folder([f"data.dir={tmp_path}"])


def test_files_that_are_there_are_named_where_one_is_missing(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "x")
    draw(tmp_path, "pictures/a.png")
    with pytest.raises(CompetitionError, match=r"train\.csv: no such file; .*; there are notes\.txt, pictures/"):
        recognise_folder([f"data.dir={tmp_path}"])


@needs_classes
@pytest.mark.parametrize("words", [("data.image_file={image_id}.png",), ("data.image_file={image_id}",)])
def test_a_pattern_needs_no_quotes_on_the_command_line(project: Path, words: Sequence[str]) -> None:
    config = load_config([project / "configs" / "classification.yaml"], list(words))
    assert config.data.image_file == words[0].partition("=")[2]


@needs_classes
def test_a_folder_at_home_is_found(project: Path) -> None:
    config = load_config([project / "configs" / "classification.yaml"], ["data.dir=~/somewhere"])
    assert config.data.dir == Path.home() / "somewhere"


def slices(folder: Path) -> None:
    """Write a competition of studies: a row a study, whose images lie in its folder, two of each of two scans."""
    names = [
        f"{part}/{one}/{scan}/{k}.png" for part, ids in STUDIES.items() for one in ids for scan in "ab" for k in "12"
    ]
    draw(folder, *names)
    write(folder / "train_labels.csv", "study,ill", *(f"{one},{k % 2}" for k, one in enumerate(STUDIES["train"])))
    write(folder / "sample_submission.csv", "study,ill", *(f"{one},0.5" for one in STUDIES["test"]))


STUDIES = {"train": [f"s{number}" for number in range(6)], "test": ["t0", "t1"]}


@needs_classes
def test_every_image_of_a_study_is_a_row_and_the_study_is_answered(tmp_path: Path, project: Path) -> None:
    slices(tmp_path)
    lines, _ = printed(tmp_path, project, "data.num_folds=2")
    config = load_config([tmp_path / "mine.yaml"], [])
    task = Task(config.task)
    table = task.table.read_table(config)
    assert table.image_ids.tolist() == [
        f"{one}/{scan}/{k}.png" for one in STUDIES["train"] for scan in "ab" for k in "12"
    ]
    assert [table.target(row, 24, 24)["labels"].tolist() for row in range(24)] == [
        [bool(k % 2)] for k in range(6) for _ in range(4)
    ]
    tests = task.submission.read_test_ids(config, table.classes).tolist()
    assert tests == [f"{one}/{scan}/{k}.png" for one in STUDIES["test"] for scan in "ab" for k in "12"]
    answers = [(one, {"probabilities": np.array([number / 10], np.float32)}) for number, one in enumerate(tests)]
    task.submission.write_submission(tmp_path / "mine.csv", config, answers, table.classes)
    written = [line.split(",") for line in (tmp_path / "mine.csv").read_text().split()[1:]]
    assert [(one, pytest.approx(float(ill))) for one, ill in written] == [("t0", 0.15), ("t1", 0.55)]
    make_folds(config)
    folds = read_folds(config, table).reshape(6, 4)
    assert (folds == folds[:, :1]).all()
    assert len(set(folds[:, 0])) == 2
    assert not [line for line in lines if "data.group" in line]  # nothing to be told: they stay together


@needs_classes
def test_an_image_of_many_that_an_id_names_is_told_of(tmp_path: Path, project: Path) -> None:
    slices(tmp_path)
    words = ["data.num_folds=2", "data.train_csv=train_labels.csv", "data.image_file={image_id}/a/1.png"]
    printed(tmp_path, project, *words)
    said = check(load_config([tmp_path / "mine.yaml"], ["data.near_duplicates=false"]))
    (warning,) = [line for line in said if "of an id is read" in line]
    assert warning.startswith("warning: 1 of 4 images")
    assert str(tmp_path / "train/s0/a/1.png") in warning


@needs_classes
@pytest.mark.parametrize(
    ("csv", "pattern", "told"),
    [
        (["study,ill", "s0,1", "s9,0"], "train/{study}/*/*.png", "1 of 2 rows have no file, as s9"),
        (["study,ill", "s0,1", "s0,0"], "train/{study}/*/*.png", "rows s0 stand twice"),
        (["study,ill", "s0,1"], "train/{one}/*/*.png", "expected a column of the table as a field, as {study}"),
    ],
)
def test_rows_and_files_that_do_not_meet_are_told(tmp_path: Path, csv: list[str], pattern: str, told: str) -> None:
    slices(tmp_path)
    write(tmp_path / "train.csv", *csv)
    with pytest.raises(CompetitionError) as error:
        read_csv(tmp_path / f"train.csv & {pattern}", ["path"])
    assert told in str(error.value)


@needs_classes
def test_channels_are_counted_wherever_an_array_has_them(tmp_path: Path, project: Path) -> None:
    for number, name in enumerate(both := [f"train/{k}/{k}a.npy" for k in "abcd"] + ["test/e/ea.npy", "test/f/fa.npy"]):
        (tmp_path / name).parent.mkdir(parents=True)
        np.save(tmp_path / name, np.random.default_rng(number).random((6, 27, 25)).astype(np.float32) * number)
    write(tmp_path / "train.csv", "id,target", *(f"{Path(name).stem},{k % 2}" for k, name in enumerate(both[:4])))
    write(tmp_path / "sample_submission.csv", "id,target", "ea,0.5", "fa,0.5")
    _, values = printed(tmp_path, project, "data.num_folds=2")
    assert (values["data"]["channels"], values["data"]["image_file"]) == (6, "{image_id[0]}/{image_id}.npy")
    assert len(values["data"]["mean"]) == len(values["data"]["std"]) == 6
