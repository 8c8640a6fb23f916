"""Every task type has the modules, functions and parameters that tasks/contract.py asks for."""

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tiny import PROJECT

from competition.config.loading import load_config, task_names, validate
from competition.config.settings import Config
from competition.support.paths import PACKAGE
from competition.tasks import contract
from competition.tasks.contract import Module, Table, Task
from competition.tasks.made_up_images import write_sample

PARTS = {name: member.contract for name, member in vars(Task).items() if isinstance(member, Module)}
REQUIRED = [
    (task, part, name)
    for task in task_names()
    for part, protocol in PARTS.items()
    for name, function in vars(protocol).items()
    if inspect.isfunction(function) and not name.startswith("_")
]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Return name, kind and default of every parameter but `self`."""
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in found if p.name != "self"]


def test_the_contract_is_read_whole() -> None:
    modules = {name for name in vars(contract) if name.endswith("Module") and name != "Module"}
    assert {protocol.__name__ for protocol in PARTS.values()} == modules
    assert len(REQUIRED) >= 15 * len(task_names()) > 0


@pytest.mark.parametrize(("task", "part", "name"), REQUIRED)
def test_a_function_has_the_parameters_of_the_contract(task: str, part: str, name: str) -> None:
    module: ModuleType = getattr(Task(task), part)
    assert hasattr(module, name), f"{module.__name__} lacks {name}"
    assert parameters(vars(module)[name]) == parameters(vars(PARTS[part])[name])
    assert inspect.getdoc(vars(module)[name])


@pytest.mark.parametrize("task", task_names())
def test_a_task_has_a_config_class_of_its_own(task: str) -> None:
    config = validate({"name": "t", "task": task}, {}, "test")
    assert type(config) is not Config
    assert isinstance(config, Config)
    assert config.metrics


@pytest.mark.parametrize("task", task_names())
def test_a_task_has_a_config_file_and_a_first_line_in_every_module(task: str) -> None:
    assert load_config([PROJECT / "configs" / f"{task}.yaml"]).task == task
    folder = PACKAGE / "tasks" / task
    modules = sorted(folder.rglob("*.py"))
    assert {name for path in modules for name in (path.stem, path.parent.name)} >= {*PARTS, "settings", "__init__"}
    for path in modules:
        assert path.read_text(encoding="utf-8").startswith('"""'), path


@pytest.mark.parametrize("task", task_names())
def test_no_task_imports_another(task: str) -> None:
    others = [name for name in task_names() if name != task]
    for path in (PACKAGE / "tasks" / task).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not [other for other in others if f"tasks.{other}" in text], path


@pytest.mark.parametrize("task", task_names())
def test_a_table_has_what_common_code_reads(task: str, tmp_path: Path) -> None:
    write_sample(task, tmp_path / "data", 20)
    config = validate({"name": "t", "task": task, "data": {"dir": str(tmp_path / "data")}}, {}, "test")
    table = Task(task).table.read_table(config)
    assert all(hasattr(table, name) for name in vars(Table) if not name.startswith("_"))
    assert len(table.image_ids) == len(table.lines) == len(table.strata()) == 20
    assert np.issubdtype(table.strata().dtype, np.integer)
    assert table.summary()
    assert set(Task(task).submission.read_test_ids(config, table.classes))
    for name, method in inspect.getmembers(Table, inspect.isfunction):
        if not name.startswith("_"):
            assert parameters(getattr(type(table), name)) == parameters(method)
