"""Which kind of target a config, a truth or a batch has. No torch."""

from collections.abc import Mapping
from typing import Any

from competition.tasks.classification.kinds.any_classes import AnyClasses
from competition.tasks.classification.kinds.kind import Kind
from competition.tasks.classification.kinds.one_class import OneClass
from competition.tasks.classification.kinds.some_numbers import SomeNumbers
from competition.tasks.classification.settings import TaskConfig

KINDS: dict[str, Kind] = {kind.name: kind for kind in (OneClass(), AnyClasses(), SomeNumbers())}


def kind_of(config: TaskConfig) -> Kind:
    """Return the kind of the only target of a config."""
    return KINDS[config.format.target]


def kind_in(target: Mapping[str, Any]) -> Kind:
    """Return the kind of a truth, or of a batch."""
    return next(kind for kind in KINDS.values() if kind.truth in target)
