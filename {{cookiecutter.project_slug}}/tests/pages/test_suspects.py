"""Labels in doubt: wrong labels that were planted are found, ranked, and left out by the file that names them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.config.loading import complete, dump_config, task_names
from competition.data.folds import make_folds, read_folds
from competition.data.training_part import training_part
from competition.pages.gallery import look_at
from competition.pages.suspects import ranking, suspects
from competition.prediction.stored import PredictionWriter
from competition.runs.folder import CONFIG, OOF, Run
from competition.scoring.out_of_fold import OutOfFold, folds_of_files
from competition.tasks.contract import Outcome, Task

NUMBER, WRONG = 60, 6
NOTHING = np.zeros(0)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, set[str]]:
    """Make a run whose answers are mostly right, unsure of some images; return it and the images of wrong labels."""
    if "classification" not in task_names():
        pytest.skip("planted in labels of classes")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    labels = rng.integers(3, size=NUMBER)
    ids = np.array([f"i{number:02}" for number in range(NUMBER)])
    wrong = rng.permutation(NUMBER)[:WRONG]
    written = labels.copy()
    written[wrong] = (labels[wrong] + 1) % 3
    (tmp_path / "data").mkdir()
    table = pd.DataFrame({"image_id": ids, "label": np.array(["a", "b", "c"])[written]})
    table.to_csv("data/train.csv", index=False)
    values = {"name": "t", "data": {"dir": str(tmp_path / "data"), "num_folds": 2}}
    config = complete("classification", values)
    make_folds(config)
    folds = read_folds(config, Task("classification").table.read_table(config))
    odds = rng.normal(0, 0.8, (NUMBER, 3)) + 3 * (labels[:, None] == np.arange(3))
    said = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    for fold in (0, 1):
        folder = tmp_path / "outputs" / "t" / f"fold{fold}"
        folder.mkdir(parents=True)
        (folder / CONFIG).write_text(dump_config(complete("classification", values | {"fold": fold})))
        with PredictionWriter(folder) as writer:
            for row in np.flatnonzero(folds == fold):
                writer.add(ids[row], 8, 8, {"probabilities": said[row].astype(np.float32)})
            writer.finish(folder / OOF, ["a", "b", "c"])
    return Run.open("t"), set(ids[wrong].tolist())


def test_planted_wrong_labels_are_found_and_left_out_by_the_file_that_names_them(
    planted: tuple[Run, set[str]],
) -> None:
    run, wrong = planted
    table = Task("classification").table.read_table(run.config)
    images = OutOfFold(run.config, table, folds_of_files(run.out_of_fold_files()))
    section = suspects(run, look_at(run.config, images))
    path = run.folder / "suspects.csv"
    frame = pd.read_csv(path)
    assert wrong <= set(frame["image_id"].head(WRONG + 2))
    assert (frame["score"].diff().dropna() >= 0).all()
    assert (frame["truth"] != frame["answer"]).all()
    assert section.grids[0].rows[0][0] == frame["image_id"][0]
    frame.head(WRONG + 2).to_csv(path, index=False)
    data = run.config.data.model_copy(update={"weights_csv": path})
    left = run.config.model_copy(update={"data": data})
    part = training_part(left, table, read_folds(left, table))
    assert not wrong & set(part.table.image_ids[part.rows])
    suspects(run, None)
    assert not path.exists()


def test_numbers_are_in_doubt_only_where_they_are_far_off() -> None:
    def of_error(error: float) -> Outcome:
        both = max(error, 0.0), max(-error, 0.0)
        return Outcome(-abs(error), *both, NOTHING.astype(int), NOTHING, NOTHING.astype(bool), NOTHING, (0.0, error))

    errors = [*np.random.default_rng(0).normal(0, 1, 100).tolist(), -30.0, 12.0]
    assert ranking([of_error(error) for error in errors]).tolist() == [100, 101]
