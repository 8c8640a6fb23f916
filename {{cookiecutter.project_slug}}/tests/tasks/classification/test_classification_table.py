"""train.csv of a classification competition: rows become labels, faults name file and line."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import PROJECT

from competition.config.loading import load_config, validate
from competition.support.errors import CompetitionError
from competition.tasks.classification.kinds.tables import ClassificationTable
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.table import read_table


def read(folder: Path, *rows: str, header: str = "image_id,label", **data: Any) -> ClassificationTable:
    (folder / "train.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    config = validate({"name": "t", "task": "classification", "data": {"dir": str(folder), **data}}, {}, "test")
    assert isinstance(config, TaskConfig)
    table = read_table(config)
    assert isinstance(table, ClassificationTable)
    return table


def faults(folder: Path, *rows: str, header: str = "image_id,label", **data: Any) -> list[str]:
    with pytest.raises(CompetitionError) as caught:
        read(folder, *rows, header=header, **data)
    return str(caught.value).splitlines()


def labels(table: ClassificationTable) -> dict[str, str]:
    return {name: table.classes[table.target(i, 9, 9)["label"]] for i, name in enumerate(table.image_ids)}


def test_rows_become_class_numbers(tmp_path: Path) -> None:
    table = read(tmp_path, "b,dog", "a,cat", "007,dog")
    assert table.classes == ("cat", "dog")
    assert [table.target(i, 9, 9) for i in range(3)] == [{"label": 1}, {"label": 0}, {"label": 1}]
    assert table.image_ids.tolist() == ["b", "a", "007"]
    assert table.lines.tolist() == [2, 3, 4]


def test_numbers_are_sorted_as_numbers_and_names_as_text(tmp_path: Path) -> None:
    assert read(tmp_path, "a,10", "b,9", "c,-1").classes == ("-1", "9", "10")
    assert read(tmp_path, "a,10", "b,9", "c,none").classes == ("10", "9", "none")


NAMES = st.sampled_from(["1", "01", "1.0", "2", "10", "-1", "nan", "inf", "NA", "cat", "Dog", "a b", "é"])


@given(st.lists(NAMES, min_size=1, max_size=8), st.randoms())
@settings(max_examples=40, deadline=None)
def test_labels_survive_and_classes_do_not_depend_on_the_order_of_rows(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], random: Any
) -> None:
    rows = [f"i{i},{name}" for i, name in enumerate(names)]
    first = read(tmp_path_factory.mktemp("one"), *rows)
    assert labels(first) == {f"i{i}": name for i, name in enumerate(names)}
    random.shuffle(rows)
    other = read(tmp_path_factory.mktemp("other"), *rows)
    assert other.classes == first.classes
    assert labels(other) == labels(first)


def test_listed_classes_keep_their_order_and_may_lack_examples(tmp_path: Path) -> None:
    table = read(tmp_path, "a,cat", "b,dog", classes=["dog", "owl", "cat"])
    assert table.classes == ("dog", "owl", "cat")
    assert table.labels.tolist() == [2, 0]
    assert table.summary() == ["images: dog 1, owl 0, cat 1"]


def test_images_share_a_stratum_by_label(tmp_path: Path) -> None:
    a, b, c = read(tmp_path, "a,x", "b,y", "c,x").strata().tolist()
    assert a == c != b


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (",cat", ["image_id is empty"]),
        ("a,cat", ["'a'", "second row"]),
        ("b,", ["'b'", "no label"]),
        ("b,cow", ["'cow'", "data.classes", "cat, dog"]),
    ],
)
def test_faults_name_file_line_value_and_what_was_expected(tmp_path: Path, row: str, words: list[str]) -> None:
    (message,) = faults(tmp_path, "a,cat", row, classes=["cat", "dog"])
    assert message.startswith(f"{tmp_path / 'train.csv'}: line 3: ")
    assert all(word in message for word in words)


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    lines = faults(tmp_path, ",cat", "a,cat", "a,cat", "b,", "c,cow", classes=["cat"])
    assert sorted(line.split(": ")[1] for line in lines) == ["line 2", "line 4", "line 5", "line 6"]


def test_a_missing_column_is_named_with_those_there(tmp_path: Path) -> None:
    (message,) = faults(tmp_path, "a,1", header="image_id,target")
    assert str(tmp_path / "train.csv") in message
    assert "'label' is missing" in message
    assert "target" in message
    assert "no row" in faults(tmp_path)[0]


def test_files_of_the_same_name_in_two_folders_are_told_with_the_keys_that_read_them(tmp_path: Path) -> None:
    for name in ("cats/1.jpg", "cats/2.jpg", "dogs/1.jpg"):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).touch()
    words = [f"data.dir={tmp_path}", "data.train_images=train", "data.train_csv=train/{label}/{image_id}", "name=t"]

    def read_by(more: list[str]) -> ClassificationTable:
        config = load_config([PROJECT / "configs" / "classification.yaml"], [*words, *more])
        assert isinstance(config, TaskConfig)
        table = read_table(config)
        assert isinstance(table, ClassificationTable)
        return table

    with pytest.raises(CompetitionError, match=r"'1\.jpg'; a second row of this image; expected one: ") as refused:
        read_by([])
    told = re.findall(r"(data\.\w+|format\.[\w.]+): ('.+?'|\{.+?'\})(?:,|$)", str(refused.value))
    assert len(told) == 3
    table = read_by([f"{key}={value}" for key, value in told])
    assert table.image_ids.tolist() == ["cats/1.jpg", "cats/2.jpg", "dogs/1.jpg"]
    assert [table.classes[label] for label in table.labels] == ["cats", "cats", "dogs"]
