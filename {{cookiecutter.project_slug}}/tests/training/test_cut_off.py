"""One of two machines, which are network namespaces here, is cut off in mid-training: both end, and one goes on."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from competition.config.loading import load_config, task_names
from competition.data.folds import make_folds
from competition.tasks.made_up_images import write_sample
from competition.training.checkpoint import load_checkpoint
from tiny import PROJECT, TINY

Command = Callable[..., CompletedProcess[str]]

LONG = 600  # seconds, on a busy machine; without being told, a process would wait for half an hour
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


def train_on(machine: str, rank: int, words: list[str]) -> subprocess.Popen[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--node-rank", str(rank), "--master-addr", ADDRESSES[0], "--master-port", "29555"]
    command = ["ip", "netns", "exec", machine, *torchrun, "-m", "competition", "train", *words]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "GLOO_SOCKET_IFNAME": machine}
    with Path(f"said{rank}").open("wb") as said:
        return subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_a_machine_that_is_cut_off_ends_the_training_soon_and_it_goes_on_with_what_is_left(
    machines: tuple[str, str], command: Command, tmp_path: Path
) -> None:
    task = task_names()[0]
    write_sample(task, tmp_path / "data", size=20)
    words = [str(PROJECT / "configs" / f"{task}.yaml"), *TINY, "data.image_size=32", "checkpoint.every_steps=1"]
    words += ["fold=0", "name=t", "trainer.max_epochs=1000"]
    make_folds(load_config([Path(words[0])], words[1:]))
    latest = tmp_path / "outputs" / "t" / "fold0" / "latest.pt"
    together = ["trainer.num_nodes=2", "trainer.devices=1", "trainer.strategy=ddp"]
    processes = [train_on(machine, rank, [*words, *together]) for rank, machine in enumerate(machines)]
    until = time.monotonic() + LONG
    while not latest.is_file() or load_checkpoint(latest)["epoch"] < 1:
        assert [process.poll() for process in processes] == [None, None], Path("said0").read_text()
        assert time.monotonic() < until, Path("said0").read_text()
        time.sleep(0.2)
    time.sleep(5)  # both have heard of each other
    ip("-n", machines[1], "link", "set", machines[1], "down")
    assert all(process.wait(LONG) != 0 for process in processes)
    for rank, other in ((0, 1), (1, 0)):
        [line] = [line for line in Path(f"said{rank}").read_text().splitlines() if line.startswith("process ")]
        assert line == (
            f"process {rank}: nothing was heard of machine {other} for 30 seconds: it has ended, or the network to it "
            "is cut; the last latest.pt is whole: go on with --resume"
        )
    before = load_checkpoint(latest)["global_step"]
    done = command("train", *words, "--resume", "trainer.max_time=00:00:00:00")
    assert done.returncode == 3, done.stderr
    assert load_checkpoint(latest)["global_step"] == before + 1
