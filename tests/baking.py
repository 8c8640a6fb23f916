"""The template's questions and folders, and the ways the tests render it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PROJECT = "{{cookiecutter.project_slug}}"
QUESTIONS = json.loads((REPOSITORY / "cookiecutter.json").read_text(encoding="utf-8"))
TASKS: list[str] = QUESTIONS["task_type"]
CHOSEN = "chosen_tests.txt"  # in a bake's folder, where not all of its tests are to be run: which, as FILE::NAME
# What `cookiecutter TEMPLATE --no-input ANSWERS...` did, given its output folder and the arguments.
Render = Callable[..., subprocess.CompletedProcess[str]]


def copy_tracked_files(target: Path) -> None:
    """Copy what git knows or would add: caches from work in place must not reach a bake."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():  # git also lists a deleted file until that is committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target / name)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with no terminal and keep what it printed."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def run_module(
    *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m ARGUMENTS` with the Python of the tests."""
    return run(sys.executable, "-m", *arguments, cwd=cwd, env=env)


def rendering(template: Path, user_config: Path) -> Render:
    """Return a function that renders a template in a process of its own, as a user does."""

    def render(into: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        options = ["--no-input", "--config-file", user_config, "-o", into]
        return run_module("cookiecutter", template, *options, *arguments, cwd=into)

    return render


def environment(project: Path) -> dict[str, str]:
    """Return an environment for a bake's own tools and tests.

    This Python has the unrendered project installed; the bake's package has to come first, in subprocesses too.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return inherited | {"PYTHONPATH": str(project), "NO_COLOR": "1"}


def run_tests(words: dict[Path, list[str]]) -> dict[Path, subprocess.CompletedProcess[str]]:
    """Run pytest with the words given for each bake, without the plugins of this one; by bake, what it said.

    With plain assertions: to rewrite those of all files takes longer than many a project's tests, and a bake is new.
    """
    from warm import warm_python  # here, as what is started imports this file, and the project's tests are not for it

    plain = ("--assert=plain",)
    ended, arguments = {}, [word for folder, its in words.items() for word in ("--", str(folder), *plain, *its)]
    script = Path(__file__).with_name("forked_pytest.py")
    env = environment(script.parent) | {"OMP_NUM_THREADS": "1"}  # as conftest.py of each would, before torch is there
    started = run(warm_python(), script, sys.executable, *arguments[1:], cwd=script.parent, env=env)
    for folder in words:
        status, said = folder / "status", folder / "said"
        assert status.is_file(), started.stdout + started.stderr + (said.read_text() if said.is_file() else "")
        ended[folder] = subprocess.CompletedProcess([], int(status.read_text()), said.read_text(encoding="utf-8"), "")
    return ended


def lint_imports(project: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter, which has no `python -m`, in a bake."""
    command = Path(sys.executable).with_name("lint-imports")
    return run(command, "--no-cache", cwd=project, env=environment(project))
