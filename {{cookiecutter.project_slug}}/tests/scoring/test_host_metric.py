"""A host's metric file, used as it is pasted from the competition's page."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from competition.config.loading import load_config
from competition.config.settings import Config
from competition.files.images import read_image_size
from competition.prediction.stored import PredictionWriter
from competition.runs.folder import Run
from competition.scoring.out_of_fold import OutOfFold, folds_of_files
from competition.scoring.tune import tune
from competition.submission.submit import describe_submission, make_submission
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.tasks.host_metric import load_score

# In the shape hosts publish them: an error for participants, typed arguments, frames that are changed in place.
LOG_LOSS = """
import numpy as np
import pandas as pd
import sklearn.metrics


class ParticipantVisibleError(Exception):
    pass


def score(solution: pd.DataFrame, submission: pd.DataFrame, row_id_column_name: str) -> float:
    del solution[row_id_column_name]
    del submission[row_id_column_name]
    if not submission.min().min() >= 0:
        raise ParticipantVisibleError("probabilities must not be negative")
    total = submission.sum(axis=1).values[:, None]
    return sklearn.metrics.log_loss(np.argmax(solution.values, axis=1), submission.values / total,
                                    labels=range(solution.shape[1]))
"""
DICE = """
import numpy as np
import pandas as pd


def pixels(rle):
    if pd.isna(rle):
        return set()
    numbers = [int(word) for word in str(rle).split()]
    return {p for start, length in zip(numbers[::2], numbers[1::2]) for p in range(start, start + length)}


def score(solution: pd.DataFrame, submission: pd.DataFrame, row_id_column_name: str, empty: float = 1.0) -> float:
    assert solution[row_id_column_name].equals(submission[row_id_column_name])
    values = []
    for true, found in zip(solution["rle"], submission["rle"]):
        a, b = pixels(true), pixels(found)
        values.append(2 * len(a & b) / (len(a) + len(b)) if a or b else empty)
    return float(np.mean(values))
"""
NUM_BOXES = '''
import pandas as pd


def score(solution: pd.DataFrame, submission: pd.DataFrame, row_id_column_name: str) -> float:
    """Mean absolute error of the number of boxes."""
    merged = solution.merge(submission, on=row_id_column_name, suffixes=("_true", "_found"))
    sides = (merged[f"PredictionString_{side}"].astype(object) for side in ("true", "found"))
    true, found = (side.fillna("").str.split().str.len() / 6 for side in sides)
    return (true - found).abs().mean()
'''
HOSTS = {"classification": (LOG_LOSS, True), "segmentation": (DICE, False), "detection": (NUM_BOXES, True)}


@pytest.fixture
def host(task: str, untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a run that is scored by a host's file."""
    if task not in HOSTS:
        pytest.skip(f"no host's metric for {task} here")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(untrained, tmp_path / "outputs")
    source, lower = HOSTS[task]
    Path("metric.py").write_text(source)
    return Run.open("t", ["host_metric.file=metric.py", f"host_metric.lower_is_better={str(lower).lower()}"])


def images_of(run: Run) -> OutOfFold:
    table = Task(run.config.task).table.read_table(run.config)
    return OutOfFold(run.config, table, folds_of_files(run.out_of_fold_files()))


def own_score(config: Config, images: OutOfFold) -> float:
    """Return what the project itself says the host's metric is."""
    if config.task == "detection":
        differences = [
            len(images.answer(i, config)["labels"]) - len(images.truth(i)["labels"]) for i in range(len(images))
        ]
        return float(np.mean(np.abs(differences)))
    name = {"classification": "log_loss", "segmentation": "dice"}[config.task]
    score = images.task.score
    evidence = [score.evidence(images.answer(i, config), images.truth(i), [name]) for i in range(len(images))]
    return score.scores(evidence, [name], len(images.table.classes))[name]


def test_the_hosts_score_comes_first_and_is_what_the_project_computes_by_itself(host: Run) -> None:
    images = images_of(host)
    scores = images.scores(host.config)
    assert next(iter(scores)) == "host"
    assert scores["host"] == pytest.approx(own_score(host.config, images), abs=1e-4)
    assert set(scores) == {"host", *host.config.metrics}


@pytest.mark.slow
def test_tuning_makes_the_hosts_score_better_not_another(host: Run) -> None:
    tuned = tune(host)
    sign = -1 if host.config.host_metric and host.config.host_metric.lower_is_better else 1
    assert sign * tuned.pooled["host"] >= sign * tuned.before["host"] - 1e-9
    assert "host_cross_fitted" in (host.folder / "cv.csv").read_text()


def test_a_hidden_answer_is_scored_by_the_host_too(host: Run) -> None:
    config, images = host.config, images_of(host)
    with PredictionWriter(host.folder) as writer:  # what is predicted of a test image does not matter
        ids = Task(config.task).submission.read_test_ids(config, images.table.classes).tolist()
        for index, image_id in enumerate(ids):
            path = config.data.dir / config.data.test_images / image_id
            writer.add(image_id, *read_image_size(path, 3), images.prediction(index % len(images)))
        writer.finish(host.folder / "test.npz", images.table.classes)
    submission = make_submission(host)
    assert submission.test_scores is not None
    assert submission.blind_scores is not None
    assert list(submission.test_scores) == list(submission.blind_scores) == ["host", *config.metrics]
    assert next(iter(describe_submission(submission)[-3:])).startswith("test images:  host ")
    own = {"segmentation": "dice", "classification": "log_loss"}.get(config.task)
    if own in submission.test_scores:
        assert submission.test_scores["host"] == pytest.approx(submission.test_scores[own], abs=1e-4)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "no such file"),
        ("import nothing_of_this_name", "does not load: ModuleNotFoundError"),
        ("def metric(a, b): ...", "defines no function score"),
    ],
)
def test_a_file_that_is_no_metric_is_refused_in_a_line(tmp_path: Path, source: str | None, message: str) -> None:
    path = tmp_path / "metric.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(CompetitionError, match=message) as refused:
        load_score(path)
    assert "\n" not in str(refused.value)


def test_what_the_host_says_is_wrong_is_told_with_the_file(host: Run) -> None:
    path = Path("refuses.py")
    path.write_text("def score(solution, submission, row_id):\n    raise ValueError('too many\\nrows')\n")
    config = host.config.model_copy(
        update={
            "host_metric": load_config([host.folder / "fold0" / "config.yaml"], [f"host_metric={path}"]).host_metric
        }
    )
    images = OutOfFold(config, images_of(host).table, folds_of_files(host.out_of_fold_files()))
    with pytest.raises(CompetitionError, match=r"^refuses\.py: score\(\) failed: ValueError: too many rows$"):
        images.scores(config)
