"""A Python file of the user's, or of a competition's host, run as it is: what it defines under a name. No torch."""

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from competition.support.errors import CompetitionError


def defined_in(path: Path, name: str, key: str, form: str) -> Any:
    """Return what a file defines as `name`, to be called; raise CompetitionError, by the `key` of the config that
    names the file and the `form` that was expected, where there is none."""
    module = _load(path, path.resolve(), key, form)
    found = getattr(module, name, None)
    if not callable(found):
        raise CompetitionError(f"{key}: {path}: defines no {form}")
    return found


@cache
def _load(path: Path, resolved: Path, key: str, form: str) -> ModuleType:
    if not path.is_file():
        raise CompetitionError(f"{key}: {path}: no such file; expected one that defines {form}")
    spec = importlib.util.spec_from_file_location(f"user_file_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CompetitionError(f"{key}: {path}: does not load: {type(error).__name__}: {error}") from None
    return module
