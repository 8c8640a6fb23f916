"""What the template's tests share: a copy of the tracked files, and one bake for each task."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import temporary_files
from baking import PROJECT, TASKS, Render, copy_tracked_files, rendering
from pytest_cookies.plugin import Cookies


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--images", action="store_true", help="Also test in environments of Kaggle's and Colab's versions")


def pytest_xdist_auto_num_workers() -> int:
    """Start one process more than there are cores: some tests wait for half a minute, as for a lost machine."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and not config.getoption("basetemp"):
        temporary_files.begin()


def pytest_terminal_summary(exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.TESTS_FAILED and (kept := temporary_files.keep()):
        print(f"\nwhat the tests wrote: {kept}, until the next are begun")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy") / "template"
    copy_tracked_files(root)
    return root


@pytest.fixture(scope="session")
def slim_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the template without most of what is copied as it is, which is what takes a bake its time: the tests and all
    rooms but those that hooks look into. (That it is copied as it is test_bakes.py's.)"""
    root = Path(shutil.copytree(template, tmp_path_factory.mktemp("slim") / "template"))
    rooms = [path for path in (root / PROJECT / "competition").iterdir() if path.is_dir()]
    for folder in (root / PROJECT / "tests", *rooms):
        if folder.name not in ("tasks", "networks"):
            shutil.rmtree(folder)
    return root


@pytest.fixture(scope="session")
def user_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a configuration of cookiecutter's own, so that the tests leave the user's answers alone."""
    home = tmp_path_factory.mktemp("home")
    (home / "config.yaml").write_text(json.dumps({"replay_dir": str(home), "cookiecutters_dir": str(home)}))
    return home / "config.yaml"


@pytest.fixture(scope="session")
def render(template: Path, user_config: Path) -> Render:
    """Return a function that renders the template in a process of its own, as a user does."""
    return rendering(template, user_config)


@pytest.fixture(scope="session", params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def bake_once(cookies_session: Cookies, template: Path) -> Callable[[str], Path]:
    bakes: dict[str, Path] = {}

    def bake_once(task: str) -> Path:
        if task not in bakes:
            result = cookies_session.bake({"task_type": task}, template=str(template))
            assert result.exception is None, result.exception
            bakes[task] = result.project_path
        return bakes[task]

    return bake_once


@pytest.fixture
def bake(bake_once: Callable[[str], Path], task: str) -> Path:
    """Return the task's bake, which tests read but do not change."""
    return bake_once(task)
