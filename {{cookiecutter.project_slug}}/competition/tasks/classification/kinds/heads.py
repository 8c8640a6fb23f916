"""Several answers an image, `format.targets`: what is done of one answer is done of each, head by head. No torch.

The answers of an image stand side by side under `name/key`, as `grapheme/label`: in truths, batches, predictions,
answers and evidence alike. Classes are called `grapheme/0`, metrics `grapheme/macro_recall`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.settings.decode import ClassificationDecode
from competition.tasks.classification.settings.metrics import metric_of

Given = ParamSpec("Given")
Made = TypeVar("Made")


def head_config(config: TaskConfig, name: str) -> TaskConfig:
    """Return the config of one target as if it were the only one."""
    target = config.format.targets[name]
    known = config.data.classes
    classes = target.own_classes(name) if known is None else head_classes(known, name)
    return config.model_copy(
        update={
            "format": config.format.each[name],
            "data": config.data.model_copy(update={"classes": classes}),
            "loss": target.loss,
            "metrics": [metric_of(config.format, name)],
            "decode": config.decode.targets.get(name, ClassificationDecode()),
            "host_metric": None,
        }
    )


def each_head(config: TaskConfig) -> dict[str, TaskConfig]:
    """Return the config of each target; of a single one, under an empty name, the config itself."""
    return {name: head_config(config, name) for name in config.format.targets} or {"": config}


def handed_in(config: TaskConfig) -> dict[str, TaskConfig]:
    """Return the config of each target that is handed in; of a single one, under an empty name, the config itself."""
    return {name: one for name, one in each_head(config).items() if not name or config.format.targets[name].submit}


def head_classes(classes: Sequence[str], name: str) -> list[str]:
    """Return the classes of one target, without its name."""
    return [one.removeprefix(f"{name}/") for one in classes if one.startswith(f"{name}/")]


def heads_in(values: Mapping[str, Any]) -> list[str]:
    """Return the targets whose values these are; none where there is a single one."""
    return list(dict.fromkeys(key.partition("/")[0] for key in values if "/" in key))


def of_head(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the values of one target, under the keys that they have where it is the only one, and those that all
    share."""
    return {
        key.removeprefix(f"{name}/"): value
        for key, value in values.items()
        if "/" not in key or key.startswith(f"{name}/")
    }


def side_by_side(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values of several targets as those of one image: the inverse of `of_head`."""
    return {f"{name}/{key}": value for name, values in parts.items() for key, value in values.items()}


def head_by_head(function: Callable[Given, Made]) -> Callable[Given, Made]:
    """Let a function of one target's values take those of several: it is called for each, with what is that target's of
    its configs, values and lists of values; what it returns, values or a list of them, is put side by side."""

    @wraps(function)
    def of_each(*given: Given.args, **named: Given.kwargs) -> Made:
        # An answer that was read back has no targets that are not handed in.
        first, *others = [*filter(None, map(_heads_of, (*given, *named.values()))), []]
        if not first:
            return function(*given, **named)
        call: Callable[..., Any] = function
        made = {
            name: call(*(_of(one, name) for one in given), **{key: _of(one, name) for key, one in named.items()})
            for name in first
            if all(name in other for other in others[:-1])
        }
        return _joined(made)

    return of_each


def _heads_of(given: object) -> list[str]:
    if isinstance(given, TaskConfig):
        return list(given.format.targets)
    if isinstance(given, Mapping):
        return heads_in(given)
    is_list = isinstance(given, Sequence) and len(given) and isinstance(given[0], Mapping)
    return heads_in(given[0]) if is_list else []


def _of(given: Any, name: str) -> Any:
    if isinstance(given, TaskConfig):
        return head_config(given, name)
    if isinstance(given, Mapping):
        return of_head(given, name)
    is_list = isinstance(given, Sequence) and len(given) and isinstance(given[0], Mapping)
    return [of_head(one, name) for one in given] if is_list else given


def _joined(made: Mapping[str, Any]) -> Any:
    if all(isinstance(one, Mapping) for one in made.values()):
        return side_by_side(made)
    return [side_by_side(dict(zip(made, each, strict=True))) for each in zip(*made.values(), strict=True)]


def in_turn(each: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yield the values of the targets side by side, until all of each were there once; short ones begin anew."""
    for number in range(max(map(len, each.values()))):
        yield side_by_side({name: values[number % len(values)] for name, values in each.items()})
