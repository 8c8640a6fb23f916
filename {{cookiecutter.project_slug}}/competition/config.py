"""From YAML files and `key=value` words to one typed, checked `Config`."""

import copy
import difflib
import importlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from competition.config_faults import explain_all, show
from competition.errors import CompetitionError
from competition.settings import Config
from competition.trainer_keys import check_trainer_keys


class YamlLoader(yaml.SafeLoader):
    """`yaml.safe_load` that reads `5e-4` as a number, as YAML 1.2 does."""


def _construct_mapping(loader: YamlLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    """Refuse a key that stands twice, of which YAML would silently take the last."""
    keys = [key.value for key, _ in node.value]
    twice = [key for key in keys if isinstance(key, str) and keys.count(key) > 1]
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} stands twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


YamlLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_config(paths: list[Path], overrides: list[str] | None = None) -> Config:
    """Merge YAML files left to right, then `key=value` words with dots in the key, and check the result.

    Raises CompetitionError with one line per fault: file, key, value found, what was expected.
    """
    if not paths:
        raise CompetitionError("no config file given: name one of configs/*.yaml")
    merged: dict[str, Any] = {"name": paths[0].stem}
    source: dict[str, str] = {}
    for path in paths:
        values, inside = _read_with_base(path, ())
        _merge(merged, values, str(path), source)
        source |= inside
    for word in overrides or []:
        _merge(merged, _parse_override(word), f"command line ({word})", source)
    return validate(merged, source, str(paths[0]))


def validate(values: dict[str, Any], source: dict[str, str], default_source: str) -> Config:
    """Turn plain values into the `Config` of their task; `source` names the file each dotted key came from."""
    schema = _schema(values.get("task"), source.get("task", default_source))
    values = with_preset(values, source, default_source)
    try:
        # JSON mode lets a YAML list be a tuple and a string a path, and still refuses `"16"` for 16.
        config = schema.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise CompetitionError("\n".join(explain_all(error.errors(), source, default_source, schema))) from None
    except TypeError as error:
        raise CompetitionError(f"{default_source}: a value is not plain YAML: {error}") from None
    check_trainer_keys(config, source, default_source)
    return config


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """Merge `key=value` words with dots in the key into plain values, unchecked."""
    merged: dict[str, Any] = {}
    for word in words:
        _merge(merged, _parse_override(word), "", {})
    return merged


def complete(task: str, values: dict[str, Any]) -> Config:
    """Return a part of a task's config with what keys that it lacks are by default."""
    return validate(_part(task, values), {}, "part")


def settings_of(task: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return by dotted key what a part of a task's config sets, with the preset of its format expanded and checked."""
    given = _part(task, values)
    checked = _flatten(validate(given, {}, "part").model_dump(mode="json"))
    named = _flatten(with_preset(given, {}, "part"))
    return {key: checked[key] for key in named if key in checked and key.startswith(("format.", "data."))}


def _part(task: str, values: dict[str, Any]) -> dict[str, Any]:
    return _spell_out({"name": "part", "task": task, **copy.deepcopy(values)})


def with_preset(values: dict[str, Any], source: dict[str, str], default_source: str) -> dict[str, Any]:
    """Put the settings of a known competition's format, `format: NAME`, under those that are given."""
    form = values.get("format")
    name = form.get("like") if isinstance(form, dict) else None
    if name is None:
        return values
    presets = format_presets(str(values["task"]))
    if name not in presets:
        near = difflib.get_close_matches(str(name), presets, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(presets)}"
        where = source.get("format.like", default_source)
        raise CompetitionError(f"{where}: format: {show(name)} is no format this project knows; {hint}")
    merged = copy.deepcopy(presets[name])
    _merge(merged, values, "", {})
    return merged


@cache
def format_presets(task: str) -> dict[str, Any]:
    """Return a task's known formats by name: each is a part of a config."""
    path = Path(__file__).parent / "tasks" / task / "formats.yaml"
    return _read_yaml(path) if path.is_file() else {}


def dump_config(config: Config) -> str:
    """Write the resolved config as YAML that `load_config` reads back as the same config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def config_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """List `key: old -> new` for every dotted key in which two plain configs differ."""
    before, after = _flatten(old), _flatten(new)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys]


def task_names() -> list[str]:
    """List the task types this project has, by their folders."""
    return sorted(path.parent.name for path in (Path(__file__).parent / "tasks").glob("*/settings.py"))


def _schema(task: object, where: str) -> type[Config]:
    if task not in task_names():
        raise CompetitionError(f"{where}: task: {show(task)} is not one of {', '.join(task_names())}")
    return importlib.import_module(f"competition.tasks.{task}.settings").TaskConfig


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a file's values merged over its base's, and the file each key came from."""
    if path.resolve() in seen:
        raise CompetitionError(f"{path}: base: files inherit from each other in a circle; remove one `base:`")
    values = _read_yaml(path, f" (the base of {seen[-1]})" if seen else "")
    base = values.pop("base", None)
    merged: dict[str, Any] = {}
    source: dict[str, str] = {}
    if base is not None:
        merged, source = _read_with_base(path.parent / str(base), (*seen, path.resolve()))
    _merge(merged, values, str(path), source)
    return merged, source


def _read_yaml(path: Path, role: str = "") -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), YamlLoader)
    except OSError as error:
        near = ", ".join(sorted(map(str, Path("configs").glob("*.yaml"))))
        raise CompetitionError(
            f"{path}: cannot be read ({error.strerror}){role}; configs here: {near or 'none'}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CompetitionError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise CompetitionError(f"{path}: expected `key: value` lines, found {show(values)}")
    return _spell_out(values)


def _parse_override(word: str) -> dict[str, Any]:
    key, equals, text = word.partition("=")
    if not equals or not all(key.split(".")):
        raise CompetitionError(f"{word}: expected key=value, as in trainer.devices=2")
    try:
        value = yaml.load(text, YamlLoader)
    except yaml.YAMLError as error:
        raise CompetitionError(f"{word}: not a YAML value: {' '.join(str(error).split())}") from None
    for part in reversed(key.split(".")):
        value = {part: value}
    return _spell_out(value)


def _spell_out(values: dict[str, Any]) -> dict[str, Any]:
    """Write in full what has a short form: a format by its name, a list of folds or seeds for `run` to train."""
    if isinstance(values.get("format"), str):
        values["format"] = {"like": values["format"]}
    for key, several in (("fold", "folds"), ("seed", "seeds")):
        value = values.get(key)
        if isinstance(value, list) and value:
            values |= {several: value, key: value[0]}
        elif value is not None:
            values.setdefault(several, [value] if key == "fold" else None)
    return values


def _merge(into: dict[str, Any], new: dict[str, Any], where: str, source: dict[str, str], prefix: str = "") -> None:
    """Merge `new` into `into` in place: mappings by key, anything else replaces; note where each key came from."""
    for key, value in new.items():
        dotted = f"{prefix}{key}"
        source[dotted] = where
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, where, source, f"{dotted}.")
            continue
        if isinstance(value, dict):
            into[key] = {}
            _merge(into[key], value, where, source, f"{dotted}.")
        else:
            into[key] = value


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
