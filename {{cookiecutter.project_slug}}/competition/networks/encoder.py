"""The encoder of a network: what it is built with, which part it is, and in what order its layers stand.

Learning rates and frozen parts go by that order.
"""

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from competition.networks.volume import is_of_volume
from competition.support.errors import CompetitionError

OF_POOL = re.compile(r"(^|\.)global_pool\.")  # what a pooling learns follows the layers, as a classifier does
TOGETHER = 12  # tensors of a layer where timm tells no layers, as timm has it


@dataclass(frozen=True)
class Layers:
    """The layers of an encoder, numbered from the image on."""

    numbers: dict[str, int]  # of the encoder's parameters, by their names in the network
    last: int  # of what follows the encoder: a decoder, a head, a classifier


def size_arguments(name: str, size: tuple[int, int] | None) -> dict[str, Any]:
    """Return what tells a network of timm the height and width of its images, where it is made for one size."""
    name = name.removeprefix("tu-")
    if size is None or not timm.is_model(name) or not getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        return {}
    arguments = {"img_size": size}
    try:
        _without_weights(name, arguments)
    except Exception:  # it can be told none, or not this one: what it takes is tried out before a training
        return {}
    return arguments


def drop_path_arguments(name: str, share: float) -> dict[str, Any]:
    """Return what tells a network of timm how often it leaves out a block; raise CompetitionError if it cannot."""
    if not share:
        return {}
    arguments = {"drop_path_rate": share}
    try:
        _without_weights(name.removeprefix("tu-"), arguments)
    except (TypeError, RuntimeError):
        raise CompetitionError(f"model.drop_path: {name} cannot leave out blocks; set it to 0") from None
    return arguments


def num_features(name: str, arguments: Mapping[str, Any]) -> int:
    """Return how many features of an image a network of timm hands to its classifier; raise CompetitionError where that
    is not told."""
    whole: Any = _without_weights(name.removeprefix("tu-"), {**arguments, "num_classes": 2})
    classifier = whole.get_classifier()
    first = classifier[0] if isinstance(classifier, tuple | list) else classifier
    if not isinstance(first, nn.Linear):
        raise CompetitionError(
            f"model.encoder: {name} ends with no single layer that its features could be taken from, to join others to "
            "them; take another encoder"
        )
    return first.in_features


def refuse_other_sizes(network: nn.Module, channels: int, sizes: Mapping[tuple[int, int], str]) -> None:
    """Raise CompetitionError where a network cannot take images of one of the sizes, each with the key it is of."""
    _, name = network.__dict__.get("encoder_note", ("", "the network"))
    for size, key in sizes.items():
        network.eval()
        try:
            with torch.no_grad():
                network(torch.zeros(1, channels, *size, dtype=next(network.parameters()).dtype))
        except CompetitionError as error:  # it tells its sizes itself
            raise CompetitionError(f"{key}: {error}") from None
        except Exception as error:  # each network has errors of its own
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise CompetitionError(
                f"{key}: {name} cannot take images of {size[0]} x {size[1]} ({reason}); {_sizes_near(name, size)}"
            ) from None
        finally:
            network.train()


def _sizes_near(name: str, size: tuple[int, int]) -> str:
    near = " x ".join(str(max(round(side / 32), 1) * 32) for side in size)
    usual = getattr(timm.get_pretrained_cfg(name), "input_size", None) if timm.is_model(name) else None
    return f"take multiples of 32, as {near}" + (f", or its own {usual[1]} x {usual[2]}" if usual else "")


def _without_weights(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network of timm of which only names and shapes are asked for; no generator of numbers moves on."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return timm.create_model(name, **arguments)
        except Exception:  # some compute while they are built
            return timm.create_model(name, **arguments)


def save_memory(network: nn.Module) -> None:
    """Let a network's encoder compute its insides twice instead of keeping them; raise CompetitionError if it
    cannot."""
    place, name = network.__dict__.get("encoder_note", ("", "this network"))
    encoder: Any = network.get_submodule(place)
    while not hasattr(encoder, "set_grad_checkpointing") and isinstance(getattr(encoder, "model", None), nn.Module):
        encoder = encoder.model
    try:
        encoder.set_grad_checkpointing(True)
    except (AttributeError, AssertionError, NotImplementedError):
        raise CompetitionError(
            f"model.gradient_checkpointing: {name} cannot; set it to false, or take an encoder of timm that can, as "
            "tu-resnet18"
        ) from None
    for one in encoder.modules():
        if hasattr(one, "inplace"):  # timm up to 1.0.27 keeps what such a layer then changes, which autograd refuses
            one.inplace = False
        if isinstance(one, _BatchNorm) and one.track_running_stats:
            one.register_forward_pre_hook(_hold_statistics)
            one.register_forward_hook(_let_go, always_call=True)  # what is computed anew ends early, by an error


def _hold_statistics(norm: Any, _: tuple[Any, ...]) -> None:
    """Have a norm count a batch once: it is in the backward pass that it sees one again.

    By its momentum, as what is kept for that pass must be the same both times.
    """
    if torch._C._current_graph_task_id() != -1:
        norm.__dict__["held"] = norm.momentum, norm.num_batches_tracked
        norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()


def _let_go(norm: Any, _: tuple[Any, ...], __: Any) -> None:
    if "held" in norm.__dict__:
        norm.momentum, norm.num_batches_tracked = norm.__dict__.pop("held")


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
        if full.startswith(start)
        and not is_of_volume(full)
        and not OF_POOL.search(full)
        and not any(full.removeprefix(start).startswith(f"{head}.") for head in heads)
    ]
    plain = {full: plain_name(full).removeprefix(start) for full in names}
    numbers = {full: number for full in names if (number := _number(plain[full], known)) is not None}
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


@cache
def _layers_by_timm(name: str) -> dict[str, int]:
    """Return the layer of each parameter of a network of timm, by its name with dots only; nothing of others."""
    if not timm.is_model(name):
        return {}
    whole = _without_weights(name, {})
    if not hasattr(whole, "group_matcher"):
        return {}
    match: Any = whole.group_matcher
    layers = group_parameters(whole, match(coarse=False), reverse=True)
    return {spelt(one): number for one, number in layers.items()}


def _number(name: str, known: dict[str, int]) -> int | None:
    """Return the layer of a parameter, whose name may have something before that of the whole network."""
    while name:
        if spelt(name) in known:
            return known[spelt(name)]
        name = name.partition(".")[2]
    return None


def plain_name(name: str) -> str:
    """Return what a parameter is called in a network without adapters: that of the layer that an adapter is for."""
    return re.sub(r"\.(base_layer|lora_[AB]\.default)(?=\.)", "", name)


def spelt(name: str) -> str:
    """Write `stages_0`, as features are called, like `stages.0` of a whole network."""
    return name.replace("_", ".")
