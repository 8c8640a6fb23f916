"""What verbs say: lines for people, or with `--json` one object on standard output, and all else on standard error.

An object has `verb`, `ok` and `status` (the exit status); `lines`, as people see them; and what the verb adds, which
AGENTS.md lists. Where something is wrong it has `errors` instead: a list of `message`, and of it `file`, `line`, `key`,
`found` and `expected`, null where there is none; and `warnings`, the same of what is only doubtful.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from competition.support.errors import CompetitionError, fault_of

JSON = "--json"
WARNING = "warning: "  # as lines begin that refuse nothing
VERBS = ("check", "tune", "submit", "runs", "scores")
told: dict[str, Any] = {}  # by the verb that runs: a process runs one


def tell(lines: Sequence[str], **facts: Any) -> None:
    """Print lines, and keep them with what they say for `--json`."""
    if lines:
        print("\n".join(lines))
    told.setdefault("lines", []).extend(lines)
    told.update(facts)


def refuse_json(verb: str) -> None:
    """Raise CompetitionError where a verb has no object to print."""
    if verb not in VERBS:
        raise CompetitionError(f"--json: found {verb or 'no verb'}; expected one of {', '.join(VERBS)}")


def as_json(verb: str, status: int, errors: str = "") -> str:
    """Return the object of a verb that has ended."""
    said = _faults(errors.splitlines()) if status else told
    return json.dumps(_plain({"verb": verb, "ok": status == 0, "status": status, **said}), ensure_ascii=False, indent=1)


def _faults(lines: Sequence[str]) -> dict[str, Any]:
    """Return lines as objects: those that warn, of which nothing has failed, apart."""
    found: dict[str, list[dict[str, Any]]] = {"errors": [], "warnings": []}
    for line in lines:
        name = "warnings" if line.startswith(WARNING) else "errors"
        found[name].append(asdict(fault_of(line.removeprefix(WARNING))))
    return found


def _plain(value: Any) -> Any:
    """Return what JSON can hold: no number that is none, and paths as texts."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def numbers(row: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return a row of text with some of its columns as numbers, None where there is none."""
    return {name: (float(value) if value else None) if name in names else value for name, value in row.items()}
