"""A row an object: touching objects stay two from train.csv to the score and the submission."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from competition.config.data_settings import Data
from competition.config.loading import complete
from competition.submission.submit import try_submission
from competition.support.errors import CompetitionError
from competition.tasks.contract import Target
from competition.tasks.host_metric import score_by_host
from competition.tasks.segmentation.decode import decode
from competition.tasks.segmentation.formats.recognise import recognise
from competition.tasks.segmentation.formats.rle import decode_pixels, decode_rle, encode_pixels, encode_rle
from competition.tasks.segmentation.objects import objects_from, objects_of, parts_of
from competition.tasks.segmentation.score import evidence, object_counts, scores
from competition.tasks.segmentation.settings import RunLengths, TaskConfig
from competition.tasks.segmentation.submission import (
    perfect_answer,
    read_submission,
    read_test_ids,
    rows,
    write_submission,
)
from competition.tasks.segmentation.table import read_table
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

SIZE = (12, 16)
Masks = list[np.ndarray]


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


SHIPS: dict[str, Masks] = {
    "two.jpg": [rectangle(2, 2, 6, 4), rectangle(2, 6, 6, 5)],  # side by side
    "none.jpg": [],
    "one.jpg": [rectangle(0, 0, 3, 9)],
}


def competition(folder: Path, images: dict[str, Masks] = SHIPS) -> TaskConfig:
    """Write train.csv, a row an object, and a sample of a row an image."""
    lines = [f"{name},{encode_rle(mask)}" for name, masks in images.items() for mask in masks or [np.zeros(SIZE)]]
    (folder / "train.csv").write_text("\n".join(["ImageId,EncodedPixels", *lines, ""]))
    sample = [f"{name},1 2" for name in images]
    (folder / "sample_submission.csv").write_text("\n".join(["ImageId,EncodedPixels", *sample, ""]))
    layout = {"keys": {"ImageId": "{image_id}"}, "mask": "EncodedPixels"}
    config = complete(
        "segmentation", {"format": {"rows": "objects", "train": layout}, "metrics": ["airbus", "dsb2018"]}
    )
    assert isinstance(config, TaskConfig)
    return config.model_copy(update={"data": Data(dir=folder)})


def truths(config: TaskConfig) -> dict[str, Target]:
    table = read_table(config)
    return {name: table.target(index, *SIZE) for index, name in enumerate(table.image_ids)}


def unrun(cell: str) -> np.ndarray:
    """Read run lengths down the columns by their definition."""
    flat = np.zeros(SIZE[0] * SIZE[1], bool)
    numbers = list(map(int, cell.split()))
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(SIZE, order="F")


def host_score(answers: Path, submission: Path, of_counts: Callable[[int, int, int], float]) -> float:
    """Score as the hosts do: a row is an object, found where it overlaps one by more than the IoU."""
    said, true = (
        pd.read_csv(path, keep_default_na=False)
        .groupby("ImageId")["EncodedPixels"]
        .apply(lambda cells: [c for c in cells if c])
        for path in (submission, answers)
    )
    values = []
    for name in true.index:
        a, b = ([unrun(cell) for cell in each[name]] for each in (said, true))
        ious = np.array([[(x & y).sum() / (x | y).sum() for y in b] for x in a]).reshape(len(a), len(b))
        hits = [int((ious > step / 100).any(axis=1).sum()) for step in range(50, 100, 5)]
        values.append(np.mean([of_counts(hit, len(a) - hit, len(b) - hit) for hit in hits]))
    return float(np.mean(values))


def precision(tp: int, fp: int, fn: int) -> float:
    return tp / (tp + fp + fn) if tp + fp + fn else 1.0


def f2(tp: int, fp: int, fn: int) -> float:
    return 5 * tp / (5 * tp + 4 * fn + fp) if tp + fp + fn else 1.0


def written(config: TaskConfig, answers: dict[str, Target], path: Path) -> Path:
    write_submission(path, config, list(answers.items()), ("object",))
    return path


def test_touching_objects_are_two_from_train_csv_to_the_submission(tmp_path: Path) -> None:
    config = competition(tmp_path)
    found = truths(config)
    assert [len(objects_of(truth)) for truth in found.values()] == [2, 0, 1]
    assert found["two.jpg"]["mask"].sum() == 6 * 9
    answers = {name: perfect_answer(truth, 1) for name, truth in found.items()}
    path = written(config, answers, tmp_path / "s.csv")
    assert path.read_text() == (tmp_path / "train.csv").read_text()
    gathered = [evidence(answers[name], found[name], config.metrics) for name in found]
    assert scores(gathered, config.metrics, 1) == {"airbus": 1, "dsb2018": 1}
    assert host_score(tmp_path / "train.csv", path, f2) == host_score(tmp_path / "train.csv", path, precision) == 1
    assert "objects: 3, up to 2 an image" in " ".join(read_table(config).summary())


def test_a_submission_is_scored_as_the_hosts_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {
        f"{i}.jpg": [rectangle(int(r), int(c), 4, 4) for r, c in product((0, 4, 8), (0, 4, 8)) if rng.random() < 0.5]
        for i in range(6)
    }
    config = competition(tmp_path, images)
    found, answers = truths(config), {}
    for name, truth in found.items():
        probabilities = truth["mask"][:, :, 0].astype(np.float16)
        probabilities[rng.random(SIZE) < 0.25] = 0  # parts fall off, some of what touches comes apart
        answers[name] = decode({"probabilities": probabilities[None]}, *SIZE, config)
    path = written(config, answers, tmp_path / "s.csv")
    back = dict(read_submission(path, config, ("object",), dict.fromkeys(images, SIZE)))
    for each in (answers, back):
        ours = scores([evidence(each[name], found[name], config.metrics) for name in found], config.metrics, 1)
        assert ours["airbus"] == pytest.approx(host_score(tmp_path / "train.csv", path, f2))
        assert ours["dsb2018"] == pytest.approx(host_score(tmp_path / "train.csv", path, precision))
    assert 0 < ours["dsb2018"] < ours["airbus"] < 1


def test_a_sample_may_name_an_image_in_any_number_of_rows(tmp_path: Path) -> None:
    config = competition(tmp_path)
    header, *lines = (tmp_path / "sample_submission.csv").read_text().splitlines()
    (tmp_path / "sample_submission.csv").write_text("\n".join([header, lines[0], lines[1], lines[0], lines[2], ""]))
    assert read_test_ids(config, ("object",)).tolist() == list(SHIPS)
    path = written(config, truths(config), tmp_path / "s.csv")
    assert path.read_text() == (tmp_path / "train.csv").read_text()
    try_submission(config, ("object",), list(SHIPS))  # it reads a file back as `submit` does


def test_objects_of_several_classes_stand_in_rows_of_theirs(tmp_path: Path) -> None:
    config = competition(tmp_path)
    keys = {"ImageId": "{image_id}", "Kind": "{class_id}"}
    layout = config.format.train.model_copy(update={"keys": keys})
    config = config.model_copy(update={"format": config.format.model_copy(update={"train": layout})})
    one, other, third = (encode_rle(mask) for mask in [*SHIPS["two.jpg"], *SHIPS["one.jpg"]])
    lines = ["ImageId,Kind,EncodedPixels", f"a,x,{one}", f"a,y,{third}", f"a,x,{other}", "b,x,", "b,y,"]
    (tmp_path / "train.csv").write_text("\n".join([*lines, ""]))
    (tmp_path / "sample_submission.csv").write_text("ImageId,Kind,EncodedPixels\na,x,\na,y,\nb,x,\nb,y,\n")
    assert len(objects_of(truths(config)["a"])) == 3
    write_submission(tmp_path / "s.csv", config, list(truths(config).items()), ("x", "y"))
    expected = [lines[0], lines[1], lines[3], lines[2], *lines[4:]]
    assert (tmp_path / "s.csv").read_text().splitlines() == expected


def test_a_true_object_that_lies_over_another_is_whole(tmp_path: Path) -> None:
    config = competition(tmp_path, {"a.jpg": [rectangle(0, 0, 8, 8), rectangle(2, 2, 8, 8)]})
    truth = truths(config)["a.jpg"]
    assert [len(pixels) for _, pixels in objects_of(truth)] == [64, 64]
    gathered = [evidence(truth, truth, config.metrics)]
    assert scores(gathered, config.metrics, 1) == {"airbus": 1, "dsb2018": 1}
    # What is said of both together finds one of them at most, whatever it overlaps.
    both = {"mask": truth["mask"], "objects": objects_from([(0, np.flatnonzero(truth["mask"]))], *SIZE)}
    assert evidence(both, truth, config.metrics)["objects"][0, 0] <= 1


def test_very_many_objects_are_counted_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pairs = [[parts_of(rng.integers(0, 2, (40, 50, 1), dtype=np.uint8)) for _ in range(2)] for _ in range(5)]
    few = [object_counts(*pair) for pair in pairs]
    monkeypatch.setattr("competition.tasks.segmentation.objects.MOST_COUNTERS", 0)
    assert np.array_equal(few, [object_counts(*pair) for pair in pairs])


def test_the_hosts_own_metric_sees_a_row_an_object(tmp_path: Path) -> None:
    config = competition(tmp_path)
    columns, each = rows(config, list(truths(config).items()), ("object",))
    assert (columns, [row[0] for row in each]) == (
        ["ImageId", "EncodedPixels"],
        ["two.jpg", "two.jpg", "none.jpg", "one.jpg"],
    )
    (tmp_path / "host.py").write_text("def score(solution, submission, row_id):\n    return len(solution)\n")
    hosted = complete("segmentation", {"host_metric": str(tmp_path / "host.py"), "format": config.format.model_dump()})
    found = list(truths(config).items())
    assert score_by_host(hosted, ("object",), found, found) == {"host": 4}


@given(arrays.arrays(np.uint8, (5, 7), elements=st.integers(0, 1)), st.sampled_from(["columns", "rows"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_pixels_are_written_and_read_as_the_mask_of_them_is(mask: np.ndarray, order: str, relative: bool) -> None:
    form = RunLengths.model_validate({"order": order, "relative": relative, "empty": "-"})
    text = encode_pixels(np.flatnonzero(mask), *mask.shape, form)
    assert text == encode_rle(mask, form)
    np.testing.assert_array_equal(decode_rle(text, *mask.shape, form), mask)
    assert sorted(decode_pixels(text, *mask.shape, form)) == np.flatnonzero(mask).tolist()


def frame(header: str, rows: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame([row.split(",") for row in rows], columns=header.split(","), dtype=str)


def test_several_rows_of_an_image_are_told_to_be_objects() -> None:
    several = frame("image,runs", ["a,1 300", "a,900 20", "b,", "c,5 300"])
    single = frame("image,runs", ["a,1 300", "b,900 20", "c,"])
    sample = frame("image,rle", ["t,1 1"])
    found, other = recognise(several, sample), recognise(single, sample)
    assert found is not None
    assert other is not None
    assert found["format"]["rows"] == "objects"
    assert "rows" not in other["format"]
    complete("segmentation", found)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"train": {"files": "masks/{image_id}.png"}}, "needs run lengths in train.csv"),
        ({"submission": {"style": "instances"}}, "leave out submission.style: instances"),
        ({"size": [64, 64]}, "leave out format.size"),
    ],
)
def test_what_does_not_go_with_rows_of_objects_is_refused(form: dict[str, object], reason: str) -> None:
    with pytest.raises(CompetitionError, match=reason):
        complete("segmentation", {"format": {"rows": "objects", **form}})
