"""A bake passes its own linter, formatter, type checker and tests before anyone touched it."""

import ast
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from zlib import crc32

import pytest
from baking import CHOSEN, PROJECT, TASKS, lint_imports, run_module, run_tests

# Tests that a bake may fail though the template passes them: what stands in them, or in what they use of their file, is
# a file that is rendered, the list of tasks, the first task that is there, or a task by its name. All others are the
# same bytes on the same bytes, and so is their result. Those of the first kind run in every bake. A file's others run
# in the template and one bake: its task's own, or for what all share one that lacks the tasks which they name.
RENDERED = re.compile(r"\b(project|PROJECT) / .(pyproject|README)|competition\.__file__")
NAMED = re.compile(rf"""["']({"|".join(TASKS)})["']""")
OF_TASKS = re.compile(r"task_names\(\)([\[)]| if)")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, bake_once: Callable[[str], Path], task: str) -> Path:
    """Copy the task's bake: tools leave caches and the bake itself stays as it was rendered."""
    return shutil.copytree(bake_once(task), tmp_path_factory.mktemp(task) / "project")


def test_a_bake_is_clean_to_the_linter(workplace: Path) -> None:
    result = run_module("ruff", "check", "--no-cache", cwd=workplace)
    assert result.returncode == 0, result.stdout


def test_formatting_a_bake_changes_nothing(workplace: Path) -> None:
    result = run_module("ruff", "format", "--check", "--no-cache", cwd=workplace)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS[:1], scope="session")
def test_a_bake_passes_the_type_checker(workplace: Path) -> None:
    """All others are the same to it, as what they import is there."""
    result = run_module("ty", "check", "--python", sys.prefix, cwd=workplace)
    assert result.returncode == 0, result.stdout


def test_what_a_bake_imports_of_itself_is_there(workplace: Path, template: Path) -> None:
    """Also in functions, which importing does not show; a module of the template's is not another package's."""
    own, its = modules_of(template / PROJECT), modules_of(workplace)
    assert its < own
    for path in workplace.rglob("*.py"):
        lost = imported(path.read_text(encoding="utf-8")) & own - its
        assert not lost, (path, lost)


def modules_of(project: Path) -> set[str]:
    """Return the names by which the project's modules are imported, those of the tests by their own."""
    package = (path.relative_to(project).with_suffix("") for path in (project / "competition").rglob("*.py"))
    names = {".".join(path.parts).removesuffix(".__init__") for path in package}
    return names | {path.stem for path in (project / "tests").rglob("*.py")}


def imported(text: str) -> set[str]:
    """Return what a module imports anywhere, from a package also what may be one of its modules."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


@pytest.fixture
def package(template: Path, tmp_path: Path) -> Path:
    """Copy what the linter of imports reads of the unrendered project, for a test to change."""
    shutil.copytree(template / PROJECT / "competition", tmp_path / "competition")
    shutil.copy(template / PROJECT / "pyproject.toml", tmp_path)
    return tmp_path


def test_rooms_of_a_bake_import_downwards_only(workplace: Path) -> None:
    result = lint_imports(workplace)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("competition/config/upwards.py", "competition.data.folds"),
        ("competition/submission/upwards.py", "competition.kaggle.api"),
        ("competition/tasks/segmentation/sideways.py", "competition.tasks.detection.boxes"),
        ("competition/tasks/focal.py", "competition.tasks.segmentation.loss"),
        ("competition/tasks/segmentation/formats/upwards.py", "competition.tasks.segmentation.table"),
    ],
)
def test_an_import_that_goes_upwards_is_refused(package: Path, name: str, imported: str) -> None:
    with (package / name).open("a", encoding="utf-8") as file:
        file.write(f"\n\ndef late() -> None:\n    import {imported}\n")
    result = lint_imports(package)
    assert result.returncode == 1, result.stderr
    assert name.removesuffix(".py").replace("/", ".") in result.stdout
    assert imported in result.stdout


def test_a_room_that_is_not_in_the_layers_is_named_and_one_in_brackets_may_be_missing(package: Path) -> None:
    for room in ("kaggle", "bundle", "pages", "clusters", "sweeps"):
        shutil.rmtree(package / "competition" / room)
    assert lint_imports(package).returncode == 0
    (package / "competition" / "attic").mkdir()
    (package / "competition" / "attic" / "__init__.py").touch()
    assert "competition.attic" in lint_imports(package).stdout


# What the README tells a user to put there: configs of his own, whole or half written, a preset, data and runs.
OWN_FILES = {
    "configs/mine.yaml": "base: {task}.yaml\ndata: {{image_size: [100, 100], channels: 1, mean: [0.5], std: [0.5]}}\n",
    "configs/{task}_bigger.yaml": "base: mine.yaml\n",
    "configs/half_written.yaml": "base: gone.yaml\n",
    "configs/trainer/mine.yaml": "trainer: {{devices: 3}}\n",
    "data/train.csv": "of,another,competition\n",
    "data/folds.csv": "",
    "outputs/mine/fold0/config.yaml": "x: [",
    "outputs/runs.csv": "run\n",
    "metric.py": "raise SystemExit\n",
}


def add_own_files(project: Path, task: str) -> None:
    for name, text in OWN_FILES.items():
        path = project / name.format(task=task)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(task=task), encoding="utf-8")


def own_names_using(pattern: re.Pattern[str], text: str) -> set[str]:
    """Return the tests of a file in which a pattern is found, or in what they use of it: what they name, or a fixture
    of all of them."""
    if not pattern.search(text):
        return set()
    parts = {name: node for node in ast.parse(text).body for name in names_given(node)}
    said = {name: ast.unparse(node) for name, node in parts.items()}
    found = {name for name in parts if pattern.search(said[name])}
    while more := {name for name in parts.keys() - found if found.intersection(re.findall(r"\w+", said[name]))}:
        found |= more
    of_all = any(name == "pytestmark" or "autouse=True" in said[name] for name in found)
    return {name for name in parts if name.startswith("test_") and (of_all or name in found)}


def names_given(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement of a module gives to something."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        yield from (one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store))


def bake_for(path: Path, text: str) -> str:
    """Return the task in whose bake tests of a file run."""
    if path.parent.name in TASKS:
        return path.parent.name
    named = set(NAMED.findall(text)) or {sorted(TASKS)[0]}  # the first is first in the template, too
    may = sorted(set(TASKS) - named) or sorted(TASKS)[1:]
    return may[crc32(path.name.encode()) % len(may)]


def own_tests(project: Path, task: str) -> set[str]:
    """Return the tests that the template's own run does not stand for."""
    found = set()
    for path in (project / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        names = own_names_using(RENDERED, text)
        if bake_for(path, text) == task:
            names |= own_names_using(OF_TASKS, text)
            names |= own_names_using(NAMED, text) if path.parent.name not in TASKS else set()
        found |= {f"{path.relative_to(project).as_posix()}::{name}" for name in names}
    assert found
    return found


@pytest.fixture(scope="module")
def tested(
    bake_once: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, CompletedProcess[str]]:
    """Run the bakes' own tests, with a user's own files in them; by task, what they said."""
    projects = {task: shutil.copytree(bake_once(task), tmp_path_factory.mktemp(task) / "own") for task in TASKS}
    for task, project in projects.items():
        add_own_files(project, task)
        (project / "tests" / "test_where.py").write_text(WHERE, encoding="utf-8")
        (project / CHOSEN).write_text("\n".join(own_tests(project, task)), encoding="utf-8")
    # All are collected: that each file can be imported without the other tasks' is tested, too.
    words = ["-m", "not slow", "-q", "-p", "no:cacheprovider", "-n", "0"]
    ended = run_tests(dict.fromkeys(projects.values(), words))
    return {task: ended[project] for task, project in projects.items()}


# This Python has the unrendered project installed, which must not be what is tested.
WHERE = """
from pathlib import Path

import competition


def test_it_is_the_bake_that_is_tested() -> None:
    assert Path(competition.__file__).is_relative_to(Path(__file__).parents[1])
"""


@pytest.mark.slow
def test_a_bake_passes_its_own_tests_with_a_users_own_files_in_it(
    tested: dict[str, CompletedProcess[str]], task: str
) -> None:
    assert tested[task].returncode == 0, tested[task].stdout
