"""What the rendered README's table "To change X, edit Y" says is enough: each recipe is a change that follows it.

A recipe is a patch of a bake, as a user would write it, and brings a test of its own into the bake.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from baking import lint_imports, run, run_module, run_tests

FOLDER = Path(__file__).with_name("recipes")
RECIPES = sorted(FOLDER.glob("*/*.patch"))
TOUCHED = re.compile(r"^\+\+\+ b/(.+)$", re.MULTILINE)


def touched(recipe: Path) -> list[str]:
    return TOUCHED.findall(recipe.read_text(encoding="utf-8"))


def apply(project: Path, *arguments: str | Path) -> None:
    # Outside of the bake's folder git looks for no repository that this one may lie in.
    result = run(
        "git", "apply", *arguments, cwd=project, env=os.environ | {"GIT_CEILING_DIRECTORIES": str(project.parent)}
    )
    assert result.returncode == 0, result.stderr


def concerned(project: Path, task: str, files: list[str]) -> set[str]:
    """Return the tests that recipes bring, those that bear the name of a changed module, and those of the score."""
    stems = {Path(name).stem for name in files if name.startswith("competition/")} | {"score"}
    names = {f"test_{owner}{stem}.py" for stem in stems for owner in ("", f"{task}_")}
    found = {path.relative_to(project).as_posix() for path in (project / "tests").rglob("test_*.py")}
    return {name for name in found if name in files or Path(name).name in names}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recipe_applies_by_itself_and_changes_what_the_table_names(
    recipe: Path, bake_once: Callable[[str], Path]
) -> None:
    task = recipe.parent.name
    bake = bake_once(task)
    apply(bake, "--check", recipe)
    table = (bake / "README.md").read_text(encoding="utf-8").partition("## To change X")[2].partition("## Tests")[0]
    names = touched(recipe)
    rooms = {path.relative_to(bake).as_posix() for path in (bake / "tests").rglob("*") if path.is_dir()}
    assert {str(Path(name).parent) for name in names if Path(name).name.startswith("test_")} <= rooms
    assert any(Path(name).name.startswith("test_") for name in names)
    changed = [name for name in names if (bake / name).exists()]
    assert 1 <= len(changed) <= 2
    for name in changed:
        assert f"`{name}`" in table, f"the table does not name {name}"


TASKS = sorted({path.parent.name for path in RECIPES})
each_task = pytest.mark.parametrize("task", TASKS)


def of_task(task: str) -> list[Path]:
    return [path for path in RECIPES if path.parent.name == task]


def all_touched(task: str) -> list[str]:
    return [name for recipe in of_task(task) for name in touched(recipe)]


@pytest.fixture(scope="module")
def changed(bake_once: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By task, a bake with all recipes together."""
    projects = {task: shutil.copytree(bake_once(task), tmp_path_factory.mktemp(task) / "project") for task in TASKS}
    for task, project in projects.items():
        apply(project, *of_task(task))
    return projects


@pytest.fixture(scope="module")
def tested(changed: dict[str, Path]) -> dict[str, CompletedProcess[str]]:
    """By task, what the tests say that a change concerns."""
    options = ["-m", "not slow", "-q", "-n", "0", "-p", "no:cacheprovider"]
    words = {
        project: [*options, *sorted(concerned(project, task, all_touched(task)))] for task, project in changed.items()
    }
    ended = run_tests(words)
    return {task: ended[project] for task, project in changed.items()}


@pytest.mark.slow
@each_task
def test_with_all_recipes_together_a_bake_passes_its_tests(task: str, tested: dict[str, CompletedProcess[str]]) -> None:
    assert tested[task].returncode == 0, tested[task].stdout


@pytest.mark.slow
@each_task
def test_with_all_recipes_together_a_bake_passes_its_tools(task: str, changed: dict[str, Path]) -> None:
    project = changed[task]
    for tool in (["ruff", "check", "--no-cache"], ["ruff", "format", "--check", "--no-cache"]):
        result = run_module(*tool, cwd=project)
        assert result.returncode == 0, result.stdout
    result = lint_imports(project)
    assert result.returncode == 0, result.stdout
    # The files that were touched: the others are the bake's, which test_baked_tools.py has checked.
    written = [name for name in all_touched(task) if name.endswith(".py")]
    result = run_module("ty", "check", "--python", sys.prefix, *written, cwd=project)
    assert result.returncode == 0, result.stdout
