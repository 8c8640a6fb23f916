"""Ctrl-C at any moment: one line, exit status 130, no traceback, and no process that stays."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import PROJECT, TINY

from competition.config import task_names
from competition.sample import write_sample

TASK = task_names()[0]
CONFIG = str(PROJECT / "configs" / f"{TASK}.yaml")


@pytest.fixture(scope="module", autouse=True)
def heeding_ctrl_c() -> Iterator[None]:
    """What a shell starts in the background, these tests as well, ignores Ctrl-C and hands that down."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(folder: Path, *words: str, python: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start `competition VERB ...` as a group of processes of its own."""
    return subprocess.Popen(
        [sys.executable, *python, "-m", "competition", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> list[str]:
    """Wait for the end of a process and of all that it has started; return what it said."""
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT, errors
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    return [line for line in errors.splitlines() if not line.startswith("import time:")]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("typer.", ["--help"]),
        ("competition.errors", ["check", CONFIG]),
        ("yaml", ["folds", CONFIG]),
        pytest.param("torch._C", ["train", CONFIG, *TINY], marks=pytest.mark.slow),
        pytest.param("pytorch_lightning.loggers", ["train", CONFIG, *TINY], marks=pytest.mark.slow),
    ],
)
def test_while_modules_are_imported(module: str, words: list[str], tmp_path: Path) -> None:
    write_sample(TASK, tmp_path / "data", size=20)  # without data a training ends before it loads torch
    process = start(tmp_path, *words, python=("-X", "importtime"))  # Python names each module as it is imported
    assert process.stderr is not None
    for line in process.stderr:
        if line.rpartition("|")[2].strip().startswith(module):
            process.send_signal(signal.SIGINT)
            break
    assert end(process) == ["stopped by Ctrl-C"]


@pytest.mark.parametrize("verb", ["check", "folds"])
def test_while_the_table_is_read(verb: str, tmp_path: Path) -> None:
    write_sample(TASK, tmp_path / "data", size=20)
    table = tmp_path / "data" / "train.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *rows * 20_000]))  # takes a second to read
    process = start(tmp_path, verb, CONFIG, *TINY)
    while not is_open(process, table) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert end(process) == ["stopped by Ctrl-C"]


def is_open(process: subprocess.Popen[str], path: Path) -> bool:
    """Return whether a process has a file open."""
    for link in Path(f"/proc/{process.pid}/fd").glob("*"):
        with suppress(OSError):  # closed meanwhile
            if link.readlink() == path:
                return True
    return False


@pytest.mark.slow
def test_again_and_again_in_a_training_ends_it_with_its_workers(tmp_path: Path) -> None:
    write_sample(TASK, tmp_path / "data", size=24)
    assert start(tmp_path, "folds", CONFIG).wait(timeout=60) == 0
    workers = ("data.num_workers=2", "data.image_size=256", "trainer.max_epochs=1000", "sampler.share=natural")
    process = start(tmp_path, "train", CONFIG, *TINY, *workers)
    while not (tmp_path / "outputs" / TASK / "fold0" / "latest.pt").is_file() and process.poll() is None:
        time.sleep(0.05)
    # The first asks to stop at the next step, the second to do so at once, others come while it ends.
    for _ in range(100):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers get it, too
            time.sleep(0.02)
    # A worker may complain that it was cut off while it handed a batch over.
    assert "stopped by Ctrl-C" in end(process)


READING = """
import multiprocessing, subprocess, sys
from pathlib import Path
from competition.config import load_config
from competition.dataset import ImageDataset
from competition.loader import evaluation_loader

multiprocessing.set_start_method(sys.argv[2])
config = load_config([Path(sys.argv[1])], ["data.num_workers=2", "data.batch_size=1", "data.image_size=32"])
image_ids = [path.name for path in sorted(Path("data/test_images").glob("*"))]
for number, batch in enumerate(evaluation_loader(ImageDataset(config, image_ids))):
    if number == 1:  # both have begun; as a scheduler does
        subprocess.run(["kill", *(str(worker.pid) for worker in multiprocessing.active_children())], check=True)
assert number + 1 == len(image_ids)
for number, batch in enumerate(evaluation_loader(ImageDataset(config, image_ids))):
    if number == 1:
        reader, *_ = multiprocessing.active_children()
        reader.terminate()
        reader.join(20)
        assert reader.exitcode == 0
        raise ValueError("out of memory, say")
"""


@pytest.mark.parametrize("start_method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_processes_that_read_images_end_by_the_word_of_their_main_process_alone(
    project: Path, tmp_path: Path, start_method: str
) -> None:
    write_sample(TASK, tmp_path / "data", size=40)
    command = [sys.executable, "-c", READING, str(CONFIG), start_method]
    environment = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run(  # where they ignored that, too, it would wait for ever
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ValueError: out of memory, say"
