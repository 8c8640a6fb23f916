"""Keep the chosen task's files and drop the other tasks', which are found by their names."""

import json
import re
import shutil
from pathlib import Path


def drop_other_tasks(project: Path, chosen: str) -> None:
    """Remove every file and folder that bears the name of a task that was not chosen."""
    tasks = task_names(project)
    for path in sorted(project.rglob("*")):
        if task_of(path.name, tasks) not in {None, chosen} and path.exists():
            remove(path)


def task_names(project: Path) -> list[str]:
    folders = (path for path in (project / "competition" / "tasks").iterdir() if path.is_dir())
    return [folder.name for folder in folders if not folder.name.startswith(("_", "."))]


def task_of(name: str, tasks: list[str]) -> str | None:
    """Return the task that a file's or folder's name begins with, after `test_`; the longest when several do."""
    bearing = [task for task in tasks if re.match(rf"(test_)?{re.escape(task)}(?![A-Za-z0-9])", name)]
    return max(bearing, key=len, default=None)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def drop_what_nothing_shares(project: Path) -> None:
    """Remove modules that tasks share, beside their folders and of networks, and nothing that is left imports."""
    package = project / "competition"
    while unused := [path for path in shared_modules(package) if not is_imported(path, package)]:
        for path in unused:
            remove(path)


def shared_modules(package: Path) -> list[Path]:
    return sorted(path for room in ("tasks", "networks") for path in (package / room).glob("[!_]*.py"))


def is_imported(module: Path, package: Path) -> bool:
    name = re.compile(rf"\b{module.parent.name}(\.| import .*\b){re.escape(module.stem)}\b")
    return any(name.search(path.read_text(encoding="utf-8")) for path in package.rglob("*.py") if path != module)


def drop_empty_licence(project: Path) -> None:
    """Remove the LICENSE that rendered to nothing because none was wanted."""
    licence = project / "LICENSE"
    if licence.exists() and not licence.read_text(encoding="utf-8").strip():
        licence.unlink()


def drop_left_overs(project: Path) -> None:
    """Remove what work in the template's own folder left there: what the project's .gitignore names."""
    lines = (project / ".gitignore").read_text(encoding="utf-8").splitlines()
    for line in (line for line in lines if line and not line.startswith("#")):
        name = line.strip("/")
        # As git reads it: with a slash before it a name is meant in the project's own folder alone.
        for path in sorted(project.glob(name) if line.startswith("/") else project.rglob(name)):
            if path.exists():
                remove(path)


def main() -> None:
    answers = json.loads(r"""{{ cookiecutter | tojson }}""")
    drop_other_tasks(Path.cwd(), answers["task_type"])
    drop_what_nothing_shares(Path.cwd())
    drop_empty_licence(Path.cwd())
    drop_left_overs(Path.cwd())


if __name__ == "__main__":
    main()
