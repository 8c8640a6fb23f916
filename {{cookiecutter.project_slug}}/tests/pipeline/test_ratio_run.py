"""`competition run` with the ratio schedule on two processes: epochs, score, and going on after a kill."""

import csv
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tiny import PROJECT
from trainings import assert_ended_like, begin, child_running, end, rows, run_here, run_on_two
from warm import warm_python

from competition.config.loading import load_config, task_names
from competition.data.folds import make_folds, read_folds
from competition.prediction.predict import load_network
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule
from competition.training.trainer import build_trainer

Command = Callable[..., CompletedProcess[str]]

TASK = "segmentation"
EPOCHS = 5
BATCH_SIZE = 4
CONFIGS = (f"configs/{TASK}.yaml", "configs/trainer/ddp.yaml")
WORDS = (
    *("trainer.accelerator=cpu", "trainer.devices=2", f"trainer.max_epochs={EPOCHS}", "ema.decay=0.8"),
    *("model.encoder=test_resnet", "data.image_size=32", f"data.batch_size={BATCH_SIZE}", "data.num_workers=0"),
)
FOLD = Path("outputs/segmentation/fold0")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(TASK not in task_names(), reason="this project has no masks"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with configs/ and data/, where two processes have trained fold 0 without a break.

    As torchrun would start them: how `train` itself does is test_logger.py's and test_faults.py's.
    """
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "configs").symlink_to(PROJECT / "configs")
    write_sample(TASK, folder / "data", size=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_folds(load_config([*map(Path, CONFIGS)], list(WORDS)))
        run_on_two("train", *CONFIGS, *WORDS)
    return folder


def test_metrics_csv_shows_the_lengths_and_shares_of_the_schedule(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    config = load_config([*map(Path, CONFIGS)], list(WORDS))
    table = Task(TASK).table.read_table(config)
    positive = table.present()[read_folds(config, table) != 0].any(axis=1)
    num_positives, natural = int(positive.sum()), float(positive.mean())
    for epoch, row in enumerate(rows(folder / FOLD)):
        share = 0.9 + (natural - 0.9) * min(epoch / 4, 1)  # share: [[0, 0.9], [4, natural]], course: linear
        drawn = num_positives + round(num_positives * (1 - share) / share)
        assert int(row["images"]) == drawn // BATCH_SIZE * BATCH_SIZE
        assert float(row["positive_share"]) == pytest.approx(num_positives / drawn, abs=1e-4)
    assert len({row["images"] for row in rows(folder / FOLD)}) > 2


def test_the_score_is_that_of_the_saved_average_weights_in_one_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    config = load_config([*map(Path, CONFIGS)], [*WORDS, "trainer.devices=1", "trainer.strategy=auto"])
    table = Task(TASK).table.read_table(config)
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    network, _ = load_network(FOLD / "latest.pt")
    module.network.load_state_dict(network.state_dict())
    data = FoldData(config, table, read_folds(config, table))
    (scores,) = build_trainer(config, []).validate(module, data, verbose=False)
    last = rows(folder / FOLD)[-1]
    # The same to the last digit is what test_exact_validation.py compares: here a pixel at the threshold may go either
    # way, as a network's last digits hang on the size of batches and the CPU.
    assert {name: float(last[name]) for name in scores} == pytest.approx(scores, abs=1e-3)


def num_rows(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open(newline="") as file:
        return len(list(csv.DictReader(file)))


def test_a_run_whose_training_is_killed_ends_like_an_unbroken_one_when_started_again(
    folder: Path, tmp_path: Path, command: Command
) -> None:
    """In one process, as two are killed and go on in test_exact_resume.py."""
    for name in ("configs", "data"):
        (tmp_path / name).symlink_to(folder / name)
    words = (CONFIGS[0], *WORDS, "trainer.devices=1", "fold=[0]")
    assert command("train", *words, "name=unbroken").returncode == 0
    first = begin(PROJECT, tmp_path, *words, verb="run", python=warm_python())
    while num_rows(tmp_path / FOLD / "metrics.csv") < 2 and first.poll() is None:
        time.sleep(0.05)
    training = child_running(first.pid)
    assert training is not None, first.communicate()[1]
    os.kill(training, signal.SIGKILL)
    assert "`competition train` failed (exit -9)" in end(first, 1)
    assert run_here(tmp_path, words).returncode == 0
    assert_ended_like(tmp_path / FOLD, tmp_path / "outputs/unbroken/fold0")
    assert (tmp_path / "outputs/segmentation/submission.csv").is_file()
