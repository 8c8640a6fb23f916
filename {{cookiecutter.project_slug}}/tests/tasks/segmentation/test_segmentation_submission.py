"""submission.csv of masks: written and read back, and what is refused."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from competition.config.data_settings import Data
from competition.prediction.stored import PredictionWriter
from competition.runs.folder import Run
from competition.submission.submit import make_submission
from competition.support.errors import CompetitionError
from competition.tasks.segmentation.settings import TaskConfig
from competition.tasks.segmentation.submission import read_submission, read_test_ids, write_submission
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

CLASSES = ("cat", "big dog", 'a,"b"')
ROWS = ("a.png,cat,1 1", "a.png,dog,1 1", "b.png,dog,1 1", "b.png,cat,1 1")


def write(folder: Path, *rows: str, name: str = "sample_submission.csv", header: str = "image_id,class_id,rle") -> Path:
    (folder / name).write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return folder / name


def config_of(folder: Path) -> TaskConfig:
    return TaskConfig(name="t", task="segmentation", data=Data(dir=folder))


@given(st.lists(arrays.arrays(np.uint8, (3, 5, 3), elements=st.integers(0, 1)), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_reading_undoes_writing(tmp_path_factory: pytest.TempPathFactory, masks: list[np.ndarray]) -> None:
    folder = tmp_path_factory.mktemp("submission")
    ids = [f"{i}.png" for i in range(len(masks))]
    quoted = ("cat", "big dog", '"a,""b"""')
    write(folder, *(f"{i},{name}," for i in ids for name in quoted))
    config = config_of(folder)
    assert read_test_ids(config, CLASSES).tolist() == ids
    answers = [(i, {"mask": mask}) for i, mask in zip(ids, masks, strict=True)]
    write_submission(folder / "s.csv", config, answers, CLASSES)
    back = list(read_submission(folder / "s.csv", config, CLASSES, dict.fromkeys(ids, (3, 5))))
    assert [image_id for image_id, _ in back] == ids
    for (_, found), mask in zip(back, masks, strict=True):
        np.testing.assert_array_equal(found["mask"], mask)


def test_rows_are_those_of_the_sample_in_its_order(tmp_path: Path) -> None:
    write(tmp_path, *ROWS)
    mask = np.array([[[1, 0], [0, 0]]], dtype=np.uint8)  # (1, 2, 2): the cat in the first pixel, no dog
    answers = [("a.png", {"mask": mask}), ("b.png", {"mask": mask})]
    write_submission(tmp_path / "s.csv", config_of(tmp_path), answers, ("cat", "dog"))
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines == ["image_id,class_id,rle", "a.png,cat,1 1", "a.png,dog,", "b.png,dog,", "b.png,cat,1 1"]


def test_rows_of_an_image_may_stand_apart(tmp_path: Path) -> None:
    write(tmp_path, "a,cat,", "b,cat,", "a,dog,", "c,cat,", "b,dog,", "c,dog,")
    config, masks = config_of(tmp_path), np.random.default_rng(0).integers(0, 2, (3, 4, 5, 2), dtype=np.uint8)
    assert read_test_ids(config, ("cat", "dog")).tolist() == ["a", "b", "c"]
    answers = [(name, {"mask": mask}) for name, mask in zip("abc", masks, strict=True)]
    write_submission(tmp_path / "s.csv", config, answers, ("cat", "dog"))
    lines = (tmp_path / "s.csv").read_text().splitlines()[1:]
    assert [line.rpartition(",")[0] for line in lines] == ["a,cat", "b,cat", "a,dog", "c,cat", "b,dog", "c,dog"]
    back = list(read_submission(tmp_path / "s.csv", config, ("cat", "dog"), dict.fromkeys("abc", (4, 5))))
    assert [name for name, _ in back] == ["a", "b", "c"]
    np.testing.assert_array_equal([found["mask"] for _, found in back], masks)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("a,cat,", "a,cow,"), r"line 3: found 'cow'; expected a class of train.csv: cat, dog"),
        (("a,cat,", "a,cat,"), r"line 3: found 'a'; a second row"),
    ],
)
def test_a_sample_of_another_format_is_refused(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    write(tmp_path, *rows)
    with pytest.raises(CompetitionError, match=message) as caught:
        read_test_ids(config_of(tmp_path), ("cat", "dog"))
    assert str(tmp_path / "sample_submission.csv") in str(caught.value)


def test_a_sample_without_the_columns_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a,cat,", header="image_id,class_id,mask")
    with pytest.raises(CompetitionError, match="'rle' is missing"):
        read_test_ids(config_of(tmp_path), ("cat",))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("a,cat,1 1", "a,dog,1 2 3"), "line 3: rle: expected pairs"),
        (("a,cat,1 1", "a,dog,1 99"), "line 3: rle: .*length"),
        (("a,cat,4 2",), "line 2: rle: .*pixels 1 to 4"),
        (("a,cat,3 1 1 1",), "line 2: rle: .*overlap"),
        (("a,cat,nan",), "line 2: rle: "),
        (("a,cat,1 1", "a,cow,1 1"), "line 3.*'cow'.*cat, dog"),
        (("a,cat,1 1", "other,cat,1 1"), "line 3.*'other'"),
    ],
)
def test_an_invalid_row_is_named(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    path = write(tmp_path, *rows, name="submission.csv")
    with pytest.raises(CompetitionError, match=message) as caught:
        list(read_submission(path, config_of(tmp_path), ("cat", "dog"), {"a": (2, 2)}))
    assert str(path) in str(caught.value)


def make_run(folder: Path, ids: list[str]) -> Run:
    """Make a run whose test.npz holds predictions of `ids`."""
    write(folder, *ROWS)
    config = config_of(folder)
    with PredictionWriter(folder) as writer:
        for image_id in ids:
            writer.add(image_id, 4, 6, {"probabilities": np.eye(2, 3, dtype=np.float16)[None].repeat(2, 0)})
        writer.finish(folder / "test.npz", ["cat", "dog"])
    return Run(folder, config, config)


def test_predictions_become_a_checked_file(tmp_path: Path) -> None:
    submission = make_submission(make_run(tmp_path, ["a.png", "b.png"]))
    assert submission.num_images == 2
    assert submission.test_scores is None
    back = dict(
        read_submission(submission.path, config_of(tmp_path), ("cat", "dog"), {"a.png": (4, 6), "b.png": (4, 6)})
    )
    assert back["a.png"]["mask"].shape == (4, 6, 2)
    assert 0 < back["a.png"]["mask"].mean() < 1


@pytest.mark.parametrize("ids", [["b.png", "a.png"], ["a.png"], ["a.png", "c.png"], ["a.png", "b.png", "c.png"]])
def test_predictions_of_other_images_are_refused_and_the_old_file_kept(tmp_path: Path, ids: list[str]) -> None:
    run = make_run(tmp_path, ids)
    (tmp_path / "submission.csv").write_text("old")
    with pytest.raises(CompetitionError, match="not those of"):
        make_submission(run)
    assert (tmp_path / "submission.csv").read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_masks_are_written_and_read_one_image_at_a_time(tmp_path: Path) -> None:
    ids = [f"{i}" for i in range(400)]
    write(tmp_path, *(f"{i},cat," for i in ids))
    config, mask = config_of(tmp_path), np.zeros((500, 700, 1), dtype=np.uint8)  # 140 MB all together
    mask[100:200, 50:90] = 1
    tracemalloc.start()
    try:
        write_submission(tmp_path / "s.csv", config, ((i, {"mask": mask.copy()}) for i in ids), ("cat",))
        read = read_submission(tmp_path / "s.csv", config, ("cat",), dict.fromkeys(ids, (500, 700)))
        pixels = sum(int(answer["mask"].sum()) for _, answer in read)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pixels == 400 * 4000
    assert peak < 20 * mask.nbytes
