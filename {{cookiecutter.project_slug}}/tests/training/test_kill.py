"""kill -9 at 40 random moments: every training goes on and ends, bit for bit, as an unbroken one does.

Run as a script, this file does it: python tests/training/test_kill.py TASK FOLDER. Its child processes are forks,
which start in no time where a new Python would import for seconds.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import small_words
from trainings import assert_ended_like, fork, get_ready, rows, run_as_script

from competition.config.loading import load_config, task_names
from competition.config.settings import Config
from competition.data.folds import make_folds
from competition.pipeline.train_fold import train
from competition.tasks.made_up_images import write_sample
from competition.training.checkpoint import load_checkpoint

PROJECT = Path(__file__).resolve().parents[2]
NUM_KILLS = 24
EPOCHS = 3  # one more than are kept
WORDS = (
    *("model.encoder=test_resnet", "data.image_size=32", "data.batch_size=4", "data.num_workers=0"),
    *("trainer.accelerator=cpu", f"trainer.max_epochs={EPOCHS}", "ema.decay=0.5"),
    *("checkpoint.keep=2", "checkpoint.predict_with=soup"),
)


def configure(task: str, name: str, *words: str) -> Config:
    return load_config([PROJECT / "configs" / f"{task}.yaml"], [*WORDS, *small_words(task), f"name={name}", *words])


def live(config: Config, seconds: float) -> bool:
    """Train in a fork that is killed after so many seconds; return whether it ended before."""
    child = fork("said", lambda: train(config, resume=True))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            break
        time.sleep(0.002)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False
    assert (config.fold_folder / "oof.npz").is_file(), Path("said").read_text()
    return True


def assert_whole(folder: Path, unbroken: Path, num_saved: int) -> int:
    """Look at what a killed training left: no finished epoch is lost. Return how many there are."""
    for path in folder.glob("best_loss.pt"):
        load_checkpoint(path)
    if not (folder / "latest.pt").is_file():
        return 0
    latest = load_checkpoint(folder / "latest.pt")
    in_mid_epoch = latest["FoldData"]["batches_done"] > 0
    finished = latest["epoch"] + (not in_mid_epoch)
    assert finished >= num_saved
    # The row is written before the epoch is saved, so there may be one more.
    found = rows(folder) if (folder / "metrics.csv").is_file() else []
    assert finished <= len(found) <= finished + 1
    assert found == rows(unbroken)[: len(found)]
    return finished


def moments(longest: float) -> Iterator[float]:
    """Yield what to live, spread evenly up to the longest."""
    rng = random.Random(0)
    for part in rng.sample(range(NUM_KILLS), NUM_KILLS):
        yield longest * (part + rng.random()) / NUM_KILLS


FASTER = 0.8  # by which lives are shortened where a training outran one: a busy machine has become a quiet one


def kill_again_and_again(task: str) -> None:
    """Kill trainings, each of which goes on until it ends; then the next begins, which saves at every step, too."""
    unbroken = configure(task, "unbroken")
    started = time.time()
    assert live(unbroken, 600)
    whole = (unbroken.fold_folder / "latest.pt").stat().st_mtime - started  # seconds of all epochs
    lives = moments(1.2)  # some die after the last epoch is saved, before the images are predicted or while they are
    number, life = 0, next(lives, None)
    while life is not None:
        config = configure(task, f"killed{number}", *(["checkpoint.every_steps=1"] if number % 2 else []))
        saved, has_ended, was_killed = 0, False, False
        while not has_ended:
            seconds = 600 if life is None else life * whole
            has_ended = live(config, seconds)
            if not has_ended:
                saved, was_killed = assert_whole(config.fold_folder, unbroken.fold_folder, saved), True
                print(f"training {number}: killed after {seconds:.2f} s with {saved} epochs saved")
                life = next(lives, None)
        if not was_killed:
            whole *= FASTER
        assert_ended_like(config.fold_folder, unbroken.fold_folder)
        left, expected = ({path.name for path in one.fold_folder.iterdir()} for one in (config, unbroken))
        assert left == expected, left
        number += 1


@pytest.mark.slow
def test_two_dozen_killed_trainings_end_as_one_that_nothing_happened_to(tmp_path: Path) -> None:
    task = task_names()[0]
    said = run_as_script(__file__, task, tmp_path)
    assert said.count("killed after") == NUM_KILLS


if __name__ == "__main__":
    get_ready(sys.argv[1:2])
    os.chdir(sys.argv[2])
    write_sample(sys.argv[1], Path("data"), size=20)
    make_folds(configure(sys.argv[1], "unbroken"))
    kill_again_and_again(sys.argv[1])
