"""What goes wrong in a prediction: one line says so, and what was left half written is gone after the next one."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from filelock import FileLock
from tiny import PROJECT
from trainings import begin, kill_one_of_two
from warm import warm_python

from competition.config.loading import task_names
from competition.runs.folder import TEST, Run
from competition.tasks.contract import Task
from competition.training.checkpoint import best_name
from competition.training.module import CompetitionModule

Command = Callable[..., CompletedProcess[str]]
MANY = 3000  # test images: the prediction takes long enough to be killed in its middle

one_task = pytest.mark.parametrize("task", task_names()[:1], indirect=True)


@pytest.fixture
def run(untrained: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a run `t` whose weights have learnt nothing, on a competition that may be changed."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(untrained, "outputs")
    config = Run.open("t", [f"data.dir={data_dir}"]).config
    classes = list(Task(config.task).table.read_table(config).classes)
    torch.manual_seed(0)
    module = CompetitionModule(config.model_dump(mode="json"), classes)
    saved = {"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}
    for fold in (0, 1):
        torch.save(saved, f"outputs/t/fold{fold}/{best_name(config.checkpoint)}")
    return Path("outputs/t")


def ask_for_many(data: Path) -> None:
    """Let the submission ask for one test image under many names."""
    sample = data / "sample_submission.csv"
    header, *lines = sample.read_text().splitlines()
    name = lines[0].split(",")[0]
    rows = [line for line in lines if line.startswith(f"{name},")]
    for number in range(MANY):
        os.link(data / "test_images" / name, data / "test_images" / f"{number}_{name}")
    sample.write_text("\n".join([header, *(f"{number}_{row}" for number in range(MANY) for row in rows), ""]))


@one_task
@pytest.mark.slow
def test_when_a_rank_of_a_prediction_is_killed_the_other_ends_within_a_minute_with_one_line(
    run: Path, data_dir: Path, command: Command
) -> None:
    shutil.copy(data_dir / "sample_submission.csv", "few.csv")
    ask_for_many(data_dir)
    words = ("t", f"data.dir={data_dir}", "trainer.strategy=ddp", "trainer.devices=2", "data.batch_size=2")
    process = begin(PROJECT, Path.cwd(), *words, verb="predict", python=warm_python())
    while len(list(run.glob(".predictions.*"))) < 2 and process.poll() is None:
        time.sleep(0.1)
    line = kill_one_of_two(process, 0, "predict")
    assert line.startswith("process 1: another process of this prediction has ended")
    assert "start `competition predict` again" in line
    assert list(run.glob(".predictions.*"))

    shutil.copy("few.csv", data_dir / "sample_submission.csv")
    done = command("predict", "t", f"data.dir={data_dir}")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in run.iterdir() if path.name.startswith(".")} <= {".lock", ".test.npz.sources"}
    assert (run / TEST).is_file()


@one_task
def test_a_second_prediction_in_the_same_folder_is_refused(run: Path, command: Command) -> None:
    with FileLock(run / ".lock"):  # as the first prediction holds it
        for more in ([], ["--views", "tta=[hflip]"]):
            done = command("predict", "t", *more)
            assert done.returncode == 1
            assert done.stderr == "outputs/t: another prediction is writing here; wait for it or stop it\n"
    assert not (run / TEST).exists()


@one_task
def test_what_a_killed_prediction_left_is_deleted_and_nothing_else(run: Path, data_dir: Path, command: Command) -> None:
    (run / ".views").mkdir()
    (run / ".predictions.abc").mkdir()
    for name in (".test.rank1.npz", ".test.npz.123.tmp", ".submission.csv.123.tmp", ".views/0.fold0.npz"):
        (run / name).touch()
    done = command("predict", "t", f"data.dir={data_dir}")
    assert done.returncode == 0, done.stderr
    # Another verb may be writing the submission just now; some versions of filelock delete .lock.
    left = {path.name for path in run.iterdir() if path.name.startswith(".")} - {".lock"}
    assert left == {".submission.csv.123.tmp", ".test.npz.sources"}
