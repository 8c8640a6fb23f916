"""A training of which all is random that can be: killed in mid-epoch it ends, bit for bit, as an unbroken one does.

Mixed images, windows, pseudo-labels, a further set of half the weight, another run to learn from, averaged weights and
epochs, layers that learn later, sizes and rates by epoch, what yet another run says of each image, two workers, and of
one task two processes, and weights to predict with that are chosen among all ways, which know of no task: all at once.

Run as a script, this file does it: python tests/training/test_exact_resume.py FOLDER. Its child processes are forks,
which start in no time where a new Python would import for seconds.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import small_words
from trainings import (
    assert_ended_like,
    fork,
    fork_group,
    get_ready,
    kill_at,
    looking_by,
    rows,
    run_as_script,
    train_until_killed,
    wait,
    write_looks,
    write_teacher,
)

from competition.config.loading import load_config, task_names
from competition.config.settings import Config
from competition.data.folds import make_folds
from competition.pipeline.train_fold import train
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.training.checkpoint import load_checkpoint

PROJECT = Path(__file__).resolve().parents[2]
PROCESSES, EPOCHS = 2, 2  # processes of the first task; the others are trained by one
# Optimizer steps, after which it is saved: in the middle of an epoch. (test_kill.py kills at any moment.)
KILLED_AT = (4,)
TOGETHER = ("trainer.strategy=ddp", f"trainer.devices={PROCESSES}", "checkpoint.keep=2", "checkpoint.predict_with=auto")
ALONE = ("trainer.devices=1",)
WORDS = (
    *("model.encoder=test_resnet", "data.batch_size=4", "data.num_workers=2"),
    *("trainer.accelerator=cpu", f"trainer.max_epochs={EPOCHS}", "ema.decay=0.5", "checkpoint.every_steps=4"),
    "model.channels_last=true",
    *("optimizer.name=lion", "optimizer.layer_decay=0.9", "scheduler.name=plateau", "scheduler.patience=1"),
    *("model.freeze=0.5", "model.unfreeze_epoch=1", "data.image_size=[[0, 32], [1, 64]]"),
    "data.augmentation.more=[{Rotate: {p: 0.5}}, {OneOf: {transforms: [GaussNoise, {RandomGamma: {p: 1}}]}}]",
    *("data.window.size=96", "data.window.overlap=0", "data.pseudo=data/solution.csv"),
)


def configure(task: str, name: str) -> Config:
    """Return the config of a training of which everything is random that can be."""
    shipped = PROJECT / "configs" / f"{task}.yaml"
    plain = load_config([shipped])
    ways = getattr(plain, "mix")  # noqa: B009 - each task has its own
    taught = ["loss.distil.run=teacher"] if type(plain.loss).has_teachers else []
    more = [*(TOGETHER if task == task_names()[0] else ALONE), *taught]
    more += [f"mix.{key}=0.8" for key in type(ways).model_fields]
    if hasattr(plain.model, "join_columns"):
        more.append("data.columns.categorical=[image_id]")  # a column that every table has
    looks = looking_by(plain, "looked")
    whole = ", crop: whole" if len(looks) > 2 else ""
    more += [*looks, f"data.extra=[{{csv: train.csv, weight: 0.5, maps: looked{whole}}}]"]
    return load_config([shipped], [*WORDS, *small_words(task), *more, f"name={name}"])


def teach(config: Config) -> None:
    """Write the run that a training learns from, if it does."""
    if config.loss.distil is None:
        return
    table, rng = Task(config.task).table.read_table(config), np.random.default_rng(0)
    ids = {"fold0/oof.npz": table.image_ids.tolist()}
    ids["test.npz"] = Task(config.task).submission.read_test_ids(config, table.classes).tolist()
    like = next(iter(Task(config.task).decode.trial_predictions(len(table.classes), config)))["probabilities"]
    shares = (rng.random(like.shape) / len(like) for _ in range(sum(map(len, ids.values()))))
    said = {path: {one: next(shares) for one in its} for path, its in ids.items()}
    write_teacher(config, "teacher", said, table.classes)


def start(config: Config, learn: Callable[[Config], object]) -> list[int]:
    """Train in forks, one a process, and return their ids."""
    if config.trainer["devices"] == 1:
        return [fork("said0", lambda: learn(config))]
    return fork_group(PROCESSES, lambda rank: learn(config))


def go_on(config: Config) -> None:
    train(config, resume=True)


def kill(config: Config, step: int) -> bool:
    """Train, and kill it after it has saved a step; return whether that was in the middle of an epoch."""
    latest = config.fold_folder / "latest.pt"
    kill_at(step, start(config, lambda config: train_until_killed(config, step)), latest)
    return load_checkpoint(latest)["FoldData"]["batches_done"] > 0


def compare(task: str) -> int:
    """Train unbroken and killed; return how many kills were in the middle of an epoch."""
    unbroken, killed = configure(task, "unbroken"), configure(task, "killed")
    wait(start(unbroken, go_on))
    in_mid_epoch = [kill(killed, step) for step in KILLED_AT]
    wait(start(killed, go_on))
    assert_ended_like(killed.fold_folder, unbroken.fold_folder)
    assert len(rows(killed.fold_folder)) == EPOCHS
    return sum(in_mid_epoch)


@pytest.mark.slow
def test_trainings_with_everything_random_resume_to_the_same_end(tmp_path: Path) -> None:
    said = run_as_script(__file__, tmp_path)
    compared = dict(line.split(": ") for line in said.splitlines() if " in mid-epoch" in line)
    assert compared.keys() == set(task_names())
    assert max(compared.values())[0] != "0"


if __name__ == "__main__":
    get_ready(task_names())
    for name in task_names():
        (Path(sys.argv[1]) / name).mkdir()
        os.chdir(Path(sys.argv[1]) / name)
        write_sample(name, Path("data"), size=20)
        make_folds(configure(name, "unbroken"))
        teach(configure(name, "unbroken"))
        write_looks(load_config([PROJECT / "configs" / f"{name}.yaml"]), "looked")
        print(f"{name}: {compare(name)} of {len(KILLED_AT)} in mid-epoch", flush=True)
