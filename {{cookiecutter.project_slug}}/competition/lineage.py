"""What a run is compared with in the ledger, and how its config differs from that. No torch.

A run's parent is the nearest of: the run of its own config file, where `name=...` gave it another name; the run of the
file that one names with `base:`, and so on; else the run that was begun before it. Where there is none, its config is
compared with the one that is shipped for the task.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from competition.blend_recipe import blend_sources
from competition.config import config_differences, dump_config, load_config, read_yaml
from competition.errors import CompetitionError
from competition.ledger import Line
from competition.places import here
from competition.runs import ELSEWHERE, Run, is_among
from competition.settings import Config


def base_names(path: Path) -> list[str]:
    """Return the names of the runs of a config file and of those it inherits from, the nearest first."""
    names = []
    next_one: Path | None = path
    while next_one is not None:
        values = read_yaml(next_one)
        names.append(str(values.get("name", next_one.stem)))
        next_one = next_one.parent / str(values["base"]) if values.get("base") else None
    return names


def parent_of(config: Config, bases: Iterable[str], lines: Mapping[str, Line]) -> str:
    """Return the run that a new one is compared with; an empty text where there is none whose config is known."""
    for name in [*bases, *reversed(list(lines))]:
        is_blend = bool(blend_sources(here().outputs / name))
        parent = None if name == config.name or is_blend else _config_of(name)
        if parent is not None and parent.task == config.task:
            return name
    return ""


def difference(config: Config, parent: str) -> str | None:
    """Return how a config differs from its parent's, as text; None where that one's is no longer known."""
    shipped = Path("configs") / f"{config.task}.yaml"
    if parent:
        base = _config_of(parent)
    elif shipped.is_file():
        base = load_config([shipped])
    else:
        base = None
    return None if base is None else "; ".join(differences(base, config))


def differences(one: Config, other: Config) -> list[str]:
    """List `key: one -> other` where two configs differ in what is trained or made of it; where it computes is left
    out."""
    plain = [yaml.safe_load(dump_config(config)) for config in (one, other)]
    lines = config_differences(*plain)
    return [line for line in lines if not is_among(line, ("name", *ELSEWHERE))]


def _config_of(run: str) -> Config | None:
    try:
        return Run.open(run).untuned
    except CompetitionError:  # it was deleted, or has keys that are no longer known
        return None
