"""Ctrl-C at any moment: one line, exit status 130, no traceback, and no process that stays.

A stuck or dead process that reads images, and a full shared memory, too, leave nobody to wait for ever.
"""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from tiny import PROJECT, TINY
from warm import warm_python

from competition.config.loading import load_config, task_names
from competition.config.settings import Config
from competition.data import loaders
from competition.data.dataset import ImageDataset
from competition.data.folds import make_folds
from competition.data.loaders import ImageLoader, evaluation_loader
from competition.prediction.predict import predict_images
from competition.support.errors import CompetitionError, StoppedError
from competition.tasks.contract import Table, Task
from competition.tasks.made_up_images import write_sample
from competition.training import stopping
from competition.training.checkpoint import LatestAndBest
from competition.training.fold_data import FoldData
from competition.training.lost_process import explaining_lost_process
from competition.training.module import CompetitionModule
from competition.training.stopping import EndAtSigterm, StopInGoodOrder
from competition.training.trainer import build_trainer

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
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGINT, errors
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    return [line for line in errors.splitlines() if not line.startswith("import time:")]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("typer.", ["--help"]),
        ("competition.support.errors", ["check", CONFIG]),
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


@pytest.mark.parametrize("verb", ["check", pytest.param("folds", marks=pytest.mark.slow)])
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
    make_folds(load_config([Path(CONFIG)], [f"data.dir={tmp_path / 'data'}"]))
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
from competition.config.loading import load_config
from competition.data.dataset import ImageDataset
from competition.data.loaders import evaluation_loader

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


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["fork", "forkserver"])
def test_processes_that_read_images_end_by_the_word_of_their_main_process_alone(
    project: Path, tmp_path: Path, start_method: str
) -> None:
    write_sample(TASK, tmp_path / "data", size=40)
    python = warm_python() if start_method == "fork" else sys.executable
    command = [python, "-c", READING, str(CONFIG), start_method]
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "2"}  # as a user's: numpy has threads
    done = subprocess.run(  # where they ignored that, too, it would wait for ever
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ValueError: out of memory, say"


# -- processes that read images and do not hand them over


def made_up(folder: Path, *words: str) -> tuple[Config, Table]:
    write_sample(TASK, folder / "data", size=24)
    config = load_config([Path(CONFIG)], [*TINY, f"data.dir={folder / 'data'}", *words])
    return config, Task(TASK).table.read_table(config)


class AfterTheFirstStep(pl.Callback):
    """Sends a signal to the process that reads images."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid or 0, self.number)


def stop_while_it_waits(number: signal.Signals) -> None:
    """Stop this process once it waits in vain; where that does not help, let the test fail after a while."""
    waited = time.monotonic()
    while time.monotonic() - (ImageLoader.waits_since or time.monotonic()) < 1:
        time.sleep(0.1)
    os.kill(os.getpid(), number)
    while multiprocessing.active_children() and time.monotonic() - waited < 60:
        time.sleep(0.1)
    for worker in multiprocessing.active_children():
        worker.kill()


def fit(folder: Path, at_worker: signal.Signals) -> None:
    config, table = made_up(folder, "data.num_workers=1", "data.batch_size=2", "sampler.share=natural")
    checkpoint = LatestAndBest(folder, config.checkpoint, "min")
    callbacks = [AfterTheFirstStep(at_worker), checkpoint, StopInGoodOrder(checkpoint)]
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    data = FoldData(config, table, np.arange(len(table.image_ids)) % 2)
    with explaining_lost_process("training"):
        build_trainer(config, callbacks).fit(module, data)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_waits_for_a_stuck_process_in_vain_can_be_stopped(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "PATIENCE", 1.0)
    thread = Thread(target=stop_while_it_waits, args=(number,))
    thread.start()
    with pytest.raises(
        StoppedError, match=rf"stopped \({number.name}\) .* no images came .* nothing was saved yet"
    ) as end:
        fit(tmp_path, signal.SIGSTOP)
    assert end.value.status == 128 + number
    assert not multiprocessing.active_children()
    thread.join()


def test_a_process_that_is_killed_while_it_reads_images_ends_a_training_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        CompetitionError, match=r"^a process that reads images has ended .* Lower data\.num_workers or .*$"
    ):
        fit(tmp_path, signal.SIGKILL)


def test_a_prediction_ends_at_sigterm_and_leaves_nothing_behind(tmp_path: Path) -> None:
    class Terminating(ImageDataset):
        def read(self, index: int) -> np.ndarray:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().read(index)

    config, table = made_up(tmp_path)
    network = Task(TASK).model.build_network(config, len(table.classes)).eval()
    path = tmp_path / "run" / "test.npz"
    path.parent.mkdir()
    with pytest.raises(StoppedError, match="SIGTERM") as ended:
        predict_images(config, [network], Terminating(config, table.image_ids, table=table), path, table.classes)
    assert ended.value.status == 128 + signal.SIGTERM
    assert not list(path.parent.iterdir())


def test_a_prediction_that_ends_at_sigterm_ends_the_processes_it_has_started(tmp_path: Path) -> None:
    config, table = made_up(tmp_path, "trainer.devices=2", "trainer.strategy=ddp")
    trainer = build_trainer(config, [], training=False)
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    before = signal.getsignal(signal.SIGTERM)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as started:
        setattr(trainer.strategy.launcher, "procs", [started])  # noqa: B010 - that of ddp has it
        try:
            EndAtSigterm().on_predict_start(trainer, module)
            with pytest.raises(StoppedError, match="SIGTERM"):
                os.kill(os.getpid(), signal.SIGTERM)
            assert started.wait(60) == -signal.SIGTERM
        finally:
            signal.signal(signal.SIGTERM, before)
            started.kill()


@pytest.mark.parametrize("is_told", [True, False])
def test_images_arrive_where_shared_memory_is_full(
    is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the system tells how much is free, or refuses a batch: here by a limit of the size of any file."""
    config, table = made_up(tmp_path, "data.num_workers=2", "data.batch_size=12")
    dataset = ImageDataset(config, table.image_ids, table=table)
    (expected, *_), size = evaluation_loader(dataset), 12 * 3 * 64 * 64 * 4
    if is_told:
        monkeypatch.setattr(loaders, "RESERVE", 2**60)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
    try:
        crowded = evaluation_loader(dataset)
        crowded.timeout = 60  # instead of for ever
        found = list(crowded)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(found) == 2
    assert torch.equal(found[0]["image"], expected["image"])
    assert not is_told or not found[0]["image"].is_shared()
