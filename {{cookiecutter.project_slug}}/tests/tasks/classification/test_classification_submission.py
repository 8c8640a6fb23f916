"""submission.csv of probabilities: written and read back, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from competition.config.data_settings import Data
from competition.config.settings import with_decode
from competition.prediction.stored import PredictionWriter
from competition.runs.folder import Run
from competition.submission.submit import make_submission
from competition.support.errors import CompetitionError
from competition.tasks.classification.score import evidence, scores
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.settings.format import ClassificationFormat
from competition.tasks.classification.submission import read_submission, read_test_ids, write_submission

CLASSES = ("cat", "big dog", "10")


def of(folder: Path) -> TaskConfig:
    return TaskConfig(name="t", task="classification", data=Data(dir=folder))


def write(folder: Path, *rows: str, name: str = "sample_submission.csv", header: str = "image_id,cat,dog") -> Path:
    (folder / name).write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return folder / name


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(0, 1, width=32, allow_subnormal=False)
    )
)
@settings(max_examples=30, deadline=None)
def test_reading_undoes_writing_whatever_the_order_of_columns(
    tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray
) -> None:
    folder = tmp_path_factory.mktemp("s")
    ids = [f"{i}.png" for i in range(len(rows))]
    write(folder, *(f"0,{i},0,0" for i in ids), header="10,image_id,cat,big dog")
    assert read_test_ids(of(folder), CLASSES).tolist() == ids
    answers = [(i, {"probabilities": row}) for i, row in zip(ids, rows, strict=True)]
    write_submission(folder / "s.csv", of(folder), answers, CLASSES)
    back = list(read_submission(folder / "s.csv", of(folder), CLASSES, {}))
    assert [image_id for image_id, _ in back] == ids
    assert np.array_equal([found["probabilities"] for _, found in back], rows)


@pytest.mark.parametrize("target", ["single", "multi", "regression"])
def test_what_is_handed_in_scores_what_was_scored_at_extremes_too(tmp_path: Path, target: str) -> None:
    """As one image of a logit of 15 that is wrong, among a thousand that are right."""
    layout = {"train": {"layout": "columns"}} if target != "single" else {}
    form = ClassificationFormat.model_validate({"target": target, **layout})
    config = of(tmp_path).model_copy(
        update={"format": form, "metrics": ["rmse" if target == "regression" else "log_loss"]}
    )
    rng = np.random.default_rng(0)
    truth = rng.random((50, 2)) < 0.5
    logits = np.where(truth, 12, -12) + rng.normal(size=(50, 2))
    logits[0] = -logits[0] * 1.3
    odds = np.exp(logits).astype(np.float32)
    rows = {"single": odds / odds.sum(axis=1, keepdims=True), "multi": odds / (1 + odds), "regression": logits * 1e5}[
        target
    ]
    write(tmp_path, *(f"{i},0,0" for i in range(50)))
    key = "value" if target == "regression" else "probabilities"
    truths = {
        "single": [{"label": int(odds.argmin())} for odds in truth],
        "multi": [{"labels": row} for row in truth],
        "regression": [{"value": row} for row in logits * (1e5 + 1e-4)],
    }[target]
    write_submission(tmp_path / "s.csv", config, ((str(i), {key: row}) for i, row in enumerate(rows)), ("cat", "dog"))
    back = [answer for _, answer in read_submission(tmp_path / "s.csv", config, ("cat", "dog"), {})]
    stored, handed_in = (
        scores([evidence(one, true, config.metrics) for one, true in zip(each, truths, strict=True)], config.metrics, 2)
        for each in ([{key: row} for row in rows], back)
    )
    assert handed_in == pytest.approx(stored, rel=1e-12)


def test_columns_are_those_of_the_sample_in_its_order(tmp_path: Path) -> None:
    for header, line in (("image_id,dog,cat", "a,0.25,0.75"), ("dog,image_id,cat", "0.25,a,0.75")):
        write(tmp_path, line, header=header)
        answers = [("a", {"probabilities": np.array([0.75, 0.25])})]
        write_submission(tmp_path / "s.csv", of(tmp_path), answers, ("cat", "dog"))
        assert (tmp_path / "s.csv").read_text().splitlines() == [header, line]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("image_id,cat,dog", ("a,0,0", "b,0,0", "a,0,0"), "line 4: found 'a'; a second row"),
        ("image_id,cat", ("a,0",), "'dog' is missing"),
        ("id,cat,dog", ("a,0,0",), "'image_id' is missing"),
        ("image_id,cat,dog,owl", ("a,0,0,0",), "'owl'.*cat, ?dog"),
    ],
)
def test_a_sample_of_another_format_is_refused(
    tmp_path: Path, header: str, rows: tuple[str, ...], message: str
) -> None:
    write(tmp_path, *rows, header=header)
    with pytest.raises(CompetitionError, match=message) as caught:
        read_test_ids(of(tmp_path), ("cat", "dog"))
    assert str(tmp_path / "sample_submission.csv") in str(caught.value)


@pytest.mark.parametrize("value", ["nan", "", "-0.1", "1.5", "inf", "x"])
def test_a_value_that_is_no_probability_is_named(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, "a,0.5,0.5", f"b,0.5,{value}", name="submission.csv")
    with pytest.raises(CompetitionError, match="expected a probability") as caught:
        list(read_submission(path, of(tmp_path), ("cat", "dog"), {"a": (1, 1), "b": (1, 1)}))
    assert str(caught.value).startswith(f"{path}: line 3: column dog: found {value!r}")


def make_run(folder: Path, ids: list[str], row: tuple[float, float] = (0.75, 0.25)) -> Run:
    """Make a run whose test.npz holds the same prediction of each of `ids`."""
    write(folder, "a,0,0", "b,0,0")
    with PredictionWriter(folder) as writer:
        for image_id in ids:
            writer.add(image_id, 10, 20, {"probabilities": np.array(row, dtype=np.float32)})
        writer.finish(folder / "test.npz", ["cat", "dog"])
    config = of(folder)
    return Run(folder, config, config)


def test_predictions_become_a_checked_file(tmp_path: Path) -> None:
    submission = make_submission(make_run(tmp_path, ["a", "b"]))
    assert submission.path.read_text().splitlines() == ["image_id,cat,dog", "a,0.75,0.25", "b,0.75,0.25"]


def test_thresholds_beside_probabilities_that_are_handed_in_are_said_to_change_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, ["a", "b"])
    assert make_submission(run).notes == ()
    given = with_decode(run.config, {"thresholds": 0.3})
    (line, *_) = make_submission(Run(run.folder, given, given)).notes
    assert line.startswith("warning: decode.thresholds: 0.3 changes nothing, neither the submission nor its score: ")
    assert line.endswith("(for decisions: format.submission.value: decision)")
    tuned = make_submission(Run(run.folder, given, run.config))  # is not the user's
    assert not any("changes nothing" in note for note in tuned.notes)


@pytest.mark.parametrize("ids", [["b", "a"], ["a"], ["a", "c"], ["a", "b", "c"]])
def test_predictions_of_other_images_are_refused_and_the_old_file_kept(tmp_path: Path, ids: list[str]) -> None:
    run = make_run(tmp_path, ids)
    (tmp_path / "submission.csv").write_text("old")
    with pytest.raises(CompetitionError, match="not those of"):
        make_submission(run)
    assert (tmp_path / "submission.csv").read_text() == "old"


def test_predictions_that_are_no_numbers_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match="line 2: column cat: found 'nan'"):
        make_submission(make_run(tmp_path, ["a", "b"], (float("nan"), 0.5)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sample_submission.csv", "test.npz"]
