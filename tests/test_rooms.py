"""Who deletes an optional room of the package, with its tests, has a repo that works without it."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from baking import environment, lint_imports, run, run_tests

TASK = "classification"  # the quickest; rooms are the same for all
VERBS = {
    "pages": {"report"},
    "bundle": {"bundle"},
    "kaggle": {"download", "unpack", "push", "fetch", "scores"},
    "clusters": set(),  # `run` and `runs` do its work where it is there
    "sweeps": {"sweep"},
}
# Beside tests of the command line, a run from csv to submission in one process: what imports a room that is gone fails.
WHOLE_RUN = """
from pathlib import Path

from tiny import PROJECT, TINY
from trainings import run_here

from competition.tasks.made_up_images import write_sample


def test_a_run_ends_well(tmp_path: Path) -> None:
    write_sample("classification", tmp_path / "data", size=20)
    words = [PROJECT / "configs" / "classification.yaml", *TINY, "data.image_size=32", "fold=0", "name=t"]
    done = run_here(tmp_path, words)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "outputs/t/submission.csv").is_file()
    left = {path.name for path in (tmp_path / "outputs/t").iterdir()}
    assert ("report.html" in left, "check.html" in left) == ((PROJECT / "competition/pages").is_dir(),) * 2
    assert ("bundle" in left) == (PROJECT / "competition/bundle").is_dir()
"""


@pytest.fixture
def project(room: str, bake_once: Callable[[str], Path], tmp_path: Path) -> Path:
    return without(room, bake_once(TASK), tmp_path)


def without(room: str, bake: Path, into: Path) -> Path:
    """Return a copy of a bake without a room."""
    project = shutil.copytree(bake, into / "project")
    for folder in (project / "competition" / room, project / "tests" / room):
        shutil.rmtree(folder)
    return project


def python(project: Path, *words: str) -> CompletedProcess[str]:
    return run(sys.executable, *words, cwd=project, env=environment(project))


@pytest.mark.parametrize("room", VERBS)
def test_without_a_room_its_verbs_are_gone_and_rooms_import_downwards(project: Path, room: str) -> None:
    told = python(project, "-m", "competition", "--help")
    assert told.returncode == 0, told.stderr
    lines = told.stdout.partition("Commands:")[2].splitlines()
    shown = {line.split()[0] for line in lines if line.startswith("  ") and line[2:3].strip()}
    assert shown >= {"check", "train", "run"} | set.union(*VERBS.values()) - VERBS[room]
    assert not shown & VERBS[room]
    linted = lint_imports(project)
    assert linted.returncode == 0, linted.stdout


@pytest.fixture(scope="module")
def tested(
    bake_once: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, CompletedProcess[str]]:
    """By room, what the tests of a bake without it say."""
    projects = {room: without(room, bake_once(TASK), tmp_path_factory.mktemp(room)) for room in VERBS}
    for project in projects.values():
        (project / "tests" / "test_whole_run.py").write_text(WHOLE_RUN, encoding="utf-8")
    words = ["-q", "-n", "0", "-p", "no:cacheprovider", "-k", "test_whole_run or test_help_names_every_verb"]
    ended = run_tests(dict.fromkeys(projects.values(), words))
    return {room: ended[project] for room, project in projects.items()}


@pytest.mark.slow
@pytest.mark.parametrize("room", VERBS)
def test_without_a_room_all_other_tests_are_found_and_a_run_ends_well(
    room: str, tested: dict[str, CompletedProcess[str]]
) -> None:
    done = tested[room]
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
