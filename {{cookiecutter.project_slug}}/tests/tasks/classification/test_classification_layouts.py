"""Layouts of train.csv and of the submission: read, written and read back, and what is refused, with file and row."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.config.loading import validate
from competition.data.folds import make_folds, read_folds
from competition.support.errors import CompetitionError
from competition.tasks.classification.decode import decode
from competition.tasks.classification.kinds.tables import ClassificationTable, MultiLabelTable, RegressionTable
from competition.tasks.classification.score import evidence as evidence_for
from competition.tasks.classification.score import scores
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.submission import (
    perfect_answer,
    read_submission,
    read_test_ids,
    rows,
    write_submission,
)
from competition.tasks.classification.table import read_table
from competition.tasks.contract import Target

evidence = partial(evidence_for, metrics=())

some = settings(max_examples=25, deadline=None)
CLASSES = ("10", "a", "b", "c")
LONG = {"ID": "{image_id}_{class_id}"}
ROWS: dict[str, Any] = {
    "target": "multi",
    "train": {"keys": LONG, "layout": "rows"},
    "submission": {"layout": "rows"},
}
MULTI: dict[str, Any] = {"target": "multi", "train": {"layout": "columns"}}


def config_of(folder: Path, form: dict[str, Any], **sections: Any) -> TaskConfig:
    target = form.get("target", "single")
    metrics = {"single": ["accuracy"], "multi": ["micro_f1"], "regression": ["rmse"]}[target]
    values = {"name": "t", "task": "classification", "metrics": metrics, "format": form, **sections}
    values["data"] = {"dir": str(folder)} | values.get("data", {})
    config = validate(values, {}, "test")
    assert isinstance(config, TaskConfig)
    return config


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def answers_back(folder: Path, config: TaskConfig, answers: Sequence[tuple[str, Target]]) -> list[tuple[str, Target]]:
    write_submission(folder / "s.csv", config, answers, CLASSES)
    return list(read_submission(folder / "s.csv", config, CLASSES, {}))


# What train.csv says.


def test_a_column_a_class_is_one_label_or_several(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "image_id,patient,a,b", "x,p,0,1", "y,p,1,0")
    data = {"classes": ["a", "b"]}
    single = read_table(config_of(tmp_path, {"train": {"layout": "columns"}}, data=data))
    assert isinstance(single, ClassificationTable)
    assert single.labels.tolist() == [1, 0]
    multi = read_table(config_of(tmp_path, MULTI, data=data))
    assert isinstance(multi, MultiLabelTable)
    assert multi.labels.tolist() == [[False, True], [True, False]]
    assert multi.amounts().tolist() == [1, 1]


def test_columns_of_classes_are_those_of_the_sample_or_all_but_ids_and_groups(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "image_id,age,patient,a,b", "x,7,p,0,1", "y,8,p,1,1")
    write(tmp_path / "sample_submission.csv", "image_id,a,b", "z,0,0")
    assert read_table(config_of(tmp_path, MULTI)).classes == ("a", "b")
    (tmp_path / "sample_submission.csv").unlink()
    write(tmp_path / "train.csv", "image_id,patient,a,b", "x,p,0,1", "y,p,1,1")
    assert read_table(config_of(tmp_path, MULTI, data={"group": "patient"})).classes == ("a", "b")


def test_a_row_an_image_and_class_may_stand_in_any_order_and_twice(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "ID,Label", "x_1_b,1", "y_b,0", "x_1_a,0", "y_a,1", "y_a,1")
    table = read_table(config_of(tmp_path, {**ROWS, "train": {**ROWS["train"], "column": "Label"}}))
    assert table.image_ids.tolist() == ["x_1", "y"]
    assert table.lines.tolist() == [2, 3]
    assert table.present().tolist() == [[False, True], [True, False]]


def test_labels_with_blanks_between_them_and_a_word_for_none(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "image_id,label", "x,9 10", "y,nothing", "z,9")
    table = read_table(config_of(tmp_path, {"target": "multi", "train": {"layout": "label_string"}, "none": "nothing"}))
    assert table.classes == ("9", "10")
    assert table.present().tolist() == [[True, True], [False, False], [True, False]]
    assert table.summary() == ["images: 9 2, 10 1", "images without a class: 1"]


def test_labels_parted_by_a_bar_are_read_and_handed_in_so(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "image_id,label", "x,Pleural Mass|Hernia", "y,None", "z,Hernia | Pleural Mass")
    write(tmp_path / "sample_submission.csv", "image_id,label", "u,None", "v,None")
    layout = {"layout": "label_string", "separator": "|"}
    form = {"target": "multi", "train": layout, "submission": {"layout": "label_string"}, "none": "None"}
    config = config_of(tmp_path, form)
    table = read_table(config)
    assert table.classes == ("Hernia", "Pleural Mass")
    assert table.present().tolist() == [[True, True], [False, False], [True, True]]
    truths = [(name, perfect_answer(table.target(row, 9, 9), 2)) for row, name in enumerate("uv")]
    write_submission(tmp_path / "s.csv", config, truths, table.classes)
    assert (tmp_path / "s.csv").read_text().splitlines() == ["image_id,label", "u,Hernia|Pleural Mass", "v,None"]
    (_, both), (_, none) = read_submission(tmp_path / "s.csv", config, table.classes, {})
    assert (both["labels"].tolist(), none["labels"].tolist()) == ([True, True], [False, False])


def test_true_and_false_of_a_spreadsheet_are_yes_and_no(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "image_id,a", "x,TRUE", "y,FALSE")
    assert read_table(config_of(tmp_path, MULTI)).present().tolist() == [[True], [False]]


def test_a_column_without_a_name_is_handed_in_as_the_sample_has_it(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ",image_id,label", "0,x,a", "1,y,b")
    write(tmp_path / "sample_submission.csv", ",image_id,label", "7,u,a", "9,v,a")
    config = config_of(tmp_path, {"submission": {"layout": "label"}})
    table = read_table(config)
    truths = [(name, perfect_answer(table.target(row, 9, 9), 2)) for row, name in enumerate("uv")]
    assert read_test_ids(config, table.classes).tolist() == ["u", "v"]
    write_submission(tmp_path / "s.csv", config, truths, table.classes)
    assert (tmp_path / "s.csv").read_text().splitlines() == [",image_id,label", "7,u,a", "9,v,b"]


def test_the_known_classes_part_an_id_they_hold_the_separator_of(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "image_id,all_of_it,of_it,C1", "a_1,1,1,0", "b,0,0,0")
    lines = [f"{one}_{name},0.5" for one in ("c_2", "d") for name in ("C1", "all_of_it", "of_it")]
    write(tmp_path / "sample_submission.csv", "row_id,answer", *lines)
    submission = {"keys": {"row_id": "{image_id}_{class_id}"}, "layout": "rows"}
    classes = ["all_of_it", "of_it", "C1"]
    config = config_of(tmp_path, {**MULTI, "submission": submission}, data={"classes": classes})
    assert read_test_ids(config, classes).tolist() == ["c_2", "d"]


def test_numbers_are_binned_for_folds(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "image_id,score", *(f"i{n},{n / 2}" for n in range(40)))
    form = {"target": "regression", "train": {"layout": "columns"}}
    table = read_table(config_of(tmp_path, form))
    assert isinstance(table, RegressionTable)
    assert table.target(3, 9, 9)["value"].tolist() == [1.5]
    assert np.bincount(table.strata()).tolist() == [4] * 10
    assert table.amounts().max() == 19.5


@pytest.mark.parametrize(
    ("form", "lines", "message"),
    [
        (MULTI, ("image_id,a,b", "x,0,1", "y,0,2"), "line 3: found '2'; expected 0 or 1 in column b"),
        (MULTI, ("image_id,a,b", "x,0,1", "x,0,1"), "line 3: found 'x'; a second row"),
        (
            {"train": {"layout": "columns"}},
            ("image_id,a,b", "x,0,1", "y,1,1"),
            "line 3: found 'y'; expected 1 in exactly one of the classes a, b",
        ),
        (
            {"target": "multi", "train": {"layout": "label_string"}},
            ("image_id,label", "x,a b", "y,"),
            "line 3: found 'y'; this image has no label",
        ),
        (
            {"target": "multi", "train": {"layout": "label_string"}},
            ("image_id,label", "x,a b", "y,a b a"),
            "line 3: found 'a b a'; a label stands twice",
        ),
        (
            {"target": "multi", "train": {"layout": "label_string"}},
            ("image_id,label", "x,a", "y,b", "z,a|b"),
            "line 4: found 'a|b'; expected labels with ' ' between them; where '|' parts them: format.train.separator",
        ),
        (
            {"target": "multi", "train": {"layout": "label_string"}, "none": "nothing"},
            ("image_id,label", "x,a", "y,nothing", "z,a nothing"),
            "format.none: 'nothing' is a class, too",
        ),
        (
            {"target": "regression", "train": {"layout": "columns"}, "bounds": [1, 100]},
            ("image_id,score", "x,1", "y,101"),
            "line 3: found '101'; expected a number from 1 to 100",
        ),
        (
            {"target": "regression", "train": {"layout": "columns"}},
            ("image_id,score", "x,1", "y,nan"),
            "line 3: found 'nan'; expected a number",
        ),
        (
            ROWS,
            ("ID,label", "x_a,1", "x_b,1", "y_a,1"),
            "line 4: found 'y'; class b of this image has no row",
        ),
        (
            ROWS,
            ("ID,label", "x_a,1", "x_b,1", "x_a,0"),
            "line 2: found '1'; another row of this image and class differs",
        ),
        (
            ROWS,
            ("ID,label", "x_a,1", "xb,1"),
            "line 3: found 'xb'; expected '{image_id}_{class_id}'",
        ),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, form: dict[str, Any], lines: tuple[str, ...], message: str) -> None:
    path = write(tmp_path / "train.csv", *lines)
    with pytest.raises(CompetitionError) as caught:
        read_table(config_of(tmp_path, form))
    assert f"{path}: {message}" in str(caught.value)


# What the submission says.

SUBMISSIONS = {
    "columns": ({}, "image_id,b,a,10,c", "{0},0,0,0,0"),
    "decision": ({"submission": {"value": "decision"}}, "image_id,b,a,10,c", "{0},0,0,0,0"),
    "rows": (
        {"submission": {"keys": LONG, "layout": "rows"}},
        "ID,Value",
        "\n".join(f"{{0}}_{name},0.5" for name in ("b", "10", "a", "c")),
    ),
    "label": ({"submission": {"layout": "label"}}, "label, image_id", "a,{0}"),
    "label_string": ({"submission": {"layout": "label_string"}}, "image_id,tags", "{0},a"),
    "top": ({"submission": {"layout": "top", "top": 3}}, "image_id,best", "{0},a b c"),
}
LABELS = st.lists(st.lists(st.booleans(), min_size=4, max_size=4).filter(any), min_size=1, max_size=5)


@given(labels=LABELS)
@some
@pytest.mark.parametrize("layout", ["columns", "decision", "rows", "label_string"])
def test_several_labels_an_image_survive_the_way(
    tmp_path_factory: pytest.TempPathFactory, layout: str, labels: list[list[bool]]
) -> None:
    folder = tmp_path_factory.mktemp("s")
    form, header, line = SUBMISSIONS[layout]
    ids = [f"i_{number}" for number in range(len(labels))]
    write(folder / "sample_submission.csv", header, *(line.format(image_id) for image_id in ids))
    config = config_of(folder, {**MULTI, **form})
    assert read_test_ids(config, CLASSES).tolist() == ids
    answers = [
        (image_id, perfect_answer({"labels": np.array(row)}, 4)) for image_id, row in zip(ids, labels, strict=True)
    ]
    back = answers_back(folder, config, answers)
    assert [image_id for image_id, _ in back] == ids
    assert [answer["labels"].tolist() for _, answer in back] == labels
    first = (folder / "s.csv").read_text().splitlines()[0]
    assert first == header


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=5))
@some
@pytest.mark.parametrize("layout", ["columns", "decision", "rows", "label", "top"])
def test_one_label_an_image_survives_the_way(
    tmp_path_factory: pytest.TempPathFactory, layout: str, labels: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("s")
    form, header, line = SUBMISSIONS[layout]
    ids = [f"i_{number}" for number in range(len(labels))]
    write(folder / "sample_submission.csv", header, *(line.format(image_id) for image_id in ids))
    config = config_of(folder, form)
    assert read_test_ids(config, CLASSES).tolist() == ids
    truths = [{"label": label} for label in labels]
    answers = [(image_id, perfect_answer(truth, 4)) for image_id, truth in zip(ids, truths, strict=True)]
    back = answers_back(folder, config, answers)
    gathered = [evidence(answer, truth) for (_, answer), truth in zip(back, truths, strict=True)]
    assert scores(gathered, ["accuracy", "map5"], 4) == {"accuracy": 1, "map5": 1}


@given(values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5))
@some
def test_numbers_survive_the_way(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    folder = tmp_path_factory.mktemp("s")
    ids = [f"i{number}" for number in range(len(values))]
    write(folder / "sample_submission.csv", "image_id,predicted score", *(f"{image_id},0" for image_id in ids))
    config = config_of(folder, {"target": "regression", "train": {"layout": "columns"}})
    answers = [(image_id, {"value": np.array([value])}) for image_id, value in zip(ids, values, strict=True)]
    write_submission(folder / "s.csv", config, answers, ("score",))
    back = [answer["value"][0] for _, answer in read_submission(folder / "s.csv", config, ("score",), {})]
    np.testing.assert_allclose(back, values, rtol=1e-6)


@pytest.mark.parametrize(
    ("layout", "target", "text", "message"),
    [
        ("label", "single", "d", "column label: found 'd', expected one of the classes 10, a, b, c"),
        ("label_string", "multi", "a d", "'d' is not one of the classes"),
        ("label_string", "multi", "a a", "a class stands twice"),
        ("label_string", "multi", "", "expected classes with blanks between them"),
        ("top", "single", "a b c 10", "expected 1 to 3 classes"),
        ("top", "single", "a a", "a class stands twice"),
    ],
)
def test_a_wrong_cell_is_named_with_file_and_row(
    tmp_path: Path, layout: str, target: str, text: str, message: str
) -> None:
    form, header, line = SUBMISSIONS[layout]
    write(tmp_path / "sample_submission.csv", header, line.format("i"))
    train = {"layout": "label_string"} if target == "multi" else {}
    config = config_of(tmp_path, {"target": target, "train": train, **form})
    wrong = f"{text},j" if layout == "label" else f"j,{text}"
    path = write(tmp_path / "s.csv", header, line.format("i"), wrong)
    with pytest.raises(CompetitionError) as caught:
        list(read_submission(path, config, CLASSES, {}))
    assert str(caught.value).startswith(f"{path}: line 3: column ")
    assert message in str(caught.value)


def test_classes_are_handed_in_under_other_names_and_as_boxes_of_the_whole_image(tmp_path: Path) -> None:
    write(tmp_path / "sample_submission.csv", "image_id,said", "x,no 1 0 0 1 1", "y,no 1 0 0 1 1")
    form: dict[str, Any] = {"submission": {"layout": "boxes", "names": {"10": "no", "a": "mass"}}}
    config = config_of(tmp_path, form)
    said = np.array([[0.5, 0.25, 0.125, 0.125], [0, 0, 1, 0]], dtype=np.float32)
    back = answers_back(tmp_path, config, [(one, decoded(config, *p)) for one, p in zip("xy", said, strict=True)])
    assert (tmp_path / "s.csv").read_text().splitlines()[1] == (
        "x,no 0.5 0 0 1 1 mass 0.25 0 0 1 1 b 0.125 0 0 1 1 c 0.125 0 0 1 1"
    )
    np.testing.assert_array_equal([answer["probabilities"] for _, answer in back], said)
    for text, told in (
        ("10 1 0 0 1 1", "'10' is not one of the classes no, mass, b, c"),
        ("no 1 0 0 9 9", "expected `class probability 0 0 1 1` for each class"),
        ("no 2 0 0 1 1", "expected probabilities from 0 to 1"),
    ):
        write(tmp_path / "s.csv", "image_id,said", f"x,{text}")
        with pytest.raises(CompetitionError) as caught:
            list(read_submission(tmp_path / "s.csv", config, CLASSES, {}))
        assert told in str(caught.value)
    write(tmp_path / "sample_submission.csv", "image_id,no,a,b,c", "x,0,0,0,1", "y,0,0,0,1")
    columns = config_of(tmp_path, {"submission": {"names": {"10": "no"}}})
    answers_back(tmp_path, columns, [(one, decoded(config, *p)) for one, p in zip("xy", said, strict=True)])
    assert (tmp_path / "s.csv").read_text().splitlines()[0] == "image_id,no,a,b,c"
    with pytest.raises(
        CompetitionError, match=r"format\.submission\.names: 'd' is no class; expected some of 10, a, b, c"
    ):
        read_test_ids(config_of(tmp_path, {"submission": {"names": {"d": "no"}}}), CLASSES)


def test_a_sample_without_a_row_for_each_class_is_refused(tmp_path: Path) -> None:
    form, header, _ = SUBMISSIONS["rows"]
    config = config_of(tmp_path, {**MULTI, **form})
    path = write(tmp_path / "sample_submission.csv", header, *(f"x_{name},0" for name in CLASSES), "y_a,0")
    with pytest.raises(CompetitionError, match="line 6: found 'y'; this image lacks rows"):
        read_test_ids(config, CLASSES)
    write(path, header, *(f"x_{name},0" for name in ("a", "a", "d")))
    with pytest.raises(
        CompetitionError, match=r"line 4: found 'd'; expected a class[\s\S]*line 3: found 'x'; a second"
    ):
        read_test_ids(config, CLASSES)


def decoded(config: TaskConfig, *probabilities: float) -> Target:
    return decode({"probabilities": np.array(probabilities, dtype=np.float32)}, 9, 9, config)


def test_a_label_string_has_what_passes_its_threshold_else_the_best_or_the_word_for_none(tmp_path: Path) -> None:
    write(tmp_path / "sample_submission.csv", "image_id,tags", "x,a", "y,a", "z,a")
    form = {"target": "multi", "train": {"layout": "label_string"}, "submission": {"layout": "label_string"}}
    decode_by = {"thresholds": [0.5, 0.5, 0.2, 0.9]}
    given = ((0.6, 0.1, 0.3, 0.8), (0.1, 0.4, 0.19, 0.8), (0.0, 0.1, 0.1, 0.1))
    for none, expected in ((None, ["10 b", "b", "b"]), ("-", ["10 b", "-", "-"])):
        config = config_of(tmp_path, {**form, "none": none}, decode=decode_by)
        answers = [(name, decoded(config, *row)) for name, row in zip("xyz", given, strict=True)]
        write_submission(tmp_path / "s.csv", config, answers, CLASSES)
        assert [line.split(",")[1] for line in (tmp_path / "s.csv").read_text().splitlines()[1:]] == expected
        assert len(list(read_submission(tmp_path / "s.csv", config, CLASSES, {}))) == 3


def test_a_new_class_stands_before_those_that_are_not_likely(tmp_path: Path) -> None:
    write(tmp_path / "sample_submission.csv", "image_id,best", "x,a b c", "y,a b c")
    form = {"submission": {"layout": "top", "top": 3}, "new": "new_one"}
    config = config_of(tmp_path, form, decode={"new_threshold": 0.3})
    answers = [("x", decoded(config, 0.05, 0.5, 0.35, 0.1)), ("y", decoded(config, 0.25, 0.29, 0.2, 0.26))]
    assert [row[1] for row in rows(config, answers, CLASSES)[1]] == ["a b new_one", "new_one a c"]
    back = dict(answers_back(tmp_path, config, answers))
    gathered = [evidence(back["x"], {"label": 2}), evidence(back["y"], {"label": -1})]
    assert scores(gathered, ["map5"], 4) == {"map5": pytest.approx((1 / 2 + 1) / 2)}


def test_a_quantile_is_that_of_the_whole_set(tmp_path: Path) -> None:
    write(tmp_path / "sample_submission.csv", "image_id,a", *(f"{name},0" for name in "vwxyz"))
    form = {**MULTI, "submission": {"value": "decision"}}
    config = config_of(tmp_path, form, decode={"quantile": 0.6}, data={"classes": ["a"]})
    given = (0.1, 0.3, 0.2, 0.15, 0.05)
    answers = [(name, decoded(config, p)) for name, p in zip("vwxyz", given, strict=True)]
    assert [row[1] for row in rows(config, answers, ["a"])[1]] == ["0", "1", "1", "0", "0"]
    truth = [{"labels": np.array([number in (1, 2)])} for number in range(5)]
    gathered = [evidence(answer, one) for (_, answer), one in zip(answers, truth, strict=True)]
    assert scores(gathered, ["micro_f1", "pf1"], 1) == {"micro_f1": 1, "pf1": 1}


def grouped(folder: Path, join: str = "mean", **form: Any) -> TaskConfig:
    write(folder / "train.csv", "patient,side,image_id,a", "p,L,i,1", "p,L,j,1", "p,R,k,0")
    write(folder / "test.csv", "patient,side,image_id", "q,L,u", "q,R,v", "q,L,w")
    write(folder / "sample_submission.csv", "prediction_id,a", "q_R,0.5", "q_L,0.5")
    keys = {"prediction_id": "{image_id}"}
    form = {**MULTI, "submission": {"keys": keys, **form}, "group": "{patient}_{side}", "join": join}
    return config_of(folder, form, data={"classes": ["a"]})


@pytest.mark.parametrize(("join", "joined"), [("mean", 0.375), ("max", 0.5)])
def test_images_of_a_group_are_answered_and_scored_as_one(tmp_path: Path, join: str, joined: float) -> None:
    config = grouped(tmp_path, join)
    assert read_test_ids(config, ["a"]).tolist() == ["v", "u", "w"]
    answers = [(name, decoded(config, p)) for name, p in (("v", 0.25), ("u", 0.25), ("w", 0.5))]
    write_submission(tmp_path / "s.csv", config, answers, ["a"])
    assert (tmp_path / "s.csv").read_text().splitlines() == ["prediction_id,a", "q_R,0.25", f"q_L,{joined}"]
    back = list(read_submission(tmp_path / "s.csv", config, ["a"], {}))
    assert [name for name, _ in back] == ["v", "u", "w"]
    table = read_table(config)
    assert [table.target(row, 9, 9)["group"] for row in range(3)] == ["p_L", "p_L", "p_R"]
    gathered = [evidence(answer, table.target(2 - row, 9, 9)) for row, (_, answer) in enumerate(answers)]
    # Two groups, not three images: p_R has .25 and no cancer, p_L what its two images have together.
    right = float(joined >= 0.5)
    assert scores(gathered, ["accuracy"], 1) == {"accuracy": (1 + right) / 2}


def test_numbers_scored_by_kappa_are_handed_in_whole(tmp_path: Path) -> None:
    write(tmp_path / "sample_submission.csv", "image_id,a", "x,0", "y,0", "z,0")
    form = {"target": "regression", "train": {"layout": "columns"}}
    predicted = {"x": 2.37, "y": 0.2, "z": -0.3}
    for metric, expected in (("qwk", ["2", "0", "0"]), ("rmse", ["2.37", "0.2", "-0.3"])):
        config = config_of(tmp_path, form, metrics=[metric], data={"classes": ["a"]})
        answers = [(name, decode({"values": np.array([v])}, 9, 9, config)) for name, v in predicted.items()]
        assert [row[1] for row in rows(config, answers, ["a"])[1]] == expected
    undecoded: list[tuple[str, Target]] = [("x", {"value": np.array([1.7])})]  # the mean, to compare with
    assert [row[1] for row in rows(config_of(tmp_path, form, metrics=["qwk"]), undecoded, ["a"])[1]] == ["2"]


def test_numbers_of_a_group_are_joined_before_they_are_made_whole(tmp_path: Path) -> None:
    form = grouped(tmp_path).format.model_dump() | {"target": "regression"}
    config = config_of(tmp_path, form, metrics=["qwk", "rmse"], data={"classes": ["a"]})
    predicted = {"v": 3.2, "u": 0.4, "w": 1.4}  # u and w are of one group, as i and j are
    answers = [(name, decode({"values": np.array([v])}, 9, 9, config)) for name, v in predicted.items()]
    assert [row[1] for row in rows(config, answers, ["a"])[1]] == ["3", "1"]
    truths = [{"value": np.array([value]), "group": name} for name, value in (("r", 3.0), ("l", 1.0), ("l", 1.0))]
    gathered = [evidence(answer, truth) for (_, answer), truth in zip(answers, truths, strict=True)]
    assert scores(gathered, config.metrics, 1) == {"qwk": 1, "rmse": 0}


def test_images_that_are_answered_as_one_are_never_split_over_folds(tmp_path: Path) -> None:
    config = grouped(tmp_path)
    names = [(f"p{number // 4}", "LR"[number // 2 % 2], number) for number in range(24)]  # 6 patients, 12 groups of 2
    write(config.train_csv, "patient,side,image_id,a", *(f"{p},{side},{n},{n % 2}" for p, side, n in names))
    make_folds(config)
    folds = read_folds(config, read_table(config))
    assert len({(*name[:2], fold) for name, fold in zip(names, folds.tolist(), strict=True)}) == 12
    write(tmp_path / "folds.csv", "image_id,fold", *(f"{number},{number % 5}" for number in range(24)))
    with pytest.raises(CompetitionError, match=r"'0' \(fold 0\) and '1' \(fold 1\) are of one group .*format\.group"):
        read_folds(config, read_table(config))


def test_files_that_name_different_groups_are_refused(tmp_path: Path) -> None:
    config = grouped(tmp_path)
    write(tmp_path / "sample_submission.csv", "prediction_id,a", "q_R,0.5", "r_L,0.5")
    with pytest.raises(CompetitionError) as caught:
        read_test_ids(config, ["a"])
    first, second = str(caught.value).splitlines()
    assert "line 3: found 'r_L'" in first
    assert "1 groups, as 'q_L', have no row" in second


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metrics": ["rmse"]}, r'metrics: found \["rmse"\]; rmse cannot score format.target single'),
        ({"metrics": ["pf1"], "format": {"target": "single"}}, "pf1 cannot score format.target single; expected some"),
        ({"loss": {"bce": 1}}, "loss.bce cannot learn format.target single; expected some of cross_entropy, focal"),
        ({"format": {"target": "multi"}, "metrics": ["macro_f1"]}, "format.train.layout label is for .* single"),
        ({"format": {"submission": {"layout": "rows"}}}, "format.submission.layout rows needs {class_id}"),
        ({"format": {"bounds": [1, 2]}}, "format.bounds are lowest and highest number"),
        ({"format": {"submission": {"layout": "top"}}, "metrics": ["log_loss"]}, "log_loss needs probabilities"),
        ({"decode": {"quantile": 0.9}}, "decode.quantile is for format.target multi"),
        ({"decode": {"thresholds": 0}}, "decode.thresholds: found 0; expected greater than 0"),
        ({"format": "casava"}, "'?\"?casava\"? is no format this project knows; did you mean 'cassava'"),
    ],
)
def test_a_config_that_cannot_work_is_refused_when_it_is_read(values: dict[str, Any], message: str) -> None:
    form = values.get("format", {})
    values = {**values, "format": {"like": form} if isinstance(form, str) else form}
    with pytest.raises(CompetitionError, match=message) as caught:
        validate({"name": "t", "task": "classification", **values}, {}, "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_list_of_thresholds_of_another_length_is_refused(tmp_path: Path) -> None:
    form = {**MULTI, "submission": {"value": "decision"}}
    config = config_of(tmp_path, form, decode={"thresholds": [0.5, 0.4]})
    with pytest.raises(CompetitionError, match=r"decode\.thresholds: found 2 values for 3 classes"):
        decoded(config, 0.1, 0.2, 0.3)
