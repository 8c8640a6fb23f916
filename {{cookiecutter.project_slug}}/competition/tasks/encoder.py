"""Which part of a network is its encoder, and in what order its layers stand: learning rates and frozen parts go by
it."""

import fnmatch
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import nn

from competition.support.errors import CompetitionError

TOGETHER = 12  # tensors of a layer where timm tells no layers, as timm has it


@dataclass(frozen=True)
class Layers:
    """The layers of an encoder, numbered from the image on."""

    numbers: dict[str, int]  # of the encoder's parameters, by their names in the network
    last: int  # of what follows the encoder: a decoder, a head, a classifier


def note_encoder(network: nn.Module, place: str, name: str) -> None:
    """Keep with a network where its encoder is, a name of `get_submodule`, and what it is called in timm."""
    network.__dict__["encoder_note"] = place, name.removeprefix("tu-")


def encoder_layers(network: nn.Module, key: str) -> Layers:
    """Return the layers of a network's encoder; raise CompetitionError, for whoever set `key`, where none is known."""
    note = network.__dict__.get("encoder_note")
    if note is None:
        raise CompetitionError(f"{key}: this network has no part that is known as its encoder; leave it out")
    place, name = note
    start = f"{place}." if place else ""
    known = _layers_by_timm(name)
    heads = _classifiers(network.get_submodule(place))
    names = [
        full
        for full, _ in network.named_parameters()
        if full.startswith(start) and not any(full.removeprefix(start).startswith(f"{head}.") for head in heads)
    ]
    numbers = {full: number for full in names if (number := _number(full.removeprefix(start), known)) is not None}
    if len(numbers) < len(names):
        numbers = {full: index // TOGETHER for index, full in enumerate(names)}
        return Layers(numbers, max(numbers.values(), default=-1) + 1)
    return Layers(numbers, max(known.values()))


def undecayed(network: nn.Module) -> set[str]:
    """Return the parameters that weight decay leaves alone: biases, those of norms, and what a network says itself."""
    patterns = [
        f"{place}.{name}".removeprefix(".")
        for place, module in network.named_modules()
        if callable(tell := getattr(module, "no_weight_decay", None))
        for name in tell()
    ]
    return {
        name
        for name, value in network.named_parameters()
        if value.ndim <= 1 or name.endswith(".bias") or any(fnmatch.fnmatchcase(name, each) for each in patterns)
    }


def _classifiers(encoder: nn.Module) -> list[str]:
    names = getattr(encoder, "pretrained_cfg", {}).get("classifier") or ()
    return [names] if isinstance(names, str) else list(names)


def _layers_by_timm(name: str) -> dict[str, int]:
    """Return the layer of each parameter of a network of timm, by its name with dots only; nothing of others."""
    if not timm.is_model(name):
        return {}
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):  # only names are asked for
                whole = timm.create_model(name)
        except Exception:  # some compute while they are built
            whole = timm.create_model(name)
    if not hasattr(whole, "group_matcher"):
        return {}
    match: Any = whole.group_matcher
    layers = group_parameters(whole, match(coarse=False), reverse=True)
    return {_spelt(one): number for one, number in layers.items()}


def _number(name: str, known: dict[str, int]) -> int | None:
    """Return the layer of a parameter, whose name may have something before that of the whole network."""
    while name:
        if _spelt(name) in known:
            return known[_spelt(name)]
        name = name.partition(".")[2]
    return None


def _spelt(name: str) -> str:
    """Write `stages_0`, as features are called, like `stages.0` of a whole network."""
    return name.replace("_", ".")
