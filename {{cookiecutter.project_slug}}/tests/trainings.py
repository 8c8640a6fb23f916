"""Trainings in processes of their own, for tests: how they are started, and whether two of them ended alike."""

import csv
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from competition.training.checkpoint import load_checkpoint

MEASURED = ("seconds", "samples_per_second", "memory_mb")  # the columns of metrics.csv that no two runs share


@contextmanager
def files_up_to(size: int) -> Generator[None]:
    """Let the system refuse to make any file larger, as it does when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def begin(project: Path, folder: Path, *words: str, verb: str = "train") -> subprocess.Popen[str]:
    """Start `competition train ...` in a folder."""
    environment = os.environ | {"PYTHONPATH": str(project)}
    command = [sys.executable, "-m", "competition", verb, *words]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def child_running(parent: int, verb: str = "train") -> int | None:
    """Return the process of the same verb that a process has started; others draw its metrics.png."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            of = int(status.read_text().rpartition(")")[2].split()[1])
            is_of_verb = f"\0{verb}\0".encode() in (status.parent / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if of == parent and is_of_verb:
            return int(status.parent.name)
    return None


def kill_one_of_two(process: subprocess.Popen[str], lost: int, verb: str = "train") -> str:
    """Kill the first or second process of a verb on two; return the only line that the other says before it ends."""
    second = child_running(process.pid, verb)
    assert second is not None, process.communicate()[1]
    os.kill([process.pid, second][lost], signal.SIGKILL)
    _, errors = process.communicate(
        timeout=300
    )  # a minute or less where the machine is not busy; comes back when nobody holds the other end any more
    assert process.returncode not in (0, None)
    (line,) = errors.splitlines()
    return line


def end(process: subprocess.Popen[str], status: int) -> str:
    """Wait for a training's end with an exit status; return what it said on standard error."""
    _, errors = process.communicate(timeout=600)
    assert process.returncode == status, errors
    return errors


def rows(folder: Path) -> list[dict[str, str]]:
    """Read metrics.csv but for what is measured of the machine."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in MEASURED} for row in csv.DictReader(file)]


def assert_same(found: Any, expected: Any, where: str = "") -> None:
    """Compare nested states; tensors bit by bit."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    else:
        assert found == expected, where


def assert_ended_like(folder: Path, unbroken: Path) -> None:
    """Weights, optimizer, schedule and best value, the rows of metrics.csv and the predictions are the same."""
    for name in ("latest.pt", "best_loss.pt"):
        found, expected = (load_checkpoint(at / name) for at in (folder, unbroken))
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step"):
            assert_same(found[part], expected[part], f"{name}: {part}")
    assert rows(folder) == rows(unbroken)
    with np.load(folder / "oof.npz") as found, np.load(unbroken / "oof.npz") as expected:
        assert found.files == expected.files
        assert all(np.array_equal(found[name], expected[name]) for name in expected.files)
