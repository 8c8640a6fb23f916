"""A training of which all is random that can be: killed in mid-epoch it ends, bit for bit, as an unbroken one does.

Mixed images, windows, pseudo-labels, averaged weights, two processes with two workers each: all at once. (One process
is test_kill.py's and test_resume.py's.)

Run as a script, this file does it: python tests/training/test_exact_resume.py FOLDER. Its child processes are forks,
which start in no time where a new Python would import for seconds.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from trainings import assert_ended_like, rows

from competition.config.loading import load_config, task_names
from competition.config.settings import Config
from competition.data.folds import make_folds
from competition.pipeline.train import train
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.training.checkpoint import load_checkpoint

PROJECT = Path(__file__).resolve().parents[2]
PROCESSES, EPOCHS = 2, 2
KILLED_AT = (2, 6)  # optimizer steps: in the middle of the first epoch and of the second
WORDS = (
    *("model.encoder=test_resnet", "data.image_size=32", "data.batch_size=4", "data.num_workers=2"),
    *("trainer.accelerator=cpu", f"trainer.max_epochs={EPOCHS}", "ema.decay=0.5", "checkpoint.every_steps=1"),
    *("trainer.strategy=ddp", f"trainer.devices={PROCESSES}"),
    "model.channels_last=true",
    *("data.window.size=96", "data.window.overlap=0", "data.pseudo=data/solution.csv"),
)


def configure(task: str, name: str) -> Config:
    """Return the config of a training of which everything is random that can be."""
    shipped = PROJECT / "configs" / f"{task}.yaml"
    ways = getattr(load_config([shipped]), "mix")  # noqa: B009 - each task has its own
    return load_config([shipped], [*WORDS, *(f"mix.{key}=0.8" for key in type(ways).model_fields), f"name={name}"])


def start(config: Config) -> list[int]:
    """Train in forks, one a process, and return their ids; to Lightning they look as if torchrun had started them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    children = []
    for rank in range(PROCESSES):
        child = os.fork()
        if child == 0:
            live(config, rank, port)
        children.append(child)
    return children


def live(config: Config, rank: int, port: int) -> NoReturn:
    """Be one of the processes, to the end."""
    try:
        os.dup2(os.open(f"said{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        group = {"TORCHELASTIC_RUN_ID": "t", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        sizes = {"WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES, "RANK": rank, "LOCAL_RANK": rank}
        os.environ |= {key: str(value) for key, value in (group | sizes).items()}
        setattr(rank_zero_only, "rank", rank)  # noqa: B010 - set from RANK when it was imported, before the fork
        sys.executable = "true"  # the program that would draw metrics.png, for longer than an epoch takes
        train(config, resume=True)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)


def wait(children: list[int]) -> None:
    """Wait until a training has ended well."""
    ended = [os.waitpid(child, 0)[1] for child in children]
    assert not any(ended), "\n".join(path.read_text() for path in sorted(Path().glob("said*")))


def kill(config: Config, children: list[int], step: int) -> bool:
    """Kill a training after it has saved a step; return whether that was in the middle of an epoch."""
    latest = config.fold_folder / "latest.pt"
    while not latest.is_file() or load_checkpoint(latest)["global_step"] < step:
        assert os.waitpid(children[0], os.WNOHANG) == (0, 0), Path("said0").read_text()
        time.sleep(0.005)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return load_checkpoint(latest)["FoldData"]["batches_done"] > 0


def compare(task: str) -> int:
    """Train unbroken and killed; return how many kills were in the middle of an epoch."""
    unbroken, killed = configure(task, "unbroken"), configure(task, "killed")
    wait(start(unbroken))
    in_mid_epoch = [kill(killed, start(killed), step) for step in KILLED_AT]
    wait(start(killed))
    assert_ended_like(killed.fold_folder, unbroken.fold_folder)
    assert len(rows(killed.fold_folder)) == EPOCHS
    return sum(in_mid_epoch)


@pytest.mark.slow
def test_trainings_with_everything_random_resume_to_the_same_end(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    compared = dict(line.split(": ") for line in done.stdout.splitlines() if " in mid-epoch" in line)
    assert compared.keys() == set(task_names())
    assert max(compared.values())[0] != "0"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in task_names():
        (Path(sys.argv[1]) / name).mkdir()
        os.chdir(Path(sys.argv[1]) / name)
        write_sample(name, Path("data"), size=24)
        make_folds(configure(name, "unbroken"))
        for module in ("table", "dataset", "model", "loss", "prediction", "decode", "score"):
            getattr(Task(name), module)  # imported here once and not by every fork
        print(f"{name}: {compare(name)} of {len(KILLED_AT)} in mid-epoch", flush=True)
