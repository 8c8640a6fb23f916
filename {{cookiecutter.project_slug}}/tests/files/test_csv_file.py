"""Reading csv files: text columns, the order of classes, and faults with file and line."""

import contextlib
import csv
import io
import os
import shlex
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from competition.files.csv_file import (
    BEGINNING,
    MOST_LINES,
    LongTexts,
    group_by_image,
    line,
    read_csv,
    read_header,
    resolve_classes,
    row_faults,
)
from competition.support.errors import CompetitionError

COLUMNS = ("image_id", "label")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.csv"


def refusal(path: Path) -> str:
    with pytest.raises(CompetitionError) as refused:
        read_csv(path, COLUMNS)
    return str(refused.value)


def test_fields_are_text_as_written_and_empty_ones_are_empty_text(path: Path) -> None:
    path.write_text("image_id,other,label\n007,x,1.50\nNA,x,\nnull,x,None\n")
    frame = read_csv(path, ("label", "image_id"))
    assert list(frame.columns) == ["label", "image_id"]
    assert frame["image_id"].tolist() == ["007", "NA", "null"]
    assert frame["label"].tolist() == ["1.50", "", "None"]


def test_a_file_of_a_spreadsheet_reads_like_any_other(path: Path) -> None:
    path.write_bytes('\ufeffimage_id,label\r\n"a,b.png",é\r\n'.encode())
    assert read_csv(path, COLUMNS).to_numpy().tolist() == [["a,b.png", "é"]]


def test_a_missing_file_is_named_with_the_columns_it_should_have(path: Path) -> None:
    assert refusal(path) == f"{path}: no such file; expected columns image_id,label"


def test_a_missing_column_is_named_with_those_that_are_there(path: Path) -> None:
    path.write_text("image_id,Label\na,b\n")
    assert refusal(path) == f"{path}: column 'label' is missing; found image_id,Label, expected image_id,label"


def test_a_column_that_only_looks_like_the_one_asked_for_is_told(path: Path) -> None:
    path.write_text(f"image_id,{unicodedata.normalize('NFD', 'Grüne')}\na,b\n", encoding="utf-8")
    with pytest.raises(CompetitionError, match=r"it has 'Grüne' with accents as characters of their own"):
        read_csv(path, ["image_id", "Grüne"])


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_are_told_with_the_line_that_writes_commas(path: Path, separator: str, name: str) -> None:
    path.write_text(f"image_id{separator}label\na,b{separator}1\n007{separator}NA\n")
    told = refusal(path)
    assert told.startswith(f"{path}: columns are separated by {name}, found 'image_id")
    assert "\n" not in told
    subprocess.run([sys.executable, *shlex.split(told.partition("anew: python ")[2])], check=True)
    assert read_csv(path, COLUMNS).to_numpy().tolist() == [["a,b", "1"], ["007", "NA"]]


def test_a_header_alone_is_refused(path: Path) -> None:
    path.write_text("image_id,label\n")
    assert refusal(path) == f"{path}: has a header but no row"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"image_id,label\n\xff\xfe,b\n",
        b'image_id,label\na,"b\n',
        b"image_id,label\na,b\na,b,c,d\n",
        b"PK\x03\x04\0\0",
    ],
    ids=["empty", "no utf-8", "open quote", "too many fields", "zip file"],
)
def test_what_is_no_csv_file_is_refused_by_name_in_one_line(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def test_a_folder_in_the_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()
    assert refusal(path).startswith(f"{path}: no such file")


def test_faults_name_the_line_as_an_editor_counts_it(path: Path) -> None:
    path.write_text("image_id,label\na,x\nb,y\nb,z\n")
    ids = read_csv(path, COLUMNS)["image_id"]
    faults = row_faults(path, np.flatnonzero(ids.duplicated()), ids, "a second row")
    assert faults == [f"{path}: line 4: found 'b'; a second row"]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("image_id,label\na,x\nb,y", [2, 3]),
        ("image_id,label\na,x\nb,y\n\n\n", [2, 3]),
        ("image_id,label\n\na,x\n\n\nb,y\n", [3, 6]),
        ('image_id,label\n"a\n\n2",x\nb,y\n', [2, 5]),
        ('"image_id",label\r\n\r\n"a\r\n2",x\r\n\r\nb,"y\r\n"\r\nc,z\r\n', [3, 6, 8]),
    ],
    ids=["no last break", "blank at the end", "blank between", "break in quotes", "both, of Windows"],
)
def test_blank_lines_and_line_breaks_in_quotes_are_counted(path: Path, content: str, lines: list[int]) -> None:
    path.write_bytes(content.encode())
    frame = read_csv(path, COLUMNS)
    assert [line(row) for row in frame.index] == lines
    assert row_faults(path, [1], frame["label"], "bad")[0].startswith(f"{path}: line {lines[1]}: found 'y")


@pytest.mark.parametrize(
    "content",
    [
        "image_id,label\na,x\nb,y",
        "image_id,label\n\na, x \n\n\nb,y\n\n",
        '"image_id",label\r\n\r\n"a\r\n2",x\r\n\r\nb,"y, ""1"" \r\n"\r\nc,z\r\n',
        "label,image_id\n,a\n\u00e9,b\n",
        "image_id,label\ra,x\rb,y\r",
        f'\ufeffimage_id,label\na,{"1 2 " * 50_000}\nb,"{"x" * 200_000}"\n',
    ],
    ids=["no last break", "blank lines", "line breaks in quotes", "first column", "lone returns", "long"],
)
def test_long_texts_are_those_of_the_file_whole(path: Path, content: str) -> None:
    path.write_bytes(content.encode())
    whole, beginnings = read_csv(path, COLUMNS), read_csv(path, COLUMNS, long="label")
    texts = LongTexts(path, "label", beginnings.index)
    assert [texts[row] for row in range(len(whole))] == whole["label"].tolist()
    assert beginnings["label"].tolist() == [text[:BEGINNING] for text in whole["label"]]
    assert beginnings.drop(columns="label").equals(whole.drop(columns="label"))


def test_reading_beginnings_refuses_what_reading_all_refuses(path: Path) -> None:
    for content in ("image_id,label\n", "image_id,label\na,b\na,b,c,d\n", 'image_id,label\na,"b\n'):
        path.write_text(content)
        with pytest.raises(CompetitionError) as refused:
            read_csv(path, COLUMNS, long="label")
        assert str(refused.value) == refusal(path)


PIECES = st.sampled_from(
    [
        "image_id",
        "label",
        "a",
        "1",
        "\u00e9",
        ",",
        ",",
        ",",
        "\n",
        "\n",
        "\r\n",
        "\r",
        '"',
        '""',
        " ",
        "\t",
        ";",
        "\0",
        "\x0c",
        "\u2028",
    ]
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=8).map("".join))
def test_column_names_are_those_that_pandas_finds(path: Path, text: str) -> None:
    path.write_bytes(f"a{text}\n1,2\n".encode())
    try:
        found = read_header(path)
    except CompetitionError:
        return
    with contextlib.suppress(ValueError):  # of what stands in later lines
        assert found == list(map(str, pd.read_csv(path, nrows=0).columns))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.booleans(), st.lists(PIECES, max_size=40), st.integers(0, 3))
def test_any_file_is_read_as_pythons_reader_does_or_refused_in_lines_that_name_it(
    path: Path, has_header: bool, pieces: list[str], junk: int
) -> None:
    text = "image_id,label\n" * has_header + "".join(pieces)
    path.write_bytes(text.encode() + b"\xff" * (junk == 3))
    told = None
    try:
        frame = read_csv(path, COLUMNS)
    except CompetitionError as error:
        told = str(error)
    if told is not None:
        assert all(one.startswith(f"{path}: ") for one in told.split("\n"))
        return
    rows = [
        row
        for row in csv.reader(io.StringIO(text, newline=""))
        if len(row) > 1 or row == [""] or "".join(row).strip(" \t")
    ]
    header, *rows = rows
    places = [[name.strip() for name in header].index(column) for column in COLUMNS]
    assert all(len(row) == len(header) for row in rows)
    assert frame.to_numpy().tolist() == [[row[place] for place in places] for row in rows]
    texts = LongTexts(path, "label", read_csv(path, COLUMNS, long="label").index)
    assert [texts[row] for row in range(len(frame))] == frame["label"].tolist()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("image_id,label\na,x\nb\n\nc,z\nd,1,2\n", {3: 1, 6: 3}),
        ("image_id,label\n\na\n", {3: 1}),
        ('image_id,label\n"a\n,",x\n"b,c"\n', {4: 1}),
        ("image_id,label\r\na,x\r\nb,y,\r\n", {3: 3}),
        ("image_id,label\n" + "a,b\n" * 400_000 + "c\n", {400_002: 1}),
    ],
    ids=["plain", "after a blank", "quoted", "of Windows", "far below"],
)
def test_every_row_of_too_few_or_too_many_fields_is_told_with_its_line(
    path: Path, content: str, told: dict[int, int]
) -> None:
    path.write_bytes(content.encode())
    found = refusal(path).splitlines()
    assert [line.partition(";")[0] for line in found] == [
        f"{path}: line {number}: has {fields} fields" for number, fields in told.items()
    ]


def test_many_uneven_rows_are_cut_short_and_counted(path: Path) -> None:
    path.write_text("image_id,label\n" + "a\n" * 50)
    found = refusal(path).splitlines()
    assert len(found) == MOST_LINES + 1
    assert found[-1] == f"{path}: and 30 more lines like the last"


@pytest.mark.parametrize(
    "content",
    [
        b"\0" * (5 << 20),
        b"image_id,label\n" + b"\0" * (5 << 20),
        "image_id,label\na,b\n".encode("utf-16"),
        b"x" * (5 << 20),
        b"a," * 1_000_000,
    ],
    ids=["zeros", "zeros below a header", "utf-16", "one long line", "a million columns"],
)
def test_what_would_take_long_or_much_memory_is_refused_at_once(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    started = time.process_time()
    assert refusal(path).startswith(f"{path}: ")
    assert time.process_time() - started < 2


@pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
def test_a_device_or_a_pipe_in_the_place_of_the_file_is_refused_not_read(path: Path, target: str) -> None:
    if target == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    assert refusal(path).startswith(f"{path}: ")
    with pytest.raises(CompetitionError, match="a pipe or a device"):
        read_header(path)


def test_many_faults_of_a_kind_are_cut_short_and_counted(path: Path) -> None:
    column = pd.Series([""] * (MOST_LINES + 7))
    faults = row_faults(path, range(MOST_LINES + 7), column, "is empty", show_found=False)
    assert faults[0] == f"{path}: line 2: is empty"
    assert len(faults) == MOST_LINES + 1
    assert faults[-1] == f"{path}: and 7 more lines like the last"


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "9", "", "2", "10"], ("2", "9", "10")),
        (["1.5", "-3", "01"], ("-3", "01", "1.5")),
        (["cat", "10", "9"], ("10", "9", "cat")),
        (["b", "A", "a"], ("A", "a", "b")),
        (["", ""], ()),
    ],
)
def test_classes_are_sorted_as_numbers_where_all_are_and_as_text_otherwise(
    path: Path, labels: list[str], classes: tuple[str, ...]
) -> None:
    assert resolve_classes(pd.Series(labels), None, path) == (classes, [])


@given(st.lists(st.sampled_from(["nan", "1", "01", "1.0", "10", "inf", "b"]), unique=True).flatmap(st.permutations))
def test_the_order_of_classes_does_not_depend_on_the_order_of_rows(labels: list[str]) -> None:
    first, second = (resolve_classes(pd.Series(rows, dtype=str), None, Path("x")) for rows in (labels, sorted(labels)))
    assert first == second


def test_listed_classes_keep_their_order_and_other_labels_are_faults_with_their_line(path: Path) -> None:
    classes, faults = resolve_classes(pd.Series(["a", "c", "", "b"]), ["b", "a", "d"], path)
    assert classes == ("b", "a", "d")
    assert faults == [f"{path}: line 3: found 'c'; expected one of data.classes: b, a, d"]


@given(st.lists(st.sampled_from("abcde"), min_size=1))
def test_images_are_numbered_in_order_of_first_appearance(ids: list[str]) -> None:
    codes, first = group_by_image(pd.Series(ids))
    order = list(dict.fromkeys(ids))
    assert [order[code] for code in codes] == ids
    assert first.tolist() == [ids.index(image_id) for image_id in order]
