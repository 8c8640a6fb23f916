"""Tables that are no csv file give the same columns of text as a csv file of their rows does."""

import gzip
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from competition.files.csv_file import LongTexts, line, read_csv, read_header
from competition.files.joined_tables import state_of_table, table_files, table_name
from competition.support.errors import CompetitionError

CSV = 'id,label,"n, m"\na,cat,1\nb,"cat, dog",\nc,,2.5\n'
RECORDS = [
    {"id": "a", "label": "cat", "n, m": 1},
    {"id": "b", "label": "cat, dog", "n, m": None},
    {"id": "c", "label": "", "n, m": 2.5},
]


def as_json(path: Path) -> None:
    path.write_text(json.dumps(RECORDS))


def as_lines(path: Path) -> None:
    path.write_text("\n".join(map(json.dumps, RECORDS)))


def as_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t.csv", CSV)
        archive.writestr("__MACOSX/._t.csv", "x")


def as_gz(path: Path) -> None:
    path.write_bytes(gzip.compress(CSV.encode()))


@pytest.mark.parametrize(
    ("name", "write"), [("t.json", as_json), ("t.jsonl", as_lines), ("t.csv.zip", as_zip), ("t.csv.gz", as_gz)]
)
def test_any_kind_of_table_reads_as_the_csv_file_of_its_rows(tmp_path: Path, name: str, write: object) -> None:
    assert callable(write)
    write(tmp_path / name)
    (tmp_path / "t.csv").write_text(CSV)
    columns = ["n, m", "id", "label"]
    pd.testing.assert_frame_equal(
        read_csv(tmp_path / name, columns).reset_index(drop=True),
        read_csv(tmp_path / "t.csv", columns).reset_index(drop=True),
    )
    assert read_header(tmp_path / name) == read_header(tmp_path / "t.csv")
    assert LongTexts(tmp_path / name, "label", pd.RangeIndex(3))[1] == "cat, dog"
    with pytest.raises(CompetitionError, match="column 'what' is missing; found id,label"):
        read_csv(tmp_path / name, ["what"])


def test_a_row_of_a_json_table_is_told_by_its_place_and_of_a_packed_csv_by_its_line(tmp_path: Path) -> None:
    as_json(tmp_path / "t.json")
    as_zip(tmp_path / "t.csv.zip")
    assert line(read_csv(tmp_path / "t.json", ["id"]).index).tolist() == [1, 2, 3]
    assert line(read_csv(tmp_path / "t.csv.zip", ["id"]).index).tolist() == [2, 3, 4]


def test_images_annotations_and_categories_become_a_row_an_annotation(tmp_path: Path) -> None:
    values = {
        "images": [{"id": 7, "file_name": "a/7.jpg", "width": 64}, {"id": 8, "file_name": "a/8.jpg", "width": 32}],
        "annotations": [
            {"id": 0, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3.5, 4]},
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [0, 0, 9, 9]},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
        "info": {},
    }
    (tmp_path / "coco.json").write_text(json.dumps(values))
    found = read_csv(tmp_path / "coco.json", ["image_id", "file_name", "width", "category_id", "category_name", "bbox"])
    assert found.to_numpy().tolist() == [
        ["7", "a/7.jpg", "64", "3", "cat", "[1, 2, 3.5, 4]"],
        ["7", "a/7.jpg", "64", "5", "dog", "[0, 0, 9, 9]"],
        ["8", "a/8.jpg", "32", "", "", ""],
    ]


def coco(**changed: list[dict[str, Any]]) -> str:
    """Return COCO's json of two images, each with a box."""
    values = {
        "images": [{"id": 7, "file_name": "a/7.jpg"}, {"id": 8, "file_name": "a/8.jpg"}],
        "annotations": [{"id": 10 + k, "image_id": 7 + k, "category_id": 3, "bbox": [1, 2, 3, 4]} for k in range(2)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
    }
    return json.dumps({key: [*records, *changed.get(key, [])] for key, records in values.items()})


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            {"images": [{"id": 8, "file_name": "a/8.jpg"}]},
            "images: found id 8 2 times, of a/8.jpg, a/8.jpg; expected every id once, 1 stand again",
        ),
        ({"images": [{"id": 7, "file_name": "b.jpg"}] * 2}, "images: found id 7 3 times, of a/7.jpg, b.jpg, b.jpg; "),
        ({"categories": [{"id": 5, "name": "cow"}]}, "categories: found id 5 2 times, of dog, cow; "),
        (
            {"annotations": [{"id": 12, "image_id": 9}, {"image_id": 11}]},
            "annotation 12: found image_id 9, which is not listed in images, as in 2 of 4 annotations; expected one of "
            "7, 8: list it there",
        ),
        ({"annotations": [{"category_id": 3}]}, "coco.json: found image_id missing, which is not listed in images"),
        (
            {"annotations": [{"id": 12, "image_id": 7, "category_id": 4}]},
            "annotation 12: found category_id 4, which is not listed in categories, as in 1 of 3 annotations; expected "
            "one of 3, 5: list it there",
        ),
    ],
)
def test_ids_of_coco_that_stand_twice_or_lead_nowhere_are_refused_in_a_line(
    tmp_path: Path, more: dict[str, list[dict[str, Any]]], told: str
) -> None:
    path = write(tmp_path / "coco.json", coco(**more))
    with pytest.raises(CompetitionError) as refused:
        read_csv(path, ["image_id"])
    assert str(refused.value).startswith(f"{path}: ")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("ids", [str, float])
def test_ids_of_coco_are_the_same_as_numbers_and_as_text(tmp_path: Path, ids: type) -> None:
    note = {"image_id": ids(8), "category_id": 5, "bbox": []}
    write(tmp_path / "coco.json", coco(annotations=[note, {"image_id": 7}]))
    found = read_csv(tmp_path / "coco.json", ["image_id", "category_id"])
    assert found.to_numpy().tolist() == [["7", "3"], ["7", ""], ["8", "3"], ["8", "5"]]


def test_folders_and_names_of_files_are_a_table_by_a_pattern(tmp_path: Path) -> None:
    others = ("cat/.x_4.png", ".ipynb_checkpoints/x_5.png")
    for name in ("cat/x_1.png", "dog/y_2.png", "dog/notes.txt", "dog/deep/z_3.png", *others):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = read_csv(tmp_path / "train" / "{label}" / "{name}_{number}.png", ["number", "label", "name", "path"])
    assert found.to_numpy().tolist() == [["1", "cat", "x", "cat/x_1.png"], ["2", "dog", "y", "dog/y_2.png"]]
    with pytest.raises(CompetitionError, match="names no file"):
        read_csv(tmp_path / "train" / "{label}.jpg", ["label"])
    with pytest.raises(CompetitionError, match="no such file; expected columns label"):
        read_csv(tmp_path / "gone" / "{label}.jpg", ["label"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.json", b"{"),
        ("t.json", b"[1, 2]"),
        ("t.json", b'{"a": 1}'),
        ("t.json", b"\xff\xfe"),
        ("t.jsonl", b'{"a": 1}\n['),
        ("t.csv.zip", b"PK no archive"),
        ("t.csv.gz", b"no archive"),
        ("t.csv.gz", gzip.compress(b"a,b\n1\n", mtime=0)),
        ("t.parquet", b"no parquet"),
    ],
)
def test_what_is_no_table_is_refused_in_a_line_that_names_it(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CompetitionError) as caught:
        read_csv(tmp_path / name, ["a"])
    assert str(caught.value).startswith(f"{tmp_path / name}: cannot be read as a table (")
    assert "\n" not in str(caught.value)


def test_where_a_table_is_missing_those_that_are_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "train_labels.csv").write_text("a\n1\n")
    with pytest.raises(CompetitionError, match=r"no such file; expected columns a; there are train_labels\.csv"):
        read_csv(tmp_path / "train.csv", ["a"])


def test_some_rows_of_a_table_are_told_by_what_a_column_holds(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,kind\na_study,1\nb_image,2\nc_study,3\n")
    some = read_csv(tmp_path / "t.csv where id=*_study", ["kind", "id"])
    assert some.to_numpy().tolist() == [["1", "a_study"], ["3", "c_study"]]
    assert line(some.index).tolist() == [2, 4]
    others = read_csv(tmp_path / "t.csv where id!=*_study", ["id"])
    assert others["id"].tolist() == ["b_image"]
    parted = tmp_path / "t.csv where id={study}_study"
    assert read_header(parted) == ["id", "kind", "study"]
    assert read_csv(parted, ["study"])["study"].tolist() == ["a", "c"]
    for name in ("train/a/1.png", "train/a/2.png", "train/c/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = read_csv(tmp_path / "t.csv where id={study}_study & train/{study}/*.png", ["path", "kind"])
    assert files.to_numpy().tolist() == [["a/1.png", "1"], ["a/2.png", "1"], ["c/1.png", "3"]]
    assert table_name(parted) == "t_where_id_study__study"
    as_json(tmp_path / "t.json")
    assert read_csv(tmp_path / "t.json where label!=cat", ["id"])["id"].tolist() == ["b", "c"]


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("kid=*", "column 'kid' is missing; found id,kind"),
        ("id=*_series", "no row of 1 is so, as id of the first is 'a_study'"),
        ("id={kind}_study", "found the field {kind}; expected"),
        ("id!={study}_study", "found the field {study}; expected"),
        ("id={study:0>5}_study", "found the field {study:0>5}; expected"),
    ],
)
def test_rows_that_no_table_has_are_told(tmp_path: Path, where: str, told: str) -> None:
    (tmp_path / "t.csv").write_text("id,kind\na_study,1\n")
    with pytest.raises(CompetitionError) as error:
        read_csv(tmp_path / f"t.csv where {where}", ["id"])
    assert told in str(error.value)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_another_table_adds_columns_by_those_that_both_have_or_that_are_said_to_be_equal(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", '\ufeffid, site,label\nb,1,cat\n"a",2,dog\nb,2,cat\n')
    write(tmp_path / "m.csv", "age,id\n7,a\n,c\n5,b\n")
    both = read_csv(tmp_path / "t.csv & m.csv", ["label", "age"])
    assert both.to_numpy().tolist() == [["cat", "5"], ["dog", "7"], ["cat", "5"]]
    assert line(both.index).tolist() == [2, 3, 4]  # where they stand in t.csv
    write(tmp_path / "n.csv", "label,name,where,mean\nx,a,1,0\ny,a,2,1\nz,b,1,2\nu,b,2,3\n")
    named = tmp_path / "t.csv & m.csv & n.csv on id=name, site = where"
    assert read_header(named) == ["id", "site", "label", "age", "mean"]
    assert read_csv(named, ["label", "mean"]).to_numpy().tolist() == [["cat", "2"], ["dog", "1"], ["cat", "3"]]
    assert table_name(named) == "t_m_n"
    assert LongTexts(named, "mean", pd.RangeIndex(3))[1] == "1"


def test_where_another_table_has_several_rows_to_one_each_is_a_row(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", "study,grade\ns1,0\ns2,1\n")
    series = [{"study": f"s{number // 2}", "series": number, "of": "xy"[number % 2]} for number in range(2, 7)]
    write(tmp_path / "series.json", json.dumps(series))
    each = read_csv(tmp_path / "t.csv & series.json", ["series", "grade"])
    assert each.to_numpy().tolist() == [["2", "0"], ["3", "0"], ["4", "1"], ["5", "1"]]
    for name in ("s1/2/a", "s1/2/b", "s1/3/a", "s2/4/a", "s2/5/a", "s3/6/a"):
        write(tmp_path / "images" / f"{name}.png", "")
    files = tmp_path / "t.csv & series.json where of=x & images/{study}/{series}/*.png"
    found = read_csv(files, ["path", "of", "grade"])
    assert found.to_numpy().tolist() == [["s1/2/a.png", "x", "0"], ["s1/2/b.png", "x", "0"], ["s2/4/a.png", "x", "1"]]
    assert table_files(files) == [tmp_path / "t.csv", tmp_path / "series.json"]
    before = state_of_table(files)
    write(tmp_path / "series.json", json.dumps([{"study": "s1"}]))
    assert state_of_table(files) != before


def test_a_table_is_known_anew_when_an_older_file_of_the_same_size_is_put_in_its_place(tmp_path: Path) -> None:
    both = tmp_path / "t.csv & m.csv"
    write(tmp_path / "t.csv", "id\na\n")
    write(tmp_path / "m.csv", "id,age\na,1\n")
    os.utime(tmp_path / "m.csv", ns=(2000, 2000))
    before = state_of_table(both)
    write(tmp_path / "m.csv", "id,age\na,2\n")
    os.utime(tmp_path / "m.csv", ns=(1000, 1000))
    assert state_of_table(both) != before


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("more.csv", "t.csv & more.csv: 1 of 3 rows have no row in more.csv, as c"),
        ("more.csv on id=age", "3 of 3 rows have no row in more.csv, as a"),
        ("more.csv on name", "column 'name' is missing in what stands before it; found id,label"),
        ("more.csv on id=name", "column 'name' is missing in more.csv; found id,age"),
        (
            "twice.csv on label=of",
            "rows cat stand twice; expected one each here, or in twice.csv, which has some twice",
        ),
        (
            "other.csv",
            "other.csv shares no column with what stands before it; name two, as '& other.csv on id=name'",
        ),
        ("gone.csv", "gone.csv: no such file; there are more.csv, other.csv, t.csv, twice.csv"),
        ("images/{id}.png & more.csv", "expected a pattern of files behind the tables that are joined to it"),
    ],
)
def test_tables_that_do_not_fit_each_other_are_told(tmp_path: Path, table: str, told: str) -> None:
    write(tmp_path / "t.csv", "id,label\na,cat\nb,dog\nc,cat\n")
    write(tmp_path / "more.csv", "id,age\na,1\nb,2\nd,2\n")
    write(tmp_path / "other.csv", "name\na\n")
    write(tmp_path / "twice.csv", "of\ncat\ncat\ndog\n")
    with pytest.raises(CompetitionError) as error:
        read_csv(tmp_path / f"t.csv & {table}", ["id"])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_and_files_with_an_ampersand_in_their_names_are_read_as_ever(tmp_path: Path) -> None:
    folder = tmp_path / "R & D v1.2 & more"
    write(folder / "t.csv", "id\na\n")
    write(folder / "m & n.csv", "id,age\na,1\n")
    write(folder / "images" / "a.png", "")
    for name in ("t.csv", "m & n.csv", "t.csv & images/{id}.png"):
        assert read_csv(folder / name, ["id"])["id"].tolist() == ["a"]
