"""Trainings that are stopped, killed or broken: what is kept, and that going on ends where an unbroken run does."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from filelock import FileLock
from trainings import assert_ended_like, begin, end, rows
from warm import warm_python

from competition.config.loading import load_config, task_names
from competition.data.folds import make_folds
from competition.pipeline.train_fold import train
from competition.tasks.made_up_images import write_sample
from competition.training.checkpoint import load_checkpoint

Command = Callable[..., CompletedProcess[str]]

TASK = task_names()[0]
EPOCHS = 3
# Dropout-like draws, augmentation and worker processes: all that could differ after a resume.
WORDS = (
    "name=t",
    "model.encoder=test_resnet",
    "data.image_size=64",
    "data.batch_size=2",
    "data.num_workers=1",
    f"trainer.max_epochs={EPOCHS}",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
)


@pytest.fixture(scope="module")
def trained(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Train without a break; return the fold's folder and the words that did it."""
    folder = tmp_path_factory.mktemp("unbroken")
    words = [str(project / "configs" / f"{TASK}.yaml"), *WORDS, f"data.dir={folder / 'data'}"]
    write_sample(TASK, folder / "data", size=24)
    make_folds(load_config([Path(words[0])], words[1:]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(load_config([Path(words[0])], words[1:]))
    return folder / "outputs" / "t" / "fold0", words


@pytest.mark.slow
def test_a_stop_in_mid_epoch_resumes_to_the_same_end(
    project: Path, tmp_path: Path, trained: tuple[Path, list[str]], command: Command
) -> None:
    unbroken, words = trained
    folder = tmp_path / "outputs" / "t" / "fold0"
    process = begin(project, tmp_path, *words, "checkpoint.every_steps=1", python=warm_python())
    while not (folder / "latest.pt").is_file() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "go on with --resume" in end(process, 128 + signal.SIGTERM).splitlines()[-1]
    assert load_checkpoint(folder / "latest.pt")["global_step"] < load_checkpoint(unbroken / "latest.pt")["global_step"]
    assert command("train", *words, "checkpoint.every_steps=1", "--resume").returncode == 0
    assert_ended_like(folder, unbroken)


@pytest.mark.slow
def test_a_time_limit_saves_and_says_how_to_go_on(
    command: Command, tmp_path: Path, trained: tuple[Path, list[str]]
) -> None:
    _, words = trained
    done = command("train", *words, "trainer.max_time=00:00:00:00")
    assert done.returncode == 3
    assert "trainer.max_time is over" in done.stderr
    assert load_checkpoint(tmp_path / "outputs" / "t" / "fold0" / "latest.pt")["global_step"] == 1


@pytest.mark.slow
def test_best_is_the_epoch_with_the_best_value_and_latest_is_the_last(trained: tuple[Path, list[str]]) -> None:
    folder, _ = trained
    losses = [float(row["val/loss"]) for row in rows(folder)]
    best, latest = load_checkpoint(folder / "best_loss.pt"), load_checkpoint(folder / "latest.pt")
    assert best["epoch"] == losses.index(min(losses))
    assert latest["epoch"] == EPOCHS - 1
    assert json.loads(json.dumps(latest["hyper_parameters"])) == latest["hyper_parameters"]


@pytest.mark.slow
def test_another_config_and_a_damaged_checkpoint_are_refused(
    command: Command, tmp_path: Path, trained: tuple[Path, list[str]]
) -> None:
    _, words = trained
    folder = tmp_path / "outputs" / "t" / "fold0"
    assert command("train", *words, "trainer.max_time=00:00:00:00").returncode == 3
    done = command("train", *words, "--resume", "optimizer.lr=0.5")
    assert done.returncode == 1
    assert "optimizer.lr: 0.001 -> 0.5" in done.stderr
    whole = (folder / "latest.pt").read_bytes()
    (folder / "latest.pt").write_bytes(whole[: len(whole) // 2])
    done = command("train", *words, "--resume")
    assert done.returncode == 1
    assert done.stderr.startswith("outputs/t/fold0/latest.pt: not a whole checkpoint")


@pytest.mark.slow
def test_a_second_training_in_the_same_folder_is_refused(
    command: Command, tmp_path: Path, trained: tuple[Path, list[str]]
) -> None:
    _, words = trained
    folder = tmp_path / "outputs" / "t" / "fold0"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):  # as the first training holds it
        done = command("train", *words)
    assert done.returncode == 1
    assert done.stderr == "outputs/t/fold0: another training is writing here; wait for it or stop it\n"
