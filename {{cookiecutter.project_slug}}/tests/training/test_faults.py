"""What goes wrong in a training: the last good state is kept, and one line says what happened and how to go on."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from task_facts import facts_of
from tiny import PROJECT, tiny_words
from trainings import begin, files_up_to, kill_one_of_two, rows
from warm import warm_python

from competition.config.loading import task_names
from competition.files.images import read_image_size
from competition.runs.folder import BEGUN_BY
from competition.tasks.made_up_images import write_sample
from competition.training.checkpoint import load_checkpoint

Command = Callable[..., CompletedProcess[str]]

TASK = task_names()[0]
FOLD = Path("outputs", TASK, "fold0")
STOP_AT_ONCE = "trainer.max_time=00:00:00:00"


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a competition with folds.csv."""
    folder = tmp_path_factory.mktemp("folded") / "data"
    write_sample(TASK, folder, size=24)
    ids = [line.partition(",")[0] for line in (folder / "train.csv").read_text().splitlines()[1:]]
    lines = [f"{name},{number % 2}" for number, name in enumerate(dict.fromkeys(ids))]
    (folder / "folds.csv").write_text("\n".join(["image_id,fold", *lines, ""]))
    return folder


@pytest.fixture
def words(folded: Path, tmp_path: Path) -> list[str]:
    shutil.copytree(folded, tmp_path / "data")
    config = PROJECT / "configs" / f"{TASK}.yaml"
    return [str(config), *tiny_words(TASK), "sampler.share=natural", "data.dir=data", "trainer.max_epochs=3"]


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_whole_and_says_so(command: Command, words: list[str]) -> None:
    assert command("train", *words, STOP_AT_ONCE).returncode == 3
    saved = (FOLD / "latest.pt").read_bytes()
    with files_up_to(len(saved) // 2):
        done = command("train", *words, "--resume")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"{FOLD / 'latest.pt'}: cannot be saved (")
    assert "the one before it is whole: make room and go on with --resume" in done.stderr
    assert (FOLD / "latest.pt").read_bytes() == saved
    assert not list(FOLD.glob(".*.tmp"))
    assert command("train", *words, "--resume").returncode == 0


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_before_it_is_saved_and_names_the_images(
    command: Command, words: list[str]
) -> None:
    assert command("train", *words, STOP_AT_ONCE).returncode == 3
    image, *_ = (row.partition(",")[0] for row in Path("data/folds.csv").read_text().splitlines() if row.endswith(",1"))
    size = read_image_size(Path("data/train_images", image), 3)
    np.save(f"data/train_images/{image}.npy", np.full((*size, 3), 3e38, np.float32))
    for name in ("train.csv", "folds.csv"):
        path = Path("data", name)
        path.write_text(path.read_text().replace(image, f"{image}.npy"))
    (FOLD / BEGUN_BY).unlink()  # as if it had begun by these
    done = command("train", *words, "--resume")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert re.match(r"epoch \d, batch \d \(optimizer step \d\): the loss is (nan|inf), on images ", done.stderr)
    assert f"{image}.npy" in done.stderr
    weights = load_checkpoint(FOLD / "latest.pt")["state_dict"]
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())


def test_a_training_says_which_losses_it_adds_up_and_one_without_a_network_is_no_run(
    command: Command, words: list[str]
) -> None:
    done = command("train", *words, "model.encoder=resnet19")
    assert done.returncode == 1
    assert "resnet19" in done.stderr
    assert not list(FOLD.glob("config.yaml"))
    done = command("train", *words, STOP_AT_ONCE)
    [told] = [line for line in done.stdout.splitlines() if line.startswith("loss: ")]
    assert told == f"loss: {facts_of(TASK).losses}"


def test_weights_that_a_finite_loss_ruined_are_not_saved(command: Command, words: list[str]) -> None:
    """The only step of the epoch has a good loss, and no step follows in which it would show."""
    ruin = ("data.image_size=32", "data.batch_size=12", "optimizer.name=sgd", "optimizer.lr=1e30", "scheduler.warmup=0")
    done = command("train", *words, *ruin)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert re.match(r"epoch 1 \(optimizer step 1\): val/loss is (nan|inf), so the epoch is not saved: ", done.stderr)
    assert not (FOLD / "latest.pt").exists()


@pytest.mark.parametrize("unseen", ["checkpoint.every_steps=1", "fold=all"])
def test_weights_that_are_no_numbers_are_not_saved_where_no_validation_has_seen_them(
    command: Command, words: list[str], unseen: str
) -> None:
    ruin = (
        "data.image_size=32",
        "optimizer.name=sgd",
        "optimizer.lr=1e30",
        "optimizer.weight_decay=1e30",
        "scheduler.warmup=0",
    )
    size = 24 if unseen == "fold=all" else 4  # the epoch is a single step, or goes on behind the first
    done = command("train", *words, *ruin, f"data.batch_size={size}", unseen)
    assert done.returncode == 1
    told = "epoch 1 (optimizer step 1): the loss is finite, but it left weights that are not, so they are not saved: "
    assert done.stderr.startswith(told), done.stderr
    assert not list(FOLD.parent.glob("*/latest.pt"))


@pytest.mark.slow
def test_torchrun_starts_a_training_on_two_processes(words: list[str], tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "competition", "train"]
    more = ("trainer.strategy=ddp", "trainer.devices=2", "trainer.max_epochs=1")
    command, environment = [warm_python(), *torchrun, *words, *more], os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("= 2 a device x 2 devices") == 1, done.stdout
    assert len(rows(tmp_path / FOLD)) == 1
    assert (tmp_path / FOLD / "oof.npz").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_when_a_rank_is_killed_the_other_ends_within_a_minute_with_one_line(
    lost: int, words: list[str], tmp_path: Path
) -> None:
    more = ("trainer.strategy=ddp", "trainer.devices=2", "trainer.max_epochs=1000")
    python = [sys.executable, warm_python()][lost]  # the same, but for what it costs to begin
    process = begin(PROJECT, tmp_path, *words, *more, python=python)
    latest = tmp_path / FOLD / "latest.pt"
    while not latest.is_file() and process.poll() is None:
        time.sleep(0.1)
    line = kill_one_of_two(process, lost)
    assert line.startswith(f"process {1 - lost}: another process of this training has ended")
    assert len(rows(tmp_path / FOLD)) >= load_checkpoint(latest)["epoch"] + 1
