"""One of two machines, which are network namespaces here, is cut off in mid-training: both end, and one goes on."""

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import NoReturn

import pytest
from tiny import PROJECT, tiny_words
from trainings import before_steps, call, fork, get_ready, join, run_as_script

from competition.config.loading import load_config, task_names
from competition.data.folds import make_folds
from competition.tasks.made_up_images import write_sample
from competition.training.checkpoint import load_checkpoint

Command = Callable[..., CompletedProcess[str]]

LONG = 600  # seconds, on a busy machine; without being told, a process would wait for half an hour
REST = 1.5  # seconds before a step, which leave the cores to other tests: it trains until it is cut off, which is late
LATEST = Path("outputs", "t", "fold0", "latest.pt")
CLONE_NEWNET = 0x40000000  # of Linux: the kind of namespace to enter
ADDRESSES = ("10.213.77.1", "10.213.77.2")  # of no network but the one between the two


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=True).stdout


@contextmanager
def namespace(name: str) -> Generator[None]:
    """Make a network namespace; end what runs in it and delete it, whatever happens."""
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for process in ip("netns", "pids", name).split():
            subprocess.run(["kill", "-9", process], check=False, capture_output=True)
        ip("netns", "delete", name)


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    """Make two namespaces with a cable between them; its ends bear their names."""
    if shutil.which("ip") is None:
        pytest.skip("needs the program ip (apt-get install iproute2)")
    names = f"one{os.getpid()}", f"two{os.getpid()}"
    with ExitStack() as made:
        try:
            for name in names:
                made.enter_context(namespace(name))
            ip("link", "add", names[0], "netns", names[0], "type", "veth", "peer", "name", names[1], "netns", names[1])
            for name, address in zip(names, ADDRESSES, strict=True):
                ip("-n", name, "address", "add", f"{address}/30", "dev", name)
                ip("-n", name, "link", "set", name, "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        yield names


def train_on(machine: str, rank: int, words: list[str]) -> None:
    """Train on a machine from here on, as a process that torchrun has started there."""
    with Path("/var/run/netns", machine).open() as its:
        assert ctypes.CDLL(None, use_errno=True).setns(its.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    os.environ["GLOO_SOCKET_IFNAME"] = machine
    before_steps(lambda _: time.sleep(REST))
    group = {"TORCHELASTIC_RUN_ID": "t", "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": 29555, "WORLD_SIZE": 2}
    of_rank = {"RANK": rank, "GROUP_RANK": rank, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    join(group | of_rank, lambda _: end(call("train", *words)))


def end(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def train_until_cut_off(machines: list[str], words: list[str]) -> None:
    """Train on both in forks; cut one off, and see both end."""
    together = ["trainer.num_nodes=2", "trainer.devices=1", "trainer.strategy=ddp"]
    ranks = [
        fork(f"said{rank}", lambda rank=rank, machine=machine: train_on(machine, rank, [*words, *together]))
        for rank, machine in enumerate(machines)
    ]
    while not LATEST.is_file() or load_checkpoint(LATEST)["epoch"] < 1:
        assert [os.waitpid(rank, os.WNOHANG)[0] for rank in ranks] == [0, 0], Path("said0").read_text()
        time.sleep(0.2)
    time.sleep(20)  # both have heard of each other, also on a busy machine
    ip("-n", machines[1], "link", "set", machines[1], "down")
    assert all(os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) != 0 for rank in ranks)


@pytest.mark.slow
def test_a_machine_that_is_cut_off_ends_the_training_soon_and_it_goes_on_with_what_is_left(
    machines: tuple[str, str], command: Command, tmp_path: Path
) -> None:
    task = task_names()[0]
    write_sample(task, tmp_path / "data", size=20)
    words = [str(PROJECT / "configs" / f"{task}.yaml"), *tiny_words(task), "checkpoint.every_steps=1"]
    words += ["fold=0", "name=t", "trainer.max_epochs=1000"]
    make_folds(load_config([Path(words[0])], words[1:]))
    run_as_script(__file__, *machines, *words, timeout=LONG)
    for rank, other in ((0, 1), (1, 0)):
        [line] = [line for line in Path(f"said{rank}").read_text().splitlines() if line.startswith("process ")]
        assert line == (
            f"process {rank}: nothing was heard of machine {other} for 30 seconds: it has ended, or the network to it "
            "is cut; the last latest.pt is whole: go on with --resume"
        )
    before = load_checkpoint(LATEST)["global_step"]
    done = command("train", *words, "--resume", "trainer.max_time=00:00:00:00")
    assert done.returncode == 3, done.stderr
    assert load_checkpoint(LATEST)["global_step"] == before + 1


if __name__ == "__main__":
    get_ready(task_names()[:1])
    train_until_cut_off(sys.argv[1:3], sys.argv[3:])
