"""Who deletes an optional room of the package, with its tests, has a repo that works without it."""

import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from baking import environment, lint_imports, run, run_tests

TASK = "classification"  # the quickest; rooms are the same for all
ALL = "all"
VERBS = {
    "pages": {"report"},
    "bundle": {"bundle"},
    "kaggle": {"download", "unpack", "push", "fetch", "scores"},
    "clusters": set(),  # `run` and `runs` do its work where it is there
    "sweeps": {"sweep"},
}
# Without any of them, a run from csv to submission in one process: what imports a room that is gone fails. (With all of
# them it is the project's own test_run.py's; what rooms may import of one another is the linter's.)
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
    assert not left & {"report.html", "check.html", "bundle"}
"""


@pytest.fixture
def project(room: str, bake_once: Callable[[str], Path], tmp_path: Path) -> Path:
    return without([room], bake_once(TASK), tmp_path)


def without(rooms: Iterable[str], bake: Path, into: Path) -> Path:
    """Return a copy of a bake without some rooms."""
    project = shutil.copytree(bake, into / "project")
    for room in rooms:
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
    """By room, and for all, what the tests of a bake without it say: whether they are found; of all, two are run."""
    gone = {room: [room] for room in VERBS} | {ALL: list(VERBS)}
    projects = {name: without(rooms, bake_once(TASK), tmp_path_factory.mktemp(name)) for name, rooms in gone.items()}
    (projects[ALL] / "tests" / "test_whole_run.py").write_text(WHOLE_RUN, encoding="utf-8")
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    words = {project: [*options, "--collect-only"] for project in projects.values()}
    words[projects[ALL]] = [*options, "-k", "test_whole_run or test_help_names_every_verb"]
    ended = run_tests(words)
    return {name: ended[project] for name, project in projects.items()}


@pytest.mark.slow
@pytest.mark.parametrize("room", VERBS)
def test_without_a_room_all_other_tests_are_found(room: str, tested: dict[str, CompletedProcess[str]]) -> None:
    done = tested[room]
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d{4} tests collected", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_without_any_of_them_all_other_tests_are_found_and_a_run_ends_well(
    tested: dict[str, CompletedProcess[str]],
) -> None:
    done = tested[ALL]
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
