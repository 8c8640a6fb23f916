"""train.csv of a segmentation competition: rows become masks, faults name file and line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from competition.config.loading import validate
from competition.support.errors import CompetitionError
from competition.tasks.segmentation.settings import SegmentationDecode, TaskConfig
from competition.tasks.segmentation.table import SegmentationTable, read_table
from hypothesis import given, settings
from hypothesis import strategies as st

HEADER = "image_id,class_id,rle"


def config(folder: Path, **data: Any) -> TaskConfig:
    plain = {"name": "t", "task": "segmentation", "data": {"dir": str(folder), **data}}
    made = validate(plain, {}, "test")
    assert isinstance(made, TaskConfig)
    return made


def read(folder: Path, *rows: str, header: str = HEADER, **data: Any) -> SegmentationTable:
    (folder / "train.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return read_table(config(folder, **data))


def faults(folder: Path, *rows: str, header: str = HEADER, **data: Any) -> list[str]:
    with pytest.raises(CompetitionError) as caught:
        read(folder, *rows, header=header, **data)
    return str(caught.value).splitlines()


def test_rows_become_a_mask_per_class(tmp_path: Path) -> None:
    table = read(tmp_path, "a.png,cat,1 2", "a.png,dog,3 1")
    mask = table.target(0, 2, 2)["mask"]
    assert mask.shape == (2, 2, 2)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask[:, :, 0], [[1, 0], [1, 0]])
    np.testing.assert_array_equal(mask[:, :, 1], [[0, 1], [0, 0]])


@pytest.mark.parametrize("number", [1, 128, 130])
def test_any_number_of_classes_has_masks(number: int, tmp_path: Path) -> None:
    """OpenCV joins no more than 128."""
    mask = read(tmp_path, *(f"a,{name},{name % 6 + 1} 1" for name in range(number))).target(0, 2, 3)["mask"]
    assert mask.shape == (2, 3, number)
    places = [int(mask[:, :, row].T.argmax()) for row in range(number)]
    assert places == [name % 6 for name in range(number)]
    assert mask.sum() == number


def test_masks_are_empty_where_there_is_no_row_or_no_rle(tmp_path: Path) -> None:
    table = read(tmp_path, "a,cat,1 2", "b,cat,", "b,dog,", "c,,", "d,dog,1 1")
    sums = [table.target(i, 2, 2)["mask"].sum(axis=(0, 1)).tolist() for i in range(4)]
    assert sums == [[2, 0], [0, 0], [0, 0], [0, 1]]


def test_several_rows_of_an_image_and_class_are_united(tmp_path: Path) -> None:
    table = read(tmp_path, "a,cat,1 2", "b,cat,4 1", "a,cat,2 2")  # apart, and overlapping in one pixel
    np.testing.assert_array_equal(table.target(0, 2, 2)["mask"][:, :, 0], [[1, 1], [1, 0]])
    np.testing.assert_array_equal(table.target(1, 2, 2)["mask"][:, :, 0], [[0, 0], [0, 1]])


def test_images_come_in_order_of_first_appearance_with_their_lines(tmp_path: Path) -> None:
    table = read(tmp_path, "b,cat,", "b,dog,", "a,cat,", "b,cat,", "007,cat,")
    assert table.image_ids.tolist() == ["b", "a", "007"]
    assert table.lines.tolist() == [2, 4, 6]


def test_numbers_are_sorted_as_numbers_and_names_as_text(tmp_path: Path) -> None:
    assert read(tmp_path, "a,10,", "a,9,", "b,2,").classes == ("2", "9", "10")
    assert read(tmp_path, "a,b10,", "a,b9,", "b,a,").classes == ("a", "b10", "b9")


def test_listed_classes_keep_their_order_and_may_lack_examples(tmp_path: Path) -> None:
    table = read(tmp_path, "a,cat,1 1", classes=["dog", "cat", "owl"])
    assert table.classes == ("dog", "cat", "owl")
    assert table.target(0, 2, 2)["mask"].sum(axis=(0, 1)).tolist() == [0, 1, 0]


@given(st.permutations(["a,1,1 1", "a,2,", "b,01,2 1", "c,nan,3 1", "c,10,", "d,2,4 1"]))
@settings(max_examples=25, deadline=None)
def test_the_order_of_classes_does_not_depend_on_the_order_of_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str]
) -> None:
    first = read(tmp_path_factory.mktemp("one"), *sorted(rows))
    assert read(tmp_path_factory.mktemp("other"), *rows).classes == first.classes


@given(st.permutations(["a,cat,1 2", "a,cat,7 2", "a,dog,", "b,dog,5 3", "b,cat,", "c,,"]))
@settings(max_examples=25, deadline=None)
def test_masks_do_not_depend_on_the_order_of_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[str]) -> None:
    def masks(table: SegmentationTable) -> dict[str, list[Any]]:
        return {name: table.target(i, 3, 4)["mask"].tolist() for i, name in enumerate(table.image_ids)}

    first = read(tmp_path_factory.mktemp("one"), *sorted(rows))
    assert masks(read(tmp_path_factory.mktemp("other"), *rows)) == masks(first)


def test_images_with_the_same_classes_share_a_stratum(tmp_path: Path) -> None:
    table = read(tmp_path, "a,x,1 1", "b,y,1 1", "c,x,2 1", "c,y,", "d,x,1 1", "d,y,1 1", "e,x,")
    a, b, c, d, e = table.strata().tolist()
    assert a == c
    assert len({a, b, d, e}) == 4


def test_many_classes_still_give_strata(tmp_path: Path) -> None:
    table = read(tmp_path, *(f"i{i},c{i:03},1 1" for i in range(80)), "none,c000,")
    assert len(set(table.strata()[:80].tolist())) == 1
    assert table.strata()[80] != table.strata()[0]


def test_masks_of_an_image_and_class_in_several_rows_are_told(tmp_path: Path) -> None:
    *_, told = read(tmp_path, "a,cat,1 2", "a,dog,3 1", "b,cat,", "a,cat,5 1", "b,cat,1 1", "a,cat,7 1").summary()
    assert told.startswith("warning: 2 rows have a mask for an image and class that has one already, first on line 5;")


def test_the_summary_counts_masks_and_empty_images(tmp_path: Path) -> None:
    table = read(tmp_path, "a,cat,1 1", "a,dog,2 1", "b,cat,1 1", "c,dog,")
    assert table.summary() == ["masks: cat 2, dog 1", "images without any mask: 1 of 3"]


@pytest.mark.parametrize(
    ("rows", "line", "words"),
    [
        (("a,cat,1 1", ",cat,1 1"), 3, ["image_id is empty"]),
        (("a,cat,1 1", "b,cat,", "c,,1 1"), 4, ["without a class"]),
        (("a,cat,1 1", "b,cow,1 1"), 3, ["'cow'", "data.classes", "cat, dog"]),
    ],
)
def test_faults_name_file_line_and_what_was_expected(
    tmp_path: Path, rows: tuple[str, ...], line: int, words: list[str]
) -> None:
    (message,) = faults(tmp_path, *rows, classes=["cat", "dog"])
    assert message.startswith(f"{tmp_path / 'train.csv'}: line {line}: ")
    assert all(word in message for word in words)


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    lines = faults(tmp_path, ",cat,1 1", "a,cow,1 1", "b,,1 1", classes=["cat"])
    assert [line.split(": ")[1] for line in lines] == ["line 2", "line 3", "line 4"]


def test_many_faults_of_a_kind_are_cut_short(tmp_path: Path) -> None:
    lines = faults(tmp_path, *(f"a{i},cow,1 1" for i in range(100)), classes=["cat"])
    assert len(lines) < 30
    assert "80 more" in lines[-1]


@pytest.mark.parametrize(
    ("rle", "reason"), [("1 2 3", "pairs"), ("1 99", "length"), ("4 2", "pixels"), ("x y", "numbers")]
)
def test_malformed_run_lengths_are_named_when_the_size_is_known(tmp_path: Path, rle: str, reason: str) -> None:
    table = read(tmp_path, "a,cat,1 1", f"b,cat,{rle}")
    with pytest.raises(CompetitionError, match=reason) as caught:
        table.target(1, 2, 2)
    assert str(caught.value).startswith(f"{tmp_path / 'train.csv'}: line 3: rle: ")


def test_malformed_run_lengths_in_several_rows_of_an_image_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError) as caught:
        read(tmp_path, "a,cat,1", "b,cat,1 1", "a,dog,x").target(0, 2, 3)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["line 2", "line 4"]


def test_a_missing_column_is_named_with_those_there(tmp_path: Path) -> None:
    (message,) = faults(tmp_path, "a,1 1", header="image_id,EncodedPixels")
    assert str(tmp_path / "train.csv") in message
    assert "'class_id' is missing" in message
    assert "EncodedPixels" in message


def test_files_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    assert "no row" in faults(tmp_path)[0]
    assert "no row has a class" in faults(tmp_path, "a,,")[0]
    (tmp_path / "train.csv").write_text("")
    with pytest.raises(CompetitionError, match="not a csv file"):
        read_table(config(tmp_path))
    (tmp_path / "train.csv").unlink()
    with pytest.raises(CompetitionError, match="no such file"):
        read_table(config(tmp_path))


def test_columns_that_are_not_asked_for_do_no_harm(tmp_path: Path) -> None:
    table = read(tmp_path, "1 1,x,a,cat", header="rle,patient,image_id,class_id")
    assert table.target(0, 2, 2)["mask"].sum() == 1


def test_settings_of_another_number_of_classes_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("image_id,class_id,rle\na,cat,1 1\na,dog,2 1\n")
    made = config(tmp_path).model_copy(update={"decode": SegmentationDecode(min_area=[1, 2, 3])})
    with pytest.raises(CompetitionError, match=r"decode\.min_area: found 3 values; .* one a class of 2: cat, dog"):
        read_table(made)


def test_amounts_are_the_pixels_of_an_image(tmp_path: Path) -> None:
    table = read(tmp_path, "a,cat,1 2 5 1", "b,cat,", "a,dog,7 4")
    assert table.amounts().tolist() == [7, 0]
    with pytest.raises(CompetitionError, match=r"line 3: rle: expected pairs"):
        read(tmp_path, "a,cat,1 2", "b,cat,1 2 3").amounts()


@pytest.mark.parametrize("empty", ["", "nan", "NaN", "-1"])
def test_an_empty_mask_may_be_written_in_several_ways(tmp_path: Path, empty: str) -> None:
    form = {"train": {"keys": {"id": "{image_id}"}, "mask": "EncodedPixels"}, "rle": {"empty": "-1"}}
    (tmp_path / "train.csv").write_text(f"id, EncodedPixels\na, 1 2\nb, {empty}\n")
    plain = {"name": "t", "task": "segmentation", "data": {"dir": str(tmp_path)}, "format": form}
    table = read_table(validate(plain, {}, "test"))
    assert table.classes == ("object",)
    assert table.present().tolist() == [[True], [False]]
    assert table.target(1, 2, 3)["mask"].sum() == 0


def test_a_solution_of_positives_only_has_the_test_images_without_a_row(tmp_path: Path) -> None:
    (tmp_path / "test_images").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "test_images" / name).touch()
    path = tmp_path / "solution.csv"
    path.write_text("image_id,class_id,rle\nb.png,cat,1 2\n")
    plain = {"name": "t", "task": "segmentation", "data": {"dir": str(tmp_path), "absent_images": "empty"}}
    assert read_table(validate(plain, {}, "test"), path).image_ids.tolist() == ["b.png", "a.png"]


def test_images_without_a_row_may_count_as_empty(tmp_path: Path) -> None:
    (tmp_path / "train_images").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "train_images" / name).touch()
    assert read(tmp_path, "b.png,cat,1 2").image_ids.tolist() == ["b.png"]
    table = read(tmp_path, "b.png,cat,1 2", absent_images="empty")
    assert table.image_ids.tolist() == ["b.png", "a.png", "c.png"]
    assert table.lines.tolist() == [2, 0, 0]
    assert table.amounts().tolist() == [2, 0, 0]
    assert table.target(2, 3, 4)["mask"].shape == (3, 4, 1)
