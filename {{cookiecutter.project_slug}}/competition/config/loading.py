"""From YAML files and `key=value` words to one typed, checked `Config`."""

import copy
import importlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from competition.config.faults import check_trainer_keys, explain_all, nearest, show
from competition.config.settings import Config, metric_files_apart
from competition.support.errors import CompetitionError
from competition.support.paths import PACKAGE

MOST_BYTES = 1 << 20  # of a config file
MOST_VALUES, DEEPEST = 200_000, 40  # values in it, those behind aliases counted each time; sections in one another


NO_TEXT = ("*", "&", "!", "%", "@", "`", "|", ">")  # what begins with one is no plain text in YAML
# A pattern of names as `{image_id}.png`, from a command line whose quotes the shell has taken away.
OF_FIELDS = re.compile(r"\{[^{}:,\s]+(:.[<>^]\d+)?\}($|[^\s])")


class YamlLoader(yaml.SafeLoader):
    """`yaml.safe_load` that reads `5e-4` as a number, as YAML 1.2 does, and no section deeper than DEEPEST."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Read one value; its own parts call this in turn."""
        if self.depth > DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST} sections")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _construct_mapping(loader: YamlLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    """Refuse a key that is no text or number, or stands twice, of which YAML would silently take the last."""
    keys = Counter(key.value for key, _ in node.value if isinstance(key.value, str))
    twice = [key for key, number in keys.items() if number > 1]
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} stands twice", node.start_mark)
    values = loader.construct_mapping(node, deep=True)
    if odd := [key for key in values if not isinstance(key, str | int | float)]:
        raise yaml.constructor.ConstructorError(None, None, f"key {odd[0]} is no text; quote it", node.start_mark)
    return values


# Those of libyaml, where PyYAML was built with it, take a sixth of the time.
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class QuickLoader(Loader):
    """Reads the same values. What it refuses is for YamlLoader, which takes `{a:}`, too, and says where it is wrong."""


class YamlDumper(Dumper):
    """Quotes texts that the loader would take for a number, as a checksum 01e77211."""


LOADERS = (QuickLoader, YamlLoader)
for each in LOADERS:
    each.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
for each in (*LOADERS, YamlDumper):
    each.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def dump_yaml(values: Any, *, short: bool = False) -> str:
    """Write plain values as YAML that `parse_yaml` reads back as the same; `short`: what is innermost on one line."""
    style = None if short else False
    return yaml.dump(
        values,
        Dumper=YamlDumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=style,
        width=160 if short else 80,
    )


# YAML 1.1 reads a time, 4:00:00, as a number to the base of 60; YAML 1.2 as text.
OF_TIMES = ("tag:yaml.org,2002:str", re.compile(r"^[-+]?\d+(:[0-5]?\d)+(\.\d*)?$"))
for each in LOADERS:
    for first in "-+0123456789":
        each.yaml_implicit_resolvers.setdefault(first, []).insert(0, OF_TIMES)
# What PyYAML's constructors meet in `!!int abc`, `!!float ''`, `2026-13-01` or `!!timestamp x` is theirs.
FAULTS = (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def parse_yaml(text: str) -> Any:
    """Return the plain values of a YAML text; raise ValueError with the reason where it has none, or far too many.

    A verb reads the same config again for every fold, and each takes longer than the rest of it: texts are remembered.
    """
    return _copied(_parse(text))


def _copied(value: Any) -> Any:
    """Copy sections and lists of plain values; `copy.deepcopy` takes thrice as long."""
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value


@lru_cache(maxsize=128)
def _parse(text: str) -> Any:
    with suppress(*FAULTS):
        return plain_values(QuickLoader(text))
    try:
        return plain_values(YamlLoader(text))
    except FAULTS as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def plain_values(loader: Any) -> Any:
    """Return the values of a loader's text; raise one of FAULTS."""
    node = loader.get_single_node()
    if node is None:
        return None
    if _number_of_values(node, {}, 0) > MOST_VALUES:
        raise ValueError(f"holds more than {MOST_VALUES} values, aliases followed")
    return loader.construct_document(node)


def _number_of_values(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Return how many values a node holds once its aliases are followed; each node is walked through once."""
    if depth > DEEPEST:
        raise ValueError("an alias of itself")
    if id(node) not in known:
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        inside = [] if isinstance(node, yaml.ScalarNode) else parts
        known[id(node)] = 1 + sum(_number_of_values(part, known, depth + 1) for part in inside)
    return known[id(node)]


def load_config(paths: list[Path], overrides: list[str] | None = None) -> Config:
    """Merge YAML files left to right, then `key=value` words with dots in the key, and check the result.

    Raises CompetitionError with one line per fault: file, key, value found, what was expected.
    """
    if not paths:
        raise CompetitionError("no config file given: name one of configs/*.yaml")
    parts = _parts(paths, overrides or [])
    merged: dict[str, Any] = {"name": paths[0].stem}
    source: dict[str, str] = {}
    for where, values in parts:
        _merge(merged, values, where, source)
    _refuse_null_sections(parts, _schema(merged.get("task"), source.get("task", str(paths[0]))))
    return validate(merged, source, str(paths[0]))


def _refuse_null_sections(parts: list[tuple[str, dict[str, Any]]], schema: type[Config]) -> None:
    """Raise CompetitionError where a section is emptied, as by `data:` without a line under it: what another file or
    word sets in it would hide that the rest is gone."""
    lines = [
        f"{where}: {key}: found null; expected a section of `key: value`"
        for where, values in parts
        for key in _null_sections(values, schema)
    ]
    if lines:
        raise CompetitionError("\n".join(lines))


def _null_sections(values: dict[str, Any], schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        kind = schema.model_fields[key].annotation if key in schema.model_fields else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            continue  # no section, or one that may be left out
        if value is None:
            yield f"{prefix}{key}"
        elif isinstance(value, dict):
            yield from _null_sections(value, kind, f"{prefix}{key}.")


def validate(values: dict[str, Any], source: dict[str, str], default_source: str) -> Config:
    """Turn plain values into the `Config` of their task; `source` names the file each dotted key came from."""
    schema = _schema(values.get("task"), source.get("task", default_source))
    values = with_preset(values, source, default_source)
    try:
        values = metric_files_apart(values)
    except ValueError as error:
        raise CompetitionError(f"{source.get('metrics', default_source)}: {error}") from None
    try:
        # JSON mode lets a YAML list be a tuple and a string a path, and still refuses `"16"` for 16.
        config = schema.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise CompetitionError("\n".join(explain_all(error.errors(), source, default_source, schema))) from None
    except (TypeError, ValueError, RecursionError) as error:  # dates, bytes, sets, integers of thousands of digits
        raise CompetitionError(
            f"{default_source}: {_not_plain(values) or f'a value is not plain YAML: {error}'}"
        ) from None
    check_trainer_keys(config, source, default_source)
    return config


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """Merge `key=value` words with dots in the key into plain values, unchecked."""
    merged: dict[str, Any] = {}
    for word in words:
        _merge(merged, _parse_override(word), "", {})
    return merged


def read_values(paths: list[Path], words: list[str]) -> dict[str, Any]:
    """Merge YAML files with their bases, then `key=value` words, into plain values, unchecked."""
    merged: dict[str, Any] = {}
    for _, values in _parts(paths, words):
        _merge(merged, values, "", {})
    return merged


def _parts(paths: list[Path], words: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return what files with their bases, then words set, each with where it stands: a later one wins."""
    parts = [part for path in paths for part in _read_with_base(path, ())]
    return parts + [(f"command line ({_short(word)})", _parse_override(word)) for word in words]


def complete(task: str, values: dict[str, Any]) -> Config:
    """Return a part of a task's config with what keys that it lacks are by default."""
    return validate(_part(task, values), {}, "part")


def settings_of(task: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return by dotted key what a part of a task's config sets, with the preset of its format expanded and checked."""
    given = _part(task, values)
    checked = flatten(validate(given, {}, "part").model_dump(mode="json"))
    named = flatten(with_preset(given, {}, "part"))
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
    if not isinstance(name, str) or name not in presets:
        near = nearest(str(name), presets)
        hint = f"did you mean {near!r}?" if near else f"known here: {', '.join(presets)}"
        where = source.get("format.like", default_source)
        raise CompetitionError(f"{where}: format: {show(name)} is no format this project knows; {hint}")
    merged = copy.deepcopy(presets[name])
    _merge(merged, values, "", {})
    return merged


@cache
def format_presets(task: str) -> dict[str, Any]:
    """Return a task's known formats by name: each is a part of a config."""
    path = PACKAGE / "tasks" / task / "formats" / "known.yaml"
    return read_yaml(path) if path.is_file() else {}


def dump_config(config: Config) -> str:
    """Write the resolved config as YAML that `load_config` reads back as the same config."""
    return dump_yaml(config.model_dump(mode="json"))


def config_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """List `key: old -> new` for every dotted key in which two plain configs differ."""
    before, after = flatten(old), flatten(new)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys]


def task_names() -> list[str]:
    """List the task types this project has, by their folders."""
    return list(_folders_of_tasks())


@cache
def _folders_of_tasks() -> tuple[str, ...]:
    return tuple(sorted(path.parent.name for path in (PACKAGE / "tasks").glob("*/table.py")))


def known_keys() -> set[str]:
    """Return the keys that may stand at the top of a config of some task."""
    return {"base", *(key for task in task_names() for key in _schema(task, task).model_fields)}


def _schema(task: object, where: str) -> type[Config]:
    if task not in task_names():
        raise CompetitionError(f"{where}: task: {show(task)} is not one of {', '.join(task_names())}")
    return importlib.import_module(f"competition.tasks.{task}.settings").TaskConfig


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> list[tuple[str, dict[str, Any]]]:
    """Return the file and values of its base's bases, its base and itself, each of which wins over those before it."""
    if path.resolve() in seen:
        raise CompetitionError(f"{path}: base: files inherit from each other in a circle; remove one `base:`")
    if len(seen) > DEEPEST:
        raise CompetitionError(f"{path}: base: a line of more than {DEEPEST} files inherit from each other")
    values = read_yaml(path, f" (the base of {seen[-1]})" if seen else "")
    base = values.pop("base", None)
    if base is None:
        return [(str(path), values)]
    if not isinstance(base, str) or not base or "\0" in base:
        raise CompetitionError(f"{path}: base: found {show(base)}; expected the name of a file beside this one")
    return [*_read_with_base(path.parent / base, (*seen, path.resolve())), (str(path), values)]


def with_bases(path: Path) -> Iterator[Path]:
    """Yield a config file, and those that it inherits from, the nearest first."""
    yield path
    if base := read_yaml(path).get("base"):
        yield from with_bases(path.parent / str(base))


def _config_meant(path: Path) -> str:
    """Return a guess at what was meant by a name that is none of a config."""
    configs = {one.stem: str(one) for one in sorted(Path("configs").glob("**/*.yaml"))}
    if re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", str(path)) and path.suffix not in (".yaml", ".yml"):
        return f"to set this key write {path}=VALUE in one word"
    if near := nearest(path.stem, configs):
        return f"did you mean {configs[near]}?"
    return f"configs here: {', '.join(sorted(map(str, Path('configs').glob('*.yaml')))) or 'none'}"


def read_yaml(path: Path, role: str = "") -> dict[str, Any]:
    """Read the `key: value` lines of a file; raise CompetitionError with the reason, and a file's `role`, if it has
    none."""
    try:
        # A device or a pipe may have no end, or never begin.
        if path.exists() and not path.is_file():
            raise CompetitionError(f"{path}: is no file{role}; expected a config, as {Path('configs') / 'NAME.yaml'}")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CompetitionError(f"{path}: cannot be read ({error.strerror}){role}; {_config_meant(path)}") from None
    if len(content) > MOST_BYTES:
        raise CompetitionError(f"{path}: is larger than {MOST_BYTES >> 20} MB{role}; expected a config")
    try:
        values = parse_yaml(content.decode("utf-8"))
    except ValueError as error:
        raise CompetitionError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise CompetitionError(f"{path}: expected `key: value` lines, found {show(values)}")
    return _spell_out(values)


def _not_plain(values: dict[str, Any]) -> str:
    """Return a word on the first value that no config can hold, as a date or a number of thousands of digits."""
    for key, value in flatten(values).items():
        try:
            json.dumps({key: value})
        except (TypeError, ValueError, RecursionError) as error:
            kind = type(value).__name__
            return f"{key}: found a value of type {kind} ({' '.join(str(error).split())[:80]}); quote what is text"
    return ""


def _short(word: str) -> str:
    return word if len(word) <= 120 else f"{word[:117]}..."


def _parse_override(word: str) -> dict[str, Any]:
    key, equals, text = word.partition("=")
    if not equals or not all(key.split(".")) or key.count(".") > DEEPEST:
        raise CompetitionError(f"{_short(word)}: expected key=value, as in trainer.devices=2")
    try:
        value: Any = text if OF_FIELDS.match(text) else parse_yaml(text)
    except ValueError as error:
        quoted = f"; a text goes in quotes: '{key}=\"{text}\"'" if text[:1] in NO_TEXT and '"' not in text else ""
        raise CompetitionError(f"{_short(word)}: not a YAML value: {error}{quoted}") from None
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


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return values by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
