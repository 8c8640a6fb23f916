"""submission.csv of boxes: written and read back, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from competition.config.data_settings import Data
from competition.prediction.stored import PredictionWriter
from competition.runs.folder import Run
from competition.submission.submit import make_submission
from competition.support.errors import CompetitionError
from competition.tasks.contract import Target
from competition.tasks.detection.decode import decode
from competition.tasks.detection.score import evidence, scores
from competition.tasks.detection.settings import DetectionDecode, DetectionFormat, DetectionSubmission, TaskConfig
from competition.tasks.detection.submission import (
    id_columns,
    perfect_answer,
    read_submission,
    read_test_ids,
    write_submission,
)
from competition.tasks.detection.submission import rows as rows_of
from competition.tasks.detection.table import read_table
from hypothesis import example, given, settings
from hypothesis import strategies as st

CLASSES = ("cat", "dog")
CONFIG = TaskConfig(name="t", task="detection")
many = settings(max_examples=80, deadline=None)


def write(
    folder: Path, *rows: str, name: str = "sample_submission.csv", header: str = "image_id,PredictionString"
) -> Path:
    (folder / name).write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return folder / name


def config(folder: Path, **submission: Any) -> TaskConfig:
    form = DetectionFormat(submission=DetectionSubmission.model_validate(submission))
    return TaskConfig(name="t", task="detection", data=Data(dir=folder), format=form)


def answer(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Target:
    return {
        "bboxes": np.array(boxes, dtype=np.float32).reshape(-1, 4),
        "scores": np.array(scores, dtype=np.float32),
        "labels": np.array(labels, dtype=np.int64),
    }


def of_one_model(number: int) -> dict[str, np.ndarray]:
    return {"model": np.zeros(number, dtype=np.int16), "model_weights": np.ones(1, dtype=np.float32)}


def there_and_back(folder: Path, given_: Target, height: int, width: int, **submission: Any) -> Target:
    write(folder, "a,")
    made = config(folder, **submission)
    write_submission(folder / "s.csv", made, [("a", given_)], CLASSES)
    ((image_id, back),) = read_submission(folder / "s.csv", made, CLASSES, {"a": (height, width)})
    assert image_id == "a"
    return back


CORNER = st.floats(-0.2, 1.2)
BOX = st.tuples(CORNER, CORNER, CORNER, CORNER, st.floats(0, 1), st.integers(0, 1))


@given(st.lists(BOX, max_size=6), st.integers(1, 6000), st.integers(1, 6000))
@example([(0.10005, 0.0, 1.0, 1.0, 0.5, 0)], 100, 100)  # left edge and width are both rounded up
@example([(0.33335, 0.12345, 1.0, 1.0, 0.5, 0)], 4000, 5000)
@many
def test_whatever_is_decoded_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[float, float, float, float, float, int]],
    height: int,
    width: int,
) -> None:
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    prediction = {
        "boxes": table[:, :4] * np.array([width, height, width, height], dtype=np.float32),
        "scores": table[:, 4],
        "labels": table[:, 5].astype(np.int64),
        **of_one_model(len(table)),
    }
    given_ = decode(prediction, height, width, CONFIG)
    back = there_and_back(tmp_path_factory.mktemp("s"), given_, height, width)
    np.testing.assert_allclose(back["bboxes"], given_["bboxes"], atol=1e-3)
    np.testing.assert_array_equal(back["scores"], given_["scores"])
    np.testing.assert_array_equal(back["labels"], given_["labels"])


WRITTEN = st.fixed_dictionaries(
    {
        "with_class": st.booleans(),
        "class_as": st.sampled_from(["name", "index"]),
        "layout": st.sampled_from(["xywh", "xyxy"]),
        "decimals": st.integers(0, 3),
        "none": st.sampled_from(["", "14 1 0 0 1 1"]),
    }
)


@given(st.lists(BOX, max_size=5), st.integers(1, 3000), st.integers(1, 3000), WRITTEN)
@many
def test_every_way_of_writing_is_read_back_to_the_last_digit(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[float, float, float, float, float, int]],
    height: int,
    width: int,
    written: dict[str, Any],
) -> None:
    """Boxes out of the image, without area, or thinner than a digit are left out by the decoding, in this format."""
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    folder = tmp_path_factory.mktemp("s")
    prediction = {
        "boxes": table[:, :4] * np.array([width, height, width, height], dtype=np.float32),
        "scores": table[:, 4],
        "labels": table[:, 5].astype(np.int64) * written["with_class"],
        **of_one_model(len(table)),
    }
    given_ = decode(prediction, height, width, config(folder, **written))
    back = there_and_back(folder, given_, height, width, **written)
    np.testing.assert_allclose(back["bboxes"], given_["bboxes"], atol=1e-3)
    np.testing.assert_array_equal(back["scores"], given_["scores"])
    np.testing.assert_array_equal(back["labels"], given_["labels"])


@pytest.mark.parametrize("decimals", [0, 2])
def test_what_is_handed_in_scores_what_was_scored(decimals: int, tmp_path: Path) -> None:
    """Small boxes of which a whole pixel is much, and many scores that are told apart by their last digits."""
    rng = np.random.default_rng(decimals)
    made = config(tmp_path, decimals=decimals)
    made = made.model_copy(update={"decode": DetectionDecode(min_score=0, iou=1)})
    stored, handed_in = [], []
    for _ in range(20):
        true = rng.uniform(0, 80, size=(6, 4))
        true[:, 2:] = true[:, :2] + rng.uniform(3, 9, size=(6, 2))
        prediction = {
            "boxes": (true + rng.normal(0, 0.6, size=(6, 4))).astype(np.float32),
            "scores": rng.uniform(0, 1e-5, size=6).astype(np.float32),
            "labels": np.zeros(6, dtype=np.int64),
            **of_one_model(6),
        }
        truth = answer(true.tolist(), [1] * 6, [0] * 6)
        decoded = decode(prediction, 100, 100, made)
        stored.append(evidence(decoded, truth, ()))
        handed_in.append(evidence(there_and_back(tmp_path, decoded, 100, 100, decimals=decimals), truth, ()))
    assert scores(handed_in, ["map", "f2"], 2) == scores(stored, ["map", "f2"], 2)


def test_a_box_thinner_than_a_pixel_is_written_a_pixel_wide(tmp_path: Path) -> None:
    thin = answer([[0.2, 1.6, 0.4, 1.9], [9.7, 0, 10, 3]], [0.9, 0.8], [0, 0])
    back = there_and_back(tmp_path, thin, 3, 10, decimals=0)
    assert back["bboxes"].tolist() == [[0, 1, 1, 2], [9, 0, 10, 3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat 0.5 1 1 2 2", "expected `conf x1 y1 x2 y2` for each box, found 6 words"),
        ("0.5 1 1 2", "found 4 words"),
        ("0.5 5 1 2 2", "not inside the image of 20 x 10"),
        ("0.5 5 1 21 2", "not inside"),
        ("0.5 5 y 9 9", "'y'"),
        ("none", "found 1 words"),
    ],
)
def test_an_invalid_string_without_classes_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    made = config(tmp_path, with_class=False, layout="xyxy", none="- -")
    path = write(tmp_path, "a,- -", "", f"b,{text}", name="submission.csv")
    with pytest.raises(CompetitionError, match=message) as caught:
        list(read_submission(path, made, ("object",), dict.fromkeys("ab", (10, 20))))
    assert str(caught.value).startswith(f"{path}: line 4: PredictionString: ")


def test_the_header_is_that_of_the_sample_in_its_order_with_its_blanks(tmp_path: Path) -> None:
    write(tmp_path, ",a", header="answer, img")
    made = config(tmp_path, image_id="img", boxes="answer")
    write_submission(tmp_path / "s.csv", made, [("a", answer([[0, 0, 1, 1]], [0.5], [1]))], CLASSES)
    assert (tmp_path / "s.csv").read_text().splitlines() == ["answer, img", "dog 0.5 0.00 0.00 1.00 1.00,a"]
    assert read_test_ids(made, CLASSES).tolist() == ["a"]
    assert id_columns(made) == ["img"]


def test_a_column_too_many_in_the_sample_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a,,1", header="image_id,PredictionString,Usage")
    with pytest.raises(CompetitionError, match="'Usage' is not expected"):
        read_test_ids(config(tmp_path), CLASSES)


def test_classes_written_by_number_may_have_spaces(tmp_path: Path) -> None:
    write(tmp_path, "a,")
    made = config(tmp_path, class_as="index")
    assert read_test_ids(made, ("red cell", "white")).tolist() == ["a"]
    _, written = rows_of(made, [("a", answer([[0, 0, 1, 1]], [0.5], [1]))], ("red cell", "white"))
    assert list(written) == [["a", "1 0.5 0.00 0.00 1.00 1.00"]]


@given(st.integers(0, 2**20), st.integers(2, 3000))
@many
def test_boxes_that_touch_the_edges_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, seed: int, side: int
) -> None:
    start = np.random.default_rng(seed).uniform(0, side - 1, (20, 2)).astype(np.float32).tolist()
    boxes = [[x, y, float(side), float(side)] for x, y in start]
    back = there_and_back(tmp_path_factory.mktemp("s"), answer(boxes, [0.5] * 20, [0] * 20), side, side)
    assert len(back["bboxes"]) == 20


def test_the_string_is_class_score_and_left_top_width_height(tmp_path: Path) -> None:
    answers = [
        ("b", answer([[1, 2, 4, 6.5], [0, 0, 1, 1]], [0.9, 0.25], [1, 0])),
        ("a", answer([], [], [])),
    ]
    write(tmp_path, "b,", "a,")
    write_submission(tmp_path / "s.csv", config(tmp_path), answers, CLASSES)
    assert (tmp_path / "s.csv").read_text().splitlines() == [
        "image_id,PredictionString",
        "b,dog 0.9 1.00 2.00 3.00 4.50 cat 0.25 0.00 0.00 1.00 1.00",
        "a,",
    ]


def test_ids_come_in_the_order_of_the_sample(tmp_path: Path) -> None:
    write(tmp_path, "b,", "a,", "007,")
    assert read_test_ids(config(tmp_path), CLASSES).tolist() == ["b", "a", "007"]


def test_an_image_twice_in_the_sample_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "b,", "a,", "b,")
    with pytest.raises(CompetitionError, match=r"line 4: found 'b'"):
        read_test_ids(config(tmp_path), CLASSES)


def test_a_class_name_with_a_space_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    write(tmp_path, "a,")
    with pytest.raises(CompetitionError, match="'red cell'"):
        read_test_ids(config(tmp_path), ("red cell", "white"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat 0.5 1 1 2", "found 5 words"),
        ("cow 0.5 1 1 2 2", "'cow'.*cat, dog"),
        ("cat x 1 1 2 2", "'x'"),
        ("cat 0.5 1 y 2 2", "'y'"),
        ("cat nan 1 1 2 2", "nan"),
        ("cat inf 1 1 2 2", "inf"),
        ("cat 0.5 nan 1 2 2", "nan"),
        ("cat 0.5 1 1 inf 2", "inf"),
        ("cat 0.5 -1 1 2 2", "not inside the image of 20 x 10"),
        ("cat 0.5 1 1 0 2", "not inside"),
        ("cat 0.5 1 1 2 -2", "not inside"),
        ("cat 0.5 15 1 6 2", "not inside"),
        ("cat 0.5 1 5 2 6", "not inside"),
        ("cat 0.5 1 1 2 2 dog 0.5 19 1 2 2", r"19.*not inside"),
    ],
)
def test_an_invalid_string_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, "a,cat 0.5 1 1 2 2", f"b,{text}", name="submission.csv")
    with pytest.raises(CompetitionError, match=message) as caught:
        list(read_submission(path, CONFIG, CLASSES, dict.fromkeys("ab", (10, 20))))
    assert str(caught.value).startswith(f"{path}: line 3: ")


def test_an_image_that_is_not_asked_for_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a,", "other,", name="submission.csv")
    with pytest.raises(CompetitionError, match=r"line 3.*'other'"):
        list(read_submission(path, CONFIG, CLASSES, {"a": (10, 20)}))


def make_run(folder: Path, ids: list[str]) -> Run:
    """Make a run whose test.npz holds a box of each of `ids`."""
    write(folder, "a,", "b,")
    one = {
        "boxes": np.array([[1, 2, 9, 8]], np.float32),
        "scores": np.array([0.5], np.float32),
        "labels": np.array([1]),
        **of_one_model(1),
    }
    with PredictionWriter(folder) as writer:
        for image_id in ids:
            writer.add(image_id, 10, 20, one)
        writer.finish(folder / "test.npz", CLASSES)
    config = TaskConfig(name="t", task="detection", data=Data(dir=folder))
    return Run(folder, config, config)


def test_predictions_become_a_checked_file(tmp_path: Path) -> None:
    submission = make_submission(make_run(tmp_path, ["a", "b"]))
    assert submission.path.read_text().splitlines()[1:] == [f"{i},dog 0.5 1.00 2.00 8.00 6.00" for i in "ab"]


@pytest.mark.parametrize("ids", [["b", "a"], ["a"], ["a", "c"], ["a", "b", "c"]])
def test_predictions_of_other_images_are_refused_and_the_old_file_kept(tmp_path: Path, ids: list[str]) -> None:
    run = make_run(tmp_path, ids)
    (tmp_path / "submission.csv").write_text("old")
    with pytest.raises(CompetitionError, match="not those of"):
        make_submission(run)
    assert (tmp_path / "submission.csv").read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_shares_of_the_sides_are_handed_in_as_such_and_read_back_as_they_were_scored(tmp_path: Path) -> None:
    form = {"units": "shares", "submission": {"layout": "xyxy"}}
    made = TaskConfig(name="t", task="detection", data=Data(dir=tmp_path), format=DetectionFormat.model_validate(form))
    prediction = {
        "boxes": np.array([[12.345, 10, 150, 33.337]], dtype=np.float32),
        "scores": np.array([0.5], dtype=np.float32),
        "labels": np.array([1]),
        **of_one_model(1),
    }
    given_ = decode(prediction, 40, 200, made)
    write(tmp_path, "a,")
    write_submission(tmp_path / "s.csv", made, [("a", given_)], CLASSES)
    words = (tmp_path / "s.csv").read_text().splitlines()[1].split()
    np.testing.assert_allclose([float(word) for word in words[2:]], [0.06175, 0.25, 0.75, 0.8335], atol=1e-6)
    ((_, back),) = read_submission(tmp_path / "s.csv", made, CLASSES, {"a": (40, 200)})
    np.testing.assert_array_equal(back["bboxes"], given_["bboxes"])


def test_centres_alone_are_handed_in_without_confidence_and_read_back_where_they_are(tmp_path: Path) -> None:
    given_ = answer([[10, 20, 30, 50], [0, 0, 5, 4]], [0.9, 0.5], [1, 0])
    form = {"layout": "cxcy", "with_conf": False, "decimals": 0}
    back = there_and_back(tmp_path, given_, 60, 100, **form)
    assert (tmp_path / "s.csv").read_text().splitlines()[1] == "a,dog 20 35 cat 2 2"
    np.testing.assert_allclose((back["bboxes"][:, :2] + back["bboxes"][:, 2:]) / 2, [[20, 35], [2, 2]], atol=1e-3)
    assert back["labels"].tolist() == [1, 0]


@pytest.mark.parametrize("units", ["pixels", "shares"])
def test_the_truth_can_be_handed_in_as_shares_whatever_train_csv_has(units: str, tmp_path: Path) -> None:
    box = "5,10,50,20" if units == "pixels" else "0.05,0.25,0.5,0.5"
    (tmp_path / "train.csv").write_text(f"image_id,class,x1,y1,x2,y2\na,cat,{box}\n")
    form: dict[str, Any] = {"class_id": "class", "boxes": ["x1", "y1", "x2", "y2"], "layout": "xyxy", "units": units}
    form |= {"submission": {"layout": "xyxy", "units": "shares"}}
    made = TaskConfig(name="t", task="detection", data=Data(dir=tmp_path), format=DetectionFormat.model_validate(form))
    table = read_table(made)
    truth = perfect_answer(table.target(0, 40, 100), 1)
    _, (row,) = rows_of(made, [("a", truth)], table.classes)
    assert [float(word) for word in row[1].split()[2:]] == [0.05, 0.25, 0.5, 0.5]
