"""Runs joined by a model that is fitted on out-of-fold predictions: better than their average, and honestly scored."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from competition.config.loading import complete, dump_config, load_config, task_names
from competition.prediction.stacking import Column, Kind, Model, Stack, inputs_of
from competition.prediction.stored import Predictions, PredictionWriter
from competition.runs.folder import CONFIG, OOF, TEST, Run
from competition.submission.stack import Fold, fitted, make_stack
from competition.support.errors import CompetitionError
from competition.support.optional_rooms import has_room

Command = Callable[..., CompletedProcess[str]]
NUMBER, CLASSES, FOLDS = 300, ("a", "b", "c"), 3
pytestmark = pytest.mark.skipif("classification" not in task_names(), reason="only classes and numbers are stacked")


@pytest.fixture
def made_up(command: Command, tmp_path: Path) -> Path:
    """Make runs `x` and `y` of no networks: x tells class a from others, y b from others; c shows in column age."""
    rng = np.random.default_rng(0)
    labels = rng.integers(len(CLASSES), size=2 * NUMBER)
    age = np.where(labels == 2, 60, 30) + rng.normal(0, 12, 2 * NUMBER)
    data = tmp_path / "data"
    data.mkdir()
    ids = np.array([f"i{number}" for number in range(2 * NUMBER)])
    frame = pd.DataFrame({"image_id": ids, "label": np.array(CLASSES)[labels], "age": age.round(1).astype(str)})
    frame.loc[3, "age"] = ""
    frame[:NUMBER].to_csv(data / "train.csv", index=False)
    frame[NUMBER:].drop(columns="label").to_csv(data / "test.csv", index=False)
    frame[NUMBER:].drop(columns="age").to_csv(data / "solution.csv", index=False)
    sample = pd.DataFrame(np.full((NUMBER, 3), 1 / 3), columns=list(CLASSES))
    sample.insert(0, "image_id", ids[NUMBER:])
    sample.to_csv(data / "sample_submission.csv", index=False)
    folds = np.arange(NUMBER) % FOLDS
    pd.DataFrame({"image_id": ids[:NUMBER], "fold": folds}).to_csv(data / "folds.csv", index=False)
    for run, good in (("x", 0), ("y", 1)):
        said = _said(labels, good, rng)
        for fold in range(FOLDS):
            values: dict[str, Any] = {"name": run, "fold": fold, "metrics": ["log_loss", "accuracy"]}
            values["data"] = {"dir": str(data), "test_csv": "test.csv", "num_folds": FOLDS}
            folder = tmp_path / "outputs" / run / f"fold{fold}"
            folder.mkdir(parents=True)
            (folder / CONFIG).write_text(dump_config(complete("classification", values)))
            _write(folder / OOF, ids[:NUMBER][folds == fold], said[:NUMBER][folds == fold])
        _write(tmp_path / "outputs" / run / TEST, ids[NUMBER:], said[NUMBER:])
    return tmp_path / "outputs"


def _said(labels: np.ndarray, good: int, rng: np.random.Generator) -> np.ndarray:
    """Return probabilities that know one class, and are too sure of the others, which they guess."""
    odds = rng.normal(0, 2.0, (len(labels), len(CLASSES)))
    odds[:, good] = np.where(labels == good, 3, -3) + rng.normal(0, 1.5, len(labels))
    powers = np.exp(odds)
    return powers / powers.sum(axis=1, keepdims=True)


def _write(path: Path, ids: np.ndarray, said: np.ndarray) -> None:
    with PredictionWriter(path.parent) as writer:
        for image_id, one in zip(ids, said, strict=True):
            writer.add(str(image_id), 8, 8, {"probabilities": one.astype(np.float32)})
        writer.finish(path, CLASSES)


@pytest.mark.parametrize("model", ["logistic", "ridge", "lightgbm"])
def test_a_stack_is_better_than_the_average_of_its_runs(made_up: Path, command: Command, model: str) -> None:
    if model == "lightgbm":
        pytest.importorskip("lightgbm")
    assert command("submit", "x", "y").returncode == 0
    done = command("stack", "x", "y", "--model", model, "--with-columns", "age")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(made_up / "x+y_stack" / "stack.csv", index_col="run")
    assert list(table.index) == ["x", "y", "their equal average", "the stack, cross-fitted"]
    scores = table["log_loss"].to_dict()
    assert scores["the stack, cross-fitted"] < 0.8 * min(scores["their equal average"], scores["x"], scores["y"])
    tested = pd.read_csv(made_up.parent / "data" / "solution.csv")["label"]
    truth = tested.map(CLASSES.index).to_numpy()
    losses = {}
    for run in ("x+y", "x+y_stack"):
        stored = Predictions(made_up / run / TEST)
        said = np.stack([stored[row]["probabilities"] for row in range(len(stored))])
        np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-5)
        losses[run] = -np.log(said[np.arange(NUMBER), truth]).mean()
    assert losses["x+y_stack"] < 0.8 * losses["x+y"]
    assert (made_up / "x+y_stack" / "submission.csv").is_file()
    assert "stack of x, y" in Path("outputs/runs.csv").read_text()


def test_a_fold_is_answered_by_a_model_that_has_not_seen_its_truth(made_up: Path) -> None:
    """Where the labels of one fold are others, its own out-of-fold answers stay as they are."""
    runs = [Run.open("x"), Run.open("y")]
    make_stack(runs, "s", None, ["age"])
    before = _stored(made_up / "s", 1), _stored(made_up / "s", 0)
    frame = pd.read_csv(made_up.parent / "data" / "train.csv", dtype=str, keep_default_na=False)
    inside = np.arange(len(frame)) % FOLDS == 1
    frame.loc[inside, "label"] = frame.loc[inside, "label"].map({"a": "b", "b": "c", "c": "a"})
    frame.to_csv(made_up.parent / "data" / "train.csv", index=False)
    make_stack(runs, "s", None, ["age"])
    np.testing.assert_array_equal(_stored(made_up / "s", 1), before[0])
    assert not np.array_equal(_stored(made_up / "s", 0), before[1])


def _stored(folder: Path, fold: int) -> np.ndarray:
    stored = Predictions(folder / f"fold{fold}" / OOF)
    return np.stack([stored[row]["probabilities"] for row in range(len(stored))])


def test_a_stack_is_the_same_by_its_recipe(made_up: Path) -> None:
    """From the numbers in blend.yaml, with numpy alone, follow the predictions of test.npz."""
    make_stack([Run.open("x"), Run.open("y")], "s", "logistic", ["age"])
    recipe = yaml.safe_load((made_up / "s" / "blend.yaml").read_text())
    assert (recipe["sources"], recipe["mean"]) == (["x", "y"], "stack")
    stack = recipe["stack"]
    each = [Predictions(made_up / name / TEST)[5]["probabilities"].astype(float) for name in ("x", "y")]
    logs = [np.log(np.clip(one, 1e-4, 1 - 1e-4)) for one in each]
    inputs = [one - one.mean() for one in logs]
    age = pd.read_csv(made_up.parent / "data" / "test.csv")["age"][5]
    column = stack["columns"]["age"]
    joined = np.concatenate([*inputs, [(age - column["mean"]) / column["deviation"], 0]])
    joined = (joined - stack["center"]) / stack["scale"]
    odds = np.array(stack["coefficients"]) @ joined + stack["intercepts"]
    expected = np.exp(odds) / np.exp(odds).sum()
    np.testing.assert_allclose(Predictions(made_up / "s" / TEST)[5]["probabilities"], expected, atol=1e-5)


def test_columns_of_names_and_empty_cells_become_numbers() -> None:
    site = Column.of("site", np.array(["rome", "oslo", ""], dtype=object))
    assert site.values == ["oslo", "rome"]
    assert site.numbers(np.array(["rome", "paris", ""], dtype=object)).tolist() == [[0, 1], [0, 0], [0, 0]]
    age = Column.of("age", np.array(["10", "30", ""], dtype=object))
    assert age.numbers(np.array(["20", "", "old"], dtype=object)).tolist() == [[0, 0], [0, 1], [0, 1]]
    with pytest.raises(CompetitionError, match="--with-columns name: has 60 values that are no numbers"):
        Column.of("name", np.array([f"n{number}" for number in range(60)], dtype=object))
    assert inputs_of("regression", np.ones((2, 3, 1)), {}, {}).shape == (2, 3)


def test_what_cannot_be_stacked_is_said(made_up: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    for words, reason in (
        (["x"], "stack: found one run and no column"),
        (["x", "y", "--model", "forest"], "--model forest: expected one of logistic, ridge, lightgbm"),
        (["x", "y", "--model", "lightgbm"], "--model lightgbm: LightGBM is not installed; `uv sync --extra stack`"),
        (["x", "y", "--with-columns", "weight"], "column 'weight' is missing"),
        (["x", "y", "--name", "x"], "is a run that was trained"),
        (["x", "y", "tta=[hflip]"], "tta=[hflip]: a stack has the first run's config"),
    ):
        done = command("stack", *words)
        assert done.returncode == 1
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (made_up / "x+y_stack").exists()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification"], indirect=True)
@pytest.mark.skipif(not has_room("bundle"), reason="this repo has no bundles")
def test_a_stack_is_bundled_with_its_columns(predicted: Path, data_dir: Path, command: Command, tmp_path: Path) -> None:
    """Offline, and image by image, it answers as the submission does; ages of hidden images are read there."""
    from competition.bundle.offline import infer
    from competition.bundle.predictor import Predictor

    shutil.copytree(predicted, tmp_path / "outputs")
    for name, source in (("train.csv", "train.csv"), ("test.csv", "sample_submission.csv")):
        frame = pd.read_csv(data_dir / source, dtype=str)
        frame.assign(age=[str(number % 7) for number in range(len(frame))]).to_csv(data_dir / name, index=False)
    for path in (tmp_path / "outputs").glob("*/fold*/config.yaml"):
        config = load_config([path], [f"data.dir={data_dir}", "data.test_csv=test.csv"])
        path.write_text(dump_config(config), encoding="utf-8")
    done = command("stack", "t", "u", "--with-columns", "age", "--name", "s")
    assert done.returncode == 0, done.stderr
    done = command("bundle", "s", "--no-wheels")
    assert done.returncode == 0, done.stderr
    bundle = tmp_path / "outputs" / "s" / "bundle"
    infer(bundle, data_dir, tmp_path / "offline.csv")
    expected = pd.read_csv(tmp_path / "outputs" / "s" / "submission.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "offline.csv"), expected, atol=1e-3)
    rows = Predictor(bundle, data_dir)(expected["image_id"][2])
    np.testing.assert_allclose(rows.iloc[0, 1:].astype(float), expected.iloc[2, 1:].astype(float), atol=1e-3)
    (tmp_path / "outputs" / "t" / "test.npz").write_bytes((tmp_path / "outputs" / "u" / "test.npz").read_bytes())
    said = command("bundle", "s", "--no-wheels").stderr
    assert "`competition stack " in said
    assert "--model logistic --with-columns age`" in said


def test_a_stack_that_is_read_again_is_the_same() -> None:
    stack = Stack("regression", "ridge", {"a": Column(1.0, 2.0)}, [0.0], [1.0], [[1.0]], [0.5], bounds=(0.0, 1.0))
    assert Stack.read(yaml.safe_load(yaml.safe_dump(stack.written()))) == stack


def fold_of(kind: str, rng: np.random.Generator) -> Fold:
    """Return what two runs say of 60 images, and a truth that follows from it; of labels, some nobody knows."""
    said = rng.uniform(0.05, 0.95, (60, 2, 2))
    odds = said[:, 0] - said[:, 1] + rng.normal(0, 0.2, (60, 2))
    if kind == "regression":
        return Fold(said, {}, 5 + odds)
    truth = (odds > 0).astype(float)
    if kind == "multi":
        truth[:10, 1] = np.nan
    else:
        truth[:, 1] = 1 - truth[:, 0]
        said = said / said.sum(axis=2, keepdims=True)
    return Fold(said, {}, truth)


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_linear_stacks_are_those_of_scikit_learn(kind: Kind) -> None:
    """The same numbers, from coefficients alone."""
    from sklearn.linear_model import LogisticRegression, Ridge

    fold = fold_of(kind, np.random.default_rng(1))
    model: Model = "ridge" if kind == "regression" else "logistic"
    found = fitted(kind, model, fold, 0.5, None, 0).outputs(fold.said, {})
    inputs = inputs_of(kind, fold.said, {}, {})
    inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    if kind == "regression":
        expected = Ridge(alpha=2.0).fit(inputs, fold.truth).predict(inputs)
    else:
        each = []
        for values in fold.truth.T:
            known = ~np.isnan(values)
            each.append(LogisticRegression(C=0.5, max_iter=2000).fit(inputs[known], values[known]))
        expected = np.stack([one.predict_proba(inputs)[:, 1] for one in each], axis=1)
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_trees_learn_every_kind_of_answer(kind: Kind) -> None:
    pytest.importorskip("lightgbm")
    rng = np.random.default_rng(2)
    folds = [fold_of(kind, rng) for _ in range(6)]
    stack = fitted(kind, "lightgbm", Fold.joined(folds[:-1]), 1.0, None, 0)
    again = Stack.read(yaml.safe_load(yaml.safe_dump(stack.written())))
    found, truth = again.outputs(folds[-1].said, {}), folds[-1].truth
    assert found.shape == truth.shape
    known = ~np.isnan(truth)
    wrong = np.abs(found - truth)[known].mean()
    assert wrong < 0.8 * np.abs(np.nanmean(truth) - truth)[known].mean()
