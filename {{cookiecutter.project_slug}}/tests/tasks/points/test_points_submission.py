"""submission.csv: what is written is read back as the same points, in rows and in strings; faults by line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from competition.config.loading import validate
from competition.support.errors import CompetitionError
from competition.tasks.contract import Target
from competition.tasks.points.settings import TaskConfig
from competition.tasks.points.submission import read_submission, read_test_ids, rows, write_submission

SIZES = {"a": (60, 80), "b": (60, 80), "c": (60, 80)}
CLASSES = ("dot", "ring")
OF_ROWS = "x,image_id,note,class_id,y,confidence\n,a,one,,,\n,b,two,,,\n,c,three,,,\n"
OF_STRINGS = "PredictionString,image_id\n,a\n,b\n,c\n"


def config_of(folder: Path, sample: str, **submission: Any) -> TaskConfig:
    (folder / "sample_submission.csv").write_text(sample)
    form = {"submission": submission}
    config = validate({"name": "t", "task": "points", "data": {"dir": str(folder)}, "format": form}, {}, "t")
    assert isinstance(config, TaskConfig)
    return config


def answers() -> list[tuple[str, Target]]:
    """Return two points, none, and one at the corner."""
    points = [[[1.25, 2.5], [30, 40.75]], [], [[80, 60]]]
    return [
        (
            name,
            {
                "keypoints": np.array(own, dtype=np.float32).reshape(-1, 2),
                "scores": np.linspace(0.9, 0.1, len(own), dtype=np.float32),
                "labels": np.arange(len(own)),
                "size": np.array([60, 80]),
            },
        )
        for name, own in zip(SIZES, points, strict=True)
    ]


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "rows": (OF_ROWS, {}),
    "rows with a token": (OF_ROWS, {"none": "-1"}),
    "strings": (OF_STRINGS, {"points": "PredictionString"}),
    "strings in another order": (OF_STRINGS, {"points": "PredictionString", "string": "y x class conf", "none": "0"}),
    "shares": (OF_STRINGS, {"points": "PredictionString", "units": "shares"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_points_are_read_back_as_they_were_written(form: str, tmp_path: Path) -> None:
    sample, submission = FORMS[form]
    config = config_of(tmp_path, sample, **submission)
    assert read_test_ids(config, CLASSES).tolist() == list(SIZES)
    write_submission(tmp_path / "submission.csv", config, answers(), CLASSES)
    found = list(read_submission(tmp_path / "submission.csv", config, CLASSES, SIZES))
    assert [name for name, _ in found] == list(SIZES)
    for (_, answer), (_, expected) in zip(found, answers(), strict=True):
        for key in ("keypoints", "scores", "labels"):
            np.testing.assert_array_equal(answer[key], expected[key])
    columns, written = rows(config, answers(), CLASSES)
    assert columns[0] == "image_id"
    assert len(list(written)) == (4 if sample == OF_ROWS else 3)


def test_rows_keep_what_other_columns_of_the_sample_say(tmp_path: Path) -> None:
    config = config_of(tmp_path, OF_ROWS)
    write_submission(tmp_path / "submission.csv", config, answers(), CLASSES)
    assert (tmp_path / "submission.csv").read_text().splitlines() == [
        "x,image_id,note,class_id,y,confidence",
        "1.25,a,one,dot,2.50,0.9",
        "30.00,a,one,ring,40.75,0.1",
        ",b,two,,,",
        "80.00,c,three,dot,60.00,0.9",
    ]


WRONG = {
    "80.5,a,,dot,2,1": "line 2: x,y: point [80.5, 2.0] is not inside the image of 80 x 60",
    "1,a,,cross,2,1": "line 2: x,y: found class 'cross'; expected one of dot, ring",
    "1,a,,dot,,1": "line 2: x,y: could not convert string to float: ''",
    "1,d,,dot,2,1": "line 2: found image 'd', which is not asked for",
}


@pytest.mark.parametrize(("line", "told"), WRONG.items())
def test_a_faulty_row_is_named(line: str, told: str, tmp_path: Path) -> None:
    config, path = config_of(tmp_path, OF_ROWS), tmp_path / "submission.csv"
    path.write_text(f"{OF_ROWS.partition(chr(10))[0]}\n{line}\n")
    with pytest.raises(CompetitionError) as error:
        list(read_submission(path, config, CLASSES, SIZES))
    assert str(error.value) == f"{path}: {told}"


def test_what_cannot_be_handed_in_is_told_before(tmp_path: Path) -> None:
    config = config_of(tmp_path, OF_STRINGS, points="PredictionString")
    with pytest.raises(CompetitionError, match="class 'red dot' has a space"):
        read_test_ids(config, ("red dot", "ring"))
    with pytest.raises(CompetitionError, match="nothing tells the 2 classes of points apart"):
        read_test_ids(config_of(tmp_path, OF_ROWS, class_id=None), CLASSES)
    with pytest.raises(CompetitionError, match=r"line 5: .*a second row"):
        read_test_ids(config_of(tmp_path, OF_STRINGS + ",a\n", points="PredictionString"), CLASSES)
