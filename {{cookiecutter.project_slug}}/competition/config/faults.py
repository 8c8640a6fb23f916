"""What is wrong with a config, a line a key: file, key, value found, what was expected, a guess at what was meant."""

import ast
import difflib
import importlib.util
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_origin

from competition.config.settings import Config
from competition.support.errors import CompetitionError


def explain_all(faults: Sequence[Any], source: dict[str, str], default: str, schema: type[Config]) -> list[str]:
    """Write a line for each key at fault; the ways in which a value fits none of several types make one line."""
    expected: dict[str, list[str]] = {}
    hints: dict[str, str] = {}
    for fault in faults:
        start, expectation = _explain(fault, source, default, schema)
        expected.setdefault(start, []).append(expectation)
        hints[start] = hints.get(start) or _literal_meant(fault)
    return [start + " or ".join(dict.fromkeys(each)) + hints[start] for start, each in expected.items()]


def _literal_meant(fault: Any) -> str:
    """Return a guess at the name that was meant, where one of several was expected."""
    if fault["type"] != "literal_error":
        return ""
    names = re.findall(r"'([^']+)'", fault["ctx"]["expected"])
    near = nearest(str(fault["input"]), names)
    return f"; did you mean {near}?" if near else ""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return which of the known names was meant, most likely."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def _explain(fault: Any, source: dict[str, str], default: str, schema: type[Config]) -> tuple[str, str]:
    """Return the start of the line, which names file, key and value, and what was expected."""
    path = _without_type_tags(list(fault["loc"]), schema, is_unknown=fault["type"] == "extra_forbidden")
    prefixes = [".".join(map(str, path[:n])) for n in range(len(path), 0, -1)]
    known = next((prefix for prefix in prefixes if prefix in source), "")
    where = source.get(known, default)
    key, value = ".".join(map(str, path)), show(fault["input"])
    if fault["type"] == "extra_forbidden":
        siblings = _known_keys(schema, path[:-1])
        elsewhere = list(_paths_of(schema, str(path[-1])))
        near = elsewhere[0] if len(elsewhere) == 1 else nearest(str(path[-1]), siblings)
        hint = f"did you mean `{near}`?" if near else f"known here: {', '.join(siblings)}"
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
        if isinstance(part, int) or part in _known_keys(schema, kept) or _section(schema, kept)[1]:
            kept.append(part)
    return [*kept, path[-1]] if is_unknown else kept


def _known_keys(schema: Any, path: list[Any]) -> list[str]:
    """Return the keys allowed under `path`, following nested sections."""
    found, is_by_name = _section(schema, path)
    return [] if found is None or is_by_name else list(found.model_fields)


def _paths_of(schema: Any, key: str, before: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield where in sections, and sections of these, a key of that name stands, as `model.encoder`."""
    for name, field in schema.model_fields.items():
        if name == key:
            yield ".".join((*before, name))
        for nested in _sections_in(field.annotation) if len(before) < 2 else ():
            yield from _paths_of(nested, key, (*before, name))


def _section(schema: Any, path: list[Any]) -> tuple[Any, bool]:
    """Return the section that stands under `path`, None where it is a value, and whether it is that of each of several,
    whose names are the user's."""
    is_by_name = False
    for part in path:
        if is_by_name:
            is_by_name = False
            continue
        field = schema.model_fields.get(part) if isinstance(part, str) else None
        nested = _sections_in(field.annotation) if field else []
        if field is None or not nested:
            return None, False
        schema, is_by_name = nested[0], get_origin(field.annotation) is dict
    return schema, is_by_name


def _sections_in(annotation: Any) -> list[Any]:
    """Return the sections that a key of such a type may hold, or hold several of."""
    return [one for one in (annotation, *getattr(annotation, "__args__", ())) if hasattr(one, "model_fields")]


def show(value: object) -> str:
    """Write a value as it would stand in YAML, cut short."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, numbers of thousands of digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


OURS = {
    "logger": "the section `logger:`",
    "callbacks": "`checkpoint:`, `early_stopping:` and `logger:`",
    "default_root_dir": "the run's `name:`",
    "enable_checkpointing": "the section `checkpoint:`",
    "use_distributed_sampler": "competition/training/fold_data.py, which splits the images over the processes itself",
    "reload_dataloaders_every_n_epochs": "competition/training/fold_data.py",
    "overfit_batches": "competition/sampling/sampler.py, which draws anew in every epoch; short ones: "
    "`limit_train_batches`",
    "val_check_interval": "competition/training/logger.py: metrics.csv and the best weights are by the epoch; "
    "shorter ones: `sampler.num_draws`",
}

MOST_EPOCHS, MOST_STEPS = 10_000, 10_000_000  # each epoch is planned before the first; -1 is without end
MOST_PARTS = 1 << 20
# Lightning takes any value for these and fails, or does something else, much later: kind, smallest and largest.
TRAINER_NUMBERS: dict[str, tuple[type[int] | type[float], float, float]] = {
    "max_epochs": (int, -1, MOST_EPOCHS),
    "min_epochs": (int, 0, MOST_EPOCHS),
    "max_steps": (int, -1, MOST_STEPS),
    "min_steps": (int, 0, MOST_STEPS),
    "num_nodes": (int, 1, MOST_PARTS),
    "accumulate_grad_batches": (int, 1, MOST_PARTS),
    "limit_train_batches": (float, 0, MOST_STEPS),
    "limit_val_batches": (float, 0, MOST_STEPS),
    "gradient_clip_val": (float, 0, math.inf),
}


def check_trainer_keys(config: Config, source: dict[str, str], default: str) -> None:
    """Raise CompetitionError with a line for each key of `trainer:` that is unknown or of a wrong kind."""
    known = trainer_arguments() if config.trainer else ()  # a bundle has none, and no Lightning to ask
    lines = []
    for key, value in config.trainer.items():
        where = source.get(f"trainer.{key}", default)
        if key in OURS:
            lines.append(f"{where}: trainer.{key}: set by the project itself; see {OURS[key]}")
        elif key not in known:
            near = nearest(key, known)
            hint = f"did you mean `{near}`?" if near else "see pytorch_lightning.Trainer for the keys"
            lines.append(f"{where}: trainer.{key}: unknown key (value {show(value)}); {hint}")
        elif key in TRAINER_NUMBERS and (expected := _expected_number(value, *TRAINER_NUMBERS[key])):
            lines.append(f"{where}: trainer.{key}: found {show(value)}; expected {expected}")
    if lines:
        raise CompetitionError("\n".join(lines))


def _expected_number(value: object, kind: type[int] | type[float], least: float, most: float) -> str:
    """Return what was expected in place of a value that is no such number; an empty text where it is one."""
    if value is None or (isinstance(value, kind | int) and not isinstance(value, bool) and least <= value <= most):
        return ""
    limits = f" from {least:g} to {most:,.0f}" if most < math.inf else f", {least:g} or more"
    return ("a whole number" if kind is int else "a number") + limits


@cache
def trainer_arguments() -> tuple[str, ...]:
    """Read the argument names of `pytorch_lightning.Trainer` from its source: importing it takes seconds."""
    package = importlib.util.find_spec("pytorch_lightning")
    if package is None or package.origin is None:
        raise CompetitionError("pytorch-lightning is not installed: run `uv sync` in the project's folder")
    text = (Path(package.origin).parent / "trainer" / "trainer.py").read_text(encoding="utf-8")
    trainer = next(n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == "Trainer")
    init = next(n for n in trainer.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    return tuple(argument.arg for argument in init.args.kwonlyargs + init.args.args if argument.arg != "self")
