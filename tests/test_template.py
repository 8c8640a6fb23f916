"""The template itself: files that are valid unrendered, and the few things that two files must agree on."""

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from baking import PROJECT, REPOSITORY, TASKS, files_below, run_module


def read_toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def test_the_tasks_on_offer_are_the_task_folders() -> None:
    folders = (REPOSITORY / PROJECT / "competition" / "tasks").iterdir()
    assert sorted(TASKS) == sorted(path.name for path in folders if path.is_dir() and path.name[0] not in "_.")


def test_every_python_yaml_and_toml_file_is_valid_unrendered(template: Path) -> None:
    for name in files_below(template):
        text = (template / name).read_bytes()
        if name.endswith(".py"):
            ast.parse(text, name)
        elif name.endswith((".yaml", ".yml")):
            yaml.safe_load(text)
        elif name.endswith(".toml"):
            tomllib.loads(text.decode())


def test_the_projects_python_and_yaml_hold_no_jinja(template: Path) -> None:
    for name in files_below(template / PROJECT):
        if name.endswith((".py", ".yaml", ".yml")):
            text = (template / PROJECT / name).read_text(encoding="utf-8")
            assert "cookiecutter." not in text, name
            assert "{%" not in text, name


def test_template_and_project_use_the_same_tools() -> None:
    template, project = read_toml(REPOSITORY / "pyproject.toml"), read_toml(REPOSITORY / PROJECT / "pyproject.toml")
    ours, theirs = (set(one["dependency-groups"]["dev"]) for one in (template, project))
    assert theirs <= ours
    # All else the project's tests may need, too, and in a rendered repo they have its own group alone.
    of_the_template = {"cookiecutter", "cruft", "pytest-cookies", "uv"}
    assert {package.partition(">")[0] for package in ours - theirs} == of_the_template
    assert template["project"]["requires-python"] == project["project"]["requires-python"]


def mark_names(pytest_options: dict[str, Any]) -> list[str]:
    return [mark.partition(":")[0] for mark in pytest_options["markers"]]


def test_the_projects_tests_run_alike_from_both_folders() -> None:
    template, project = read_toml(REPOSITORY / "pyproject.toml"), read_toml(REPOSITORY / PROJECT / "pyproject.toml")
    in_template, in_project = (config["tool"]["pytest"]["ini_options"] for config in (template, project))
    for name in ("addopts", "filterwarnings"):
        assert in_template.get(name) == in_project.get(name), name
    assert mark_names(in_template) == mark_names(in_project)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.6.0", "latest"])
def test_cookiecutter_renders_every_task_with(
    version: str, slim_template: Path, user_config: Path, tmp_path: Path
) -> None:
    for task in TASKS:
        answers = [f"task_type={task}", f"project_slug={task}", "project_name={{ 'quoted' }} & 🥇"]
        options = ["--no-input", "--config-file", user_config, "-o", tmp_path]
        words = ["uv", "tool", "run", f"cookiecutter@{version}", slim_template, *options, *answers]
        result = run_module(*words, cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
        project = read_toml(tmp_path / task / "pyproject.toml")["project"]
        assert project["description"] == "{{ 'quoted' }} & 🥇"
        assert [path.name for path in (tmp_path / task / "configs").glob("*.yaml")].count(f"{task}.yaml") == 1


@pytest.mark.slow
def test_the_unrendered_project_builds_into_a_package(template: Path, tmp_path: Path) -> None:
    result = run_module("uv", "build", "--wheel", "-o", tmp_path, cwd=template / PROJECT)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.glob("competition-*.whl"))
