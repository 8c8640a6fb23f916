"""What the tests share: a tiny made-up competition of each task type that is there, and the command line."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is loaded; tests and their processes share the cores

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process that tests start would compile the package anew

import atexit
import gc
import random
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import leftovers
import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings
from task_facts import facts_of
from tiny import PROJECT, draw_no_plots, tiny_words
from warm import look_through_packages_once, share_warm_python

from competition.__main__ import COLLECT
from competition.cli.app import main
from competition.config.loading import load_config, task_names
from competition.config.settings import Config
from competition.tasks.made_up_images import write_sample

WATCHING = leftovers.watch()
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process that tests start compiles the project anew
look_through_packages_once()

# A property is tried with the same examples each time, so that no change fails by what was there before it; others are
# tried by `pytest --hypothesis-profile=default`.
settings.register_profile("same examples", derandomize=True)
settings.load_profile("same examples")

Command = Callable[..., CompletedProcess[str]]
Once = Callable[[str, str, Callable[[Path], None]], Path]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out long tests that another task's stand for. Begin with the files that have slow tests, and keep each
    together: a long one at the end has one core work. First of all come those that wait, while others work."""
    left_out = {item for item in items if item.get_closest_marker("slow") and is_stood_for(item)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]
    waits, slow = ({item.path for item in items if item.get_closest_marker(name)} for name in ("waits", "slow"))
    order = {path: number for number, path in enumerate(dict.fromkeys(item.path for item in items))}
    items.sort(key=lambda item: (item.path not in waits, item.path not in slow, order[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for nothing that is no longer used while modules are imported: they would be looked through ever again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """From here on look for what is no longer used as seldom as the program does, and not among modules and tests."""
    gc.freeze()
    gc.set_threshold(*COLLECT)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Look once for what is no longer used, where pytest would five times."""
    gc.collect()
    gc.freeze()


if "PYTEST_XDIST_WORKER" in os.environ:
    atexit.register(os._exit, 0)  # what Python takes apart takes it longer than xdist waits for
else:
    # Let Python take apart what is left, or nanobind (of torch's compiler) prints at the end what it calls leaked. Not
    # before: pytest looks through it when it is done.
    atexit.register(gc.unfreeze)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        share_warm_python()


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    seed_what_is_random()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    seed_what_is_random()


def seed_what_is_random() -> None:
    """Let a test and each fixture draw the same numbers whenever it is run, alone or after others: a process begins
    with others each time. Networks are what is drawn, and a bound that most of them keep would fail now and then."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(0)  # not of GPUs: that takes longer than many a test


def is_stood_for(item: pytest.Item) -> bool:
    """Return whether a test of the fixture `task` is run for another one that answers in a like way, too."""
    if any("task" in mark.args[0] for mark in item.iter_markers("parametrize")):
        return False  # it says itself which tasks it is of
    task = getattr(getattr(item, "callspec", None), "params", {}).get("task")
    return task in task_names() and facts_of(task).alike in task_names()


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """End what a test has started and, because it failed, say, has not ended."""
    before = leftovers.running()
    yield
    leftovers.end(os.getpid(), before)


# What Lightning sets of a group of processes, also where the group is this process alone.
OF_A_GROUP = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


@pytest.fixture(autouse=True)
def no_group_left() -> Iterator[None]:
    """Forget the group that a test was in: what the next one starts would take its port, or think itself part of it."""
    for name in OF_A_GROUP:  # of a fixture of many tests, too
        os.environ.pop(name, None)
    yield
    for name in OF_A_GROUP:
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def project() -> Path:
    """Return the folder with configs/, competition/ and pyproject.toml."""
    return PROJECT


@pytest.fixture(scope="session", params=task_names())
def task(request: pytest.FixtureRequest) -> str:
    """Run the test once for each task type that is there."""
    return request.param


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Return a function that lets another one fill a new folder, but where that was done for the same task and name.

    A session's fixture that hangs on the task is made anew whenever the task changes, and by each process of pytest's:
    what is made here serves all of them, and is only to be read.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def once(task: str, name: str, make: Callable[[Path], None]) -> Path:
        folder, made = shared / f"{task}_{name}", shared / f"{task}_{name}.made"
        with FileLock(f"{folder}.lock"):
            if not made.is_file():
                shutil.rmtree(folder, ignore_errors=True)  # of one that failed
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def sample(task: str, once: Once) -> Path:
    """Make a competition of 24 images for tests that only read it."""
    return once(task, "sample", lambda folder: write_sample(task, folder / "data", size=24)) / "data"


@pytest.fixture
def data_dir(sample: Path, tmp_path: Path) -> Path:
    """Copy the competition for tests that change it."""
    return Path(shutil.copytree(sample, tmp_path / "data"))


@pytest.fixture(scope="session")
def config_file(task: str) -> Path:
    """Return the config that is shipped for the task."""
    return PROJECT / "configs" / f"{task}.yaml"


@pytest.fixture(scope="session")
def config(task: str, config_file: Path, sample: Path) -> Config:
    """Return the shipped config, shrunk, on the read-only competition."""
    return load_config([config_file], [*tiny_words(task), f"data.dir={sample}"])


@pytest.fixture(scope="session")
def untrained(task: str, config_file: Path, sample: Path, once: Once) -> Path:
    """Return outputs/ of a run `t` that has out-of-fold predictions of networks that have learnt nothing."""
    return once(task, "untrained", lambda folder: predict_untrained(config_file, sample, folder)) / "outputs"


def predict_untrained(config_file: Path, sample: Path, folder: Path) -> None:
    import torch

    from competition.data.dataset import ImageDataset
    from competition.data.folds import make_folds, read_folds
    from competition.prediction.predict import predict_images
    from competition.runs.folder import OOF, remember_config
    from competition.tasks.contract import Task
    from competition.training.module import CompetitionModule

    torch.manual_seed(100)  # other networks than of the seeds in what follows
    task = load_config([config_file]).task
    words = [*tiny_words(task), f"data.dir={sample}", f"data.folds={folder / 'folds.csv'}", "name=t"]
    words += facts_of(task).untrained
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_folds(load_config([config_file], words))
        for fold in (0, 1):
            config = load_config([config_file], [*words, f"fold={fold}"])
            table = Task(config.task).table.read_table(config)
            remember_config(config.fold_folder, config)
            module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
            dataset = ImageDataset(config, table.image_ids[read_folds(config, table) == fold], table=table)
            predict_images(config, [module.network.eval()], dataset, config.fold_folder / OOF, table.classes)


@pytest.fixture(scope="session")
def replayable(task: str, untrained: Path, once: Once) -> Path:
    """Return outputs/ of the same run with weights of networks, by which its predictions were made."""
    return once(task, "replayable", lambda folder: add_weights(untrained, folder)) / "outputs"


def add_weights(untrained: Path, folder: Path) -> None:
    outputs = Path(shutil.copytree(untrained, folder / "outputs"))
    for training in sorted(outputs.glob("t/fold*")):
        give_network(training, 0)


@pytest.fixture(scope="session")
def predicted(task: str, untrained: Path, once: Once) -> Path:
    """Return outputs/ of runs `t` and `u` with networks, all predictions and a submission: two folds, two views."""
    return once(task, "predicted", lambda folder: predict_twice(untrained, folder)) / "outputs"


def predict_twice(untrained: Path, folder: Path) -> None:
    from competition.prediction.predict import predict_test
    from competition.runs.folder import Run
    from competition.submission.submit import make_submission

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed, name in enumerate("tu"):
            shutil.copytree(untrained / "t", folder / "outputs" / name)
            for number, training in enumerate(Run.open(name).finished()):
                give_network(training, 10 * seed + number, ["tta=[hflip]", f"name={name}"])
            predict_test(Run.open(name))
            make_submission(Run.open(name))


@pytest.fixture
def runs(predicted: Path, command: Command, tmp_path: Path) -> Path:
    """Copy the runs into the working folder."""
    return Path(shutil.copytree(predicted, tmp_path / "outputs"))


def give_network(training: Path, seed: int, words: Sequence[str] = ()) -> None:
    """Put a network into the folder of a training, and its predictions of the same images; change its config."""
    import torch

    from competition.config.loading import dump_config
    from competition.data.dataset import ImageDataset
    from competition.prediction.predict import load_network, predict_images
    from competition.prediction.stored import Predictions
    from competition.runs.folder import CONFIG, OOF
    from competition.tasks.contract import Task
    from competition.training.checkpoint import best_name, export_weights
    from competition.training.module import CompetitionModule

    config = load_config([training / CONFIG], list(words))
    (training / CONFIG).write_text(dump_config(config), encoding="utf-8")
    table = Task(config.task).table.read_table(config)
    torch.manual_seed(seed)
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    path = training / best_name(config.checkpoint)
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, path)
    export_weights(path)
    ids = np.array(Predictions(training / OOF).image_ids, dtype=object)
    dataset = ImageDataset(config, ids, table=table)
    predict_images(config, [load_network(path)[0]], dataset, training / OOF, table.classes)


@pytest.fixture
def other_decode(task: str) -> dict[str, Any]:
    """Return keys of `decode:` with values that the shipped config does not have."""
    return dict(facts_of(task).other_decode)


@pytest.fixture
def words(task: str, config_file: Path, data_dir: Path) -> list[str]:
    """Return the same as words of a command line, on the competition that may be changed."""
    return [str(config_file), *tiny_words(task), f"data.dir={data_dir}"]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., CompletedProcess[str]]:
    """Return a function that runs `competition VERB ...` in a folder of its own, without the cost of a process.

    Nor of the one that draws metrics.png, and of the plots of pages, unless they are to be looked at.
    """
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, plot: bool = False) -> CompletedProcess[str]:
        capfd.readouterr()
        if arguments[:1] == ("train",):
            from competition.training.logger import MetricsPlot

            monkeypatch.setattr(MetricsPlot, "finish", MetricsPlot.finish if plot else lambda self: None)
        monkeypatch.setattr(sys, "argv", ["competition", *map(str, arguments)])
        with pytest.MonkeyPatch.context() as patch:
            if not plot:
                draw_no_plots(patch)
            with pytest.raises(SystemExit) as ended:
                main()
        printed = capfd.readouterr()
        return CompletedProcess(sys.argv, int(ended.value.code or 0), printed.out, printed.err)

    return run
