"""What is wrong with a config, a line a key: file, key, value found, what was expected, a guess at what was meant."""

import difflib
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from competition.settings import Config


def explain_all(faults: Sequence[Any], source: dict[str, str], default: str, schema: type[Config]) -> list[str]:
    """Write a line for each key at fault; the ways in which a value fits none of several types make one line."""
    expected: dict[str, list[str]] = {}
    hints: dict[str, str] = {}
    for fault in faults:
        start, expectation = _explain(fault, source, default, schema)
        expected.setdefault(start, []).append(expectation)
        hints[start] = hints.get(start) or _nearest(fault)
    return [start + " or ".join(dict.fromkeys(each)) + hints[start] for start, each in expected.items()]


def _nearest(fault: Any) -> str:
    """Return a guess at the name that was meant, where one of several was expected."""
    if fault["type"] != "literal_error":
        return ""
    names = re.findall(r"'([^']+)'", fault["ctx"]["expected"])
    near = difflib.get_close_matches(str(fault["input"]), names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _explain(fault: Any, source: dict[str, str], default: str, schema: type[Config]) -> tuple[str, str]:
    """Return the start of the line, which names file, key and value, and what was expected."""
    path = _without_type_tags(list(fault["loc"]), schema, is_unknown=fault["type"] == "extra_forbidden")
    prefixes = [".".join(map(str, path[:n])) for n in range(len(path), 0, -1)]
    known = next((prefix for prefix in prefixes if prefix in source), "")
    where = source.get(known, default)
    key, value = ".".join(map(str, path)), show(fault["input"])
    if fault["type"] == "extra_forbidden":
        siblings = _known_keys(schema, path[:-1])
        near = difflib.get_close_matches(str(path[-1]), siblings, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(siblings)}"
        return f"{where}: {key}: unknown key (value {value}); {hint}", ""
    if fault["type"] == "missing":
        return f"{where}: {key}: this key is missing", ""
    message = _expectation(fault)
    if fault["type"] == "value_error":
        return f"{where}: {key or 'config'}: found {value}; {message}", ""
    return f"{where}: {key or 'config'}: found {value}; expected ", message


def _expectation(fault: Any) -> str:
    """Return what was expected, in plain words where pydantic's own are not."""
    limits = fault.get("ctx", {})
    if fault["type"] == "too_short":
        return f"a list of at least {limits['min_length']}"
    if fault["type"] == "too_long":
        return f"a list of at most {limits['max_length']}"
    if fault["type"] == "string_type":
        return "text"
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "a section of `key: value`"
    return fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")


def _without_type_tags(path: list[Any], schema: type[Config], *, is_unknown: bool) -> list[Any]:
    """Drop the names of types that pydantic adds where a value may be of several; the last key may be unknown."""
    kept: list[Any] = []
    for part in path[:-1] if is_unknown else path:
        if isinstance(part, int) or part in _known_keys(schema, kept):
            kept.append(part)
    return [*kept, path[-1]] if is_unknown else kept


def _known_keys(schema: Any, path: list[Any]) -> list[str]:
    """Return the keys allowed under `path`, following nested sections."""
    for part in path:
        field = schema.model_fields.get(part) if isinstance(part, str) else None
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        nested = [c for c in candidates if hasattr(c, "model_fields")]
        if not nested:
            return []
        schema = nested[0]
    return list(schema.model_fields)


def show(value: object) -> str:
    """Write a value as it would stand in YAML, cut short."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, numbers of thousands of digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
