"""The code by which predictions of a task are decoded, scored and tuned: who edits it has other scores. No torch."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from competition.support.paths import PACKAGE

TASKS = "competition.tasks"
SCORED_BY = ("decode", "score", "tuning")  # of a task
SHARED = ("user_metrics", "host_metric")
SIGNATURES = "contract.py"  # which compute nothing


def code_of(task: str, *more: str) -> list[Path]:
    """Return the files of the rooms that decode, score and tune, and of `more` rooms of a task, with all that these
    import of tasks/. Of a room that a task does not have there is none."""
    return list(_with_imports(PACKAGE / "tasks", task, (*SCORED_BY, *more)))


@cache
def _with_imports(tasks: Path, task: str, rooms: tuple[str, ...]) -> tuple[Path, ...]:
    found = set[Path]()
    waiting = [*(tasks / f"{name}.py" for name in SHARED), *(tasks / task / f"{room}.py" for room in rooms)]
    while waiting:
        file = waiting.pop()
        if file.is_file() and file not in found and file != tasks / SIGNATURES:
            found.add(file)
            waiting += _imported(tasks, file)
    return tuple(sorted(found))


def _imported(tasks: Path, file: Path) -> Iterator[Path]:
    """Yield where modules of tasks/ would be that a file imports; a name that it takes of one may be a module, too."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:  # as somebody edits it: it is another file, whatever it imports
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.startswith(f"{TASKS}."):
                module = tasks.joinpath(*name.split(".")[2:])
                yield module.with_name(f"{module.name}.py")
                yield module / "__init__.py"
