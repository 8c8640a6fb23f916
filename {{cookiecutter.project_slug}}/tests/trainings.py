"""Trainings in processes of their own, for tests: how they are started, and whether two of them ended alike."""

import csv
import gc
import io
import json
import os
import resource
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, redirect_stdout, suppress
from functools import cache, partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NoReturn

import leftovers
import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from tiny import draw_no_plots
from warm import warm_python

from competition.__main__ import COLLECT
from competition.cli.app import main
from competition.config.loading import dump_config, task_names
from competition.config.settings import Config
from competition.files.crops import COLUMNS, CROPS
from competition.files.item_source import test_source, train_source
from competition.files.maps import MAPS, write_maps
from competition.pipeline import run as run_module
from competition.pipeline.train_fold import train
from competition.prediction.stored import PredictionWriter
from competition.runs.folder import CHOSEN
from competition.support.atomic_files import write_csv
from competition.support.optional_rooms import has_room
from competition.tasks.contract import Task
from competition.training.checkpoint import epoch_paths, load_checkpoint
from competition.training.logger import MetricsPlot
from competition.training.module import CompetitionModule

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


def begin(
    project: Path, folder: Path, *words: str, verb: str = "train", python: str = sys.executable
) -> subprocess.Popen[str]:
    """Start `competition train ...` in a folder."""
    environment = os.environ | {"PYTHONPATH": str(project)}
    command = [python, "-m", "competition", verb, *words]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run_as_script(path: str, *words: object, timeout: float = 600) -> str:
    """Run a file of these tests in a process of its own, from which many are forked; return what it printed."""
    one = nursery()
    assert one.stdin is not None
    assert one.stdout is not None
    with tempfile.NamedTemporaryFile() as said:
        order = {"path": path, "words": [*map(str, words)], "folder": os.getcwd(), "said": said.name}  # noqa: PTH109
        try:
            one.stdin.write(json.dumps(order | {"environment": dict(os.environ)}) + "\n")
            one.stdin.flush()
            is_done, *_ = select.select([one.stdout], [], [], timeout)
            status = one.stdout.readline().strip() if is_done else f"not done in {timeout:g} seconds"
        except BaseException:
            close_nursery()
            raise
        if not is_done:
            close_nursery()
        text = Path(said.name).read_text(encoding="utf-8")
        assert status == "0", f"{status}\n{text}"
        return text


@cache
def nursery() -> subprocess.Popen[str]:
    """Start a Python that imports once what all scripts would, each of which is then a fork of it.

    It is no test's, to be ended with it, but this process's: as soon as that closes its end, or has ended, it ends
    with what it has started.
    """
    tests = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tests.parent, tests))), "OMP_NUM_THREADS": "1"}
    environment.pop(leftovers.mark(os.getpid()), None)
    pipe = subprocess.PIPE
    return subprocess.Popen([warm_python(), __file__], env=environment, text=True, stdin=pipe, stdout=pipe)


def close_nursery() -> None:
    """End it with what it has started, so that the next script is a fork of a new one."""
    one = nursery()
    nursery.cache_clear()
    if one.stdin is not None:
        one.stdin.close()
    one.wait(60)


def serve() -> None:
    """Run scripts in forks, one after another, and print the exit status of each."""
    get_ready(task_names())
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            _live_as_script(**json.loads(line))
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if select.select([sys.stdin], [], [], 0.02)[0]:  # nobody asks before the answer: it was closed
                os.killpg(child, signal.SIGKILL)
                return
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it has left
        print(os.waitstatus_to_exitcode(ended[1]), flush=True)


def _live_as_script(path: str, words: list[str], folder: str, said: str, environment: dict[str, str]) -> NoReturn:
    """Be `python PATH WORD...` from here on, in a folder; all that it says goes to a file."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(said, os.O_WRONLY), 1)
    os.dup2(1, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, str(Path(path).parent))
    sys.argv = [path, *words]
    status = 1
    try:
        runpy.run_path(path, run_name="__main__")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_on_two(*words: object) -> str:
    """Run a verb on two processes, as torchrun would; return what the first one said.

    They are forks: where Lightning starts the second, each imports for longer than it computes.
    """
    return run_as_script(__file__, *words)


def get_ready(tasks: Iterable[str]) -> None:
    """Import once what every fork would, and compute in one thread: others would not live on in a fork."""
    torch.set_num_threads(1)
    for name in tasks:
        for module in ("table", "dataset", "model", "loss", "prediction", "decode", "score"):
            getattr(Task(name), module)
    gc.freeze()  # or each fork would look through all that was imported, and copy it, for nothing
    gc.set_threshold(*COLLECT)


def fork_group(size: int, live: Callable[[int], object], *, machines: int = 1) -> list[int]:
    """Call a function with the rank of each process of a group, in forks; return their ids.

    To Lightning they look as if torchrun had started them, on one machine or several. A fork starts in no time, where a
    new Python would import for seconds; what it says stands in said0, said1, ...
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    here = size // machines
    group = {"TORCHELASTIC_RUN_ID": "t", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    group |= {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": here}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank % here, "GROUP_RANK": rank // here} for rank in range(size)]
    return [fork(f"said{each['RANK']}", lambda each=each: join(group | each, live)) for each in ranks]


def join(variables: dict[str, Any], live: Callable[[int], object]) -> None:
    """Call a function with the rank that variables of torchrun's say, as a process of a group from here on."""
    os.environ |= {key: str(value) for key, value in variables.items()}
    setattr(rank_zero_only, "rank", variables["RANK"])  # noqa: B010 - set when it was imported, before the fork
    live(variables["RANK"])


def fork(said: str, live: Callable[[], object]) -> int:
    """Call a function in a fork, which says what it has to say into a file; return its id."""
    child = os.fork()
    if child:
        return child
    try:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        sys.executable = "true"  # the program that would draw metrics.png, for longer than an epoch takes
        live()
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def before_steps(do: Callable[[CompetitionModule], object]) -> None:
    """Have this process, which is a fork, do something before each step of its training."""
    take_step = CompetitionModule.training_step

    def do_and_take(module: CompetitionModule, *batch: Any) -> Any:
        do(module)
        return take_step(module, *batch)

    setattr(CompetitionModule, "training_step", do_and_take)  # noqa: B010


def train_until_killed(config: Config, step: int) -> None:
    """Train up to a step, and wait for the end before the next: however busy the machine is, none is taken."""

    def wait_from_there_on(module: CompetitionModule) -> None:
        while module.global_step >= step:
            signal.pause()

    before_steps(wait_from_there_on)
    train(config, resume=True)


def kill_at(step: int, children: Iterable[int], latest: Path) -> None:
    """Kill the processes of a training, which is `train_until_killed`, once it has saved a step."""
    children = list(children)
    while not latest.is_file() or load_checkpoint(latest)["global_step"] < step:
        assert os.waitpid(children[0], os.WNOHANG) == (0, 0), Path("said0").read_text()
        time.sleep(0.02)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def wait(children: Iterable[int]) -> None:
    """Wait until all processes of a group have ended well."""
    ended = [os.waitpid(child, 0)[1] for child in children]
    assert not any(ended), "\n".join(path.read_text() for path in sorted(Path().glob("said*")))


def run_here(folder: Path, words: Iterable[object], *, whole: bool = False) -> CompletedProcess[str]:
    """Run the same in this process, and what it starts, too: each process imports for longer than it trains. Only where
    the whole is asked for, metrics.png is drawn, by warm processes, and wheels are downloaded."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.chdir(folder)
        patch.setattr(sys, "executable", warm_python())
        draw_no_plots(patch)
        here = partial(call, plot=whole)
        patch.setattr(run_module, "run_jobs", lambda jobs, *_: [here(*words_of(job, whole)) for job in jobs])
        status = here("run", *words)
    return CompletedProcess([], status, said.getvalue(), "")


def words_of(job: run_module.Job, whole: bool) -> list[object]:
    return [*job.words, *job.late_words(), *(["--no-wheels"] if job.words[0] == "bundle" and not whole else [])]


def run_whole_way(folder: Path, words: Iterable[object]) -> Path:
    """Go from train.csv to submission.csv and to that of its bundle, which must be the same; return the run's folder.

    Without pages, which take longest.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "has_room", lambda name: name == "bundle" and has_room(name))
        done = run_here(folder, words)
    assert done.returncode == 0, done.stdout
    (run,) = (path.parent for path in folder.glob("outputs/*/submission.csv"))
    if has_room("bundle"):
        from competition.bundle.offline import infer

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            shutil.rmtree(folder / "data" / "train_images")
            written = infer(run / "bundle", folder / "data", folder / "submission.csv")
        pd.testing.assert_frame_equal(pd.read_csv(written), pd.read_csv(run / "submission.csv"))
    return run


def call(*words: object, plot: bool = False) -> int:
    """Run `competition VERB ...` in this process; return the exit status. A process draws metrics.png where asked."""
    with pytest.MonkeyPatch.context() as patch:
        if not plot:
            patch.setattr(MetricsPlot, "finish", lambda _: None)
        patch.setattr(sys, "argv", ["competition", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def child_running(parent: int, verb: str = "train") -> int | None:
    """Return the other process of a verb that goes on in the folder of one, which has started it; others draw its
    metrics.png."""
    folder = Path(f"/proc/{parent}/cwd").resolve()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_of_verb = f"\0{verb}\0".encode() in (process / "cmdline").read_bytes()
            if is_of_verb and int(process.name) != parent and (process / "cwd").resolve() == folder:
                return int(process.name)
        except OSError:  # it has ended
            continue
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
    assert [path.name for path in epoch_paths(folder)] == [path.name for path in epoch_paths(unbroken)]
    chosen = [path for name in CHOSEN.values() for path in unbroken.glob(name)]
    for path in [*epoch_paths(unbroken), *chosen]:
        assert_same(load_checkpoint(folder / path.name)["state_dict"], load_checkpoint(path)["state_dict"], path.name)
    with np.load(folder / "oof.npz") as found, np.load(unbroken / "oof.npz") as expected:
        assert found.files == expected.files
        assert all(np.array_equal(found[name], expected[name]) for name in expected.files)


def write_teacher(config: Config, name: str, said: dict[str, dict[str, np.ndarray]], classes: Iterable[str]) -> None:
    """Write a run that says so of images: by path in its folder, fold0/oof.npz or test.npz, an array (n,) an image."""
    for path, answers in said.items():
        place = config.run_folder.parent / name / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.parent.name.startswith("fold"):
            (place.parent / "config.yaml").write_text(dump_config(config.model_copy(update={"name": name})))
        with PredictionWriter(place.parent) as writer:
            for image_id, values in answers.items():
                writer.add(image_id, 64, 64, {"probabilities": values.astype(np.float32)})
            writer.finish(place, classes)


def write_looks(config: Config, name: str) -> None:
    """Write what a run might say of all images: crops.csv, a box in each, and maps/ of a class `here`."""
    rng, task = np.random.default_rng(0), Task(config.task)
    table = task.table.read_table(config)
    test_ids = task.submission.read_test_ids(config, table.classes)
    images = [("train", one, train_source(config, one).read_size()) for one in table.image_ids.tolist()]
    images += [("test", one, test_source(config, one).read_size()) for one in test_ids.tolist()]
    folder = config.run_folder.parent / name
    maps = ((part, one, rng.random((1, *size)), size) for part, one, size in images)
    write_maps(folder / MAPS, ["here"], maps)
    boxes = ((*rng.random(2) / 4, *(0.5 + rng.random(2) / 4)) for _ in images)
    write_csv(folder / CROPS, COLUMNS, ((*image[:2], *box, 1) for image, box in zip(images, boxes, strict=True)))


def looking_by(config: Config, name: str) -> list[str]:
    """Return the words by which such a run is looked by: all tasks have use for maps, one for crops."""
    maps = [f"data.maps={{run: {name}, classes: [here]}}", "data.channels=6"]
    return [*maps, *([f"data.crop={{run: {name}}}"] if not config.model.answers_places else [])]


def live_as_one_of_two(rank: int) -> None:
    assert call(*sys.argv[1:]) == 0


if __name__ == "__main__" and not sys.argv[1:]:
    serve()
elif __name__ == "__main__":
    get_ready(task_names())
    wait(fork_group(2, live_as_one_of_two))
    print(Path("said0").read_text(), end="")
    for path in Path().glob("said*"):
        path.unlink()
