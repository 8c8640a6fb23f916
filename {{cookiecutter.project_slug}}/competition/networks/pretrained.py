"""Pretrained weights: from the hub, from a local file, or none; and what to say when they cannot be had."""

import os
import re
import socket
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import timm
import torch
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from competition.config.settings import Model
from competition.networks.encoder import size_arguments, spelt
from competition.networks.unknown_encoder import SMP, TIMM, unknown_encoder
from competition.networks.volume import is_of_volume
from competition.support.errors import CompetitionError

GO_ON = (
    "give a local file (model.pretrained=/path/to/weights.safetensors) or start from random weights "
    "(model.pretrained=false)"
)
COUNTER = "num_batches_tracked"

State = dict[str, Tensor]


def load_pretrained(
    encoder: nn.Module, model: Model, channels: int, anew: str, size: tuple[int, int] | None = None
) -> str | None:
    """Load what `model.pretrained` says, a file or the hub, into an encoder by the names of its tensors.

    With the `size` of images, embeddings of positions are resampled where the encoder was built for that size.

    Returns a line for people: how much of it was loaded, and what begins `anew`. Raises CompetitionError where most
    does not fit, or a tensor has another shape, as in another network.
    """
    if not model.pretrained:
        return None
    arguments = size_arguments(model.encoder, size)
    with explaining_weights(model):
        if isinstance(model.pretrained, str):
            source = str(weights_file(model))
            fit = _fit_of_file(read_state(weights_file(model)), encoder, model.encoder, channels, arguments)
        else:
            source = "the hub"
            # timm itself makes sure that the whole network is there; a part of it has other names.
            whole = timm.create_model(_timm_name(model.encoder), pretrained=True, **arguments)
            fit = _fit(whole.state_dict(), encoder, channels)
        if fit.strange or 2 * len(fit.tensors) <= fit.number:
            raise CompetitionError(
                f"model.pretrained: {source}: {len(fit.tensors)} of {fit.number} tensors of {model.encoder} fit; "
                f"{fit.fault}; {GO_ON}"
            )
        encoder.load_state_dict(fit.tensors | fit.counters, strict=False)
    lacks = f" ({fit.fault})" if fit.missing else ""
    counted = f"{len(fit.tensors)} of {fit.number} tensors of {model.encoder}{lacks}"
    return f"model.pretrained: {counted}, {anew} anew, from {source}"


def note_weights(network: nn.Module, line: str | None) -> None:
    """Keep with a network what `load_pretrained` said of it."""
    network.__dict__["weights_note"] = line


def weights_note(network: nn.Module) -> str | None:
    """Return what `load_pretrained` said of a network; None if it began with random weights."""
    return network.__dict__.get("weights_note")


@dataclass(frozen=True)
class Fit:
    """What of a file fits an encoder, by the encoder's names; its classifier is not counted."""

    number: int  # tensors of the encoder
    tensors: State
    missing: list[str]
    strange: list[tuple[str, Tensor, Tensor]]  # name, tensor of the file and of the encoder, of another shape
    counters: State  # of batches seen, which a file may leave out

    @property
    def fault(self) -> str:
        """Say of the first tensor that does not fit why."""
        if self.strange:
            name, found, wanted = self.strange[0]
            return f"{name} has the shape {tuple(found.shape)}, expected {tuple(wanted.shape)}"
        return f"there is no {self.missing[0]}" + (f" nor {len(self.missing) - 1} more" if self.missing[1:] else "")


def _fit_of_file(found: State, encoder: nn.Module, name: str, channels: int, arguments: Mapping[str, Any]) -> Fit:
    """Fit a file as it is, or else with the names that timm translates from those of the network's authors, and the
    positions that it resamples."""
    fit = _fit(found, encoder, channels)
    if len(fit.tensors) == fit.number or not timm.is_model(_timm_name(name)):
        return fit
    whole = timm.create_model(_timm_name(name), pretrained=False, **arguments)
    translate = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return fit
    for _ in range(3):  # prefixes
        try:
            published = _fit(translate(dict(found), whole), encoder, channels)
        except Exception:  # whatever a translation stumbles over, the file is no such file
            published = fit
        fit = max(fit, published, key=lambda one: len(one.tensors))
        found = _without_first(found)
    return fit


def _without_first(found: State) -> State:
    """Leave out what most names begin with, and the tensors whose names do not."""
    first = Counter(name.partition(".")[0] for name in found).most_common(1)[0][0] + "."
    return {name.removeprefix(first): value for name, value in found.items() if name.startswith(first)} or found


def _fit(found: State, encoder: nn.Module, channels: int) -> Fit:
    own = encoder.state_dict()
    named = by_names_of(found, own)
    classifiers = getattr(encoder, "pretrained_cfg", {}).get("classifier") or ()
    classifiers = [classifiers] if isinstance(classifiers, str) else classifiers
    wanted = {
        name: value
        for name, value in own.items()
        if not name.endswith(COUNTER)
        and (name in named or not is_of_volume(name))
        and not any(name.startswith(f"{one}.") for one in classifiers)
    }
    there = {name: for_channels(named[name], wanted[name], channels) for name in wanted if name in named}
    return Fit(
        number=len(wanted),
        tensors={name: value for name, value in there.items() if value.shape == wanted[name].shape},
        missing=[name for name in wanted if name not in there],
        strange=[(n, value, wanted[n]) for n, value in there.items() if value.shape != wanted[n].shape],
        counters={name: value for name, value in named.items() if name.endswith(COUNTER) and not value.ndim},
    )


def by_names_of(found: State, own: State) -> State:
    """Return the tensors of a file by the names of an encoder's own, with which their names end.

    What stands before (`module.`, `model.`, `backbone.`, `fcos.backbone.encoder.`, `state_dict.`) is told by where most
    of them are found, an exponential average before what it is of. timm writes `stages.0` in a whole network,
    `stages_0` in one of features.
    """
    shared = ""
    while len(own) > 1 and len({name[len(shared) :].partition(".")[0] for name in own}) == 1:
        shared += next(iter(own))[len(shared) :].partition(".")[0] + "."
    names = {spelt(name[len(shared) :]): name for name in own}
    by_prefix: dict[str, State] = {}
    for key, value in found.items():
        full = spelt(key)
        for start in [0, *(dot.end() for dot in re.finditer(r"\.", full))]:
            if (name := names.get(full[start:])) is not None:
                by_prefix.setdefault(key[:start], {})[name] = value

    def merit(prefix: str) -> tuple[int, bool]:
        fitting = sum(value.shape == own[name].shape for name, value in by_prefix[prefix].items())
        return fitting, re.search("ema|averag|teacher", prefix) is not None

    return by_prefix[max(by_prefix, key=merit)] if by_prefix else {}


def for_channels(found: Tensor, wanted: Tensor, channels: int) -> Tensor:
    """Return weights of a first convolution that look at three colours for another number of channels."""
    if found.shape == wanted.shape or found.ndim != 4 or channels == 3:
        return found
    try:
        return adapt_input_conv(channels, found)
    except (NotImplementedError, AssertionError, RuntimeError):
        return found


def _timm_name(encoder: str) -> str:
    return encoder.removeprefix("tu-")


def weights_file(model: Model) -> Path:
    """Return the local weights file; raise CompetitionError if it is not there."""
    path = Path(str(model.pretrained)).expanduser()
    if not path.is_file():
        raise CompetitionError(f"model.pretrained: {path}: no such file; {GO_ON}")
    return path


def check_encoder(name: str, also: list[str] | None = None) -> None:
    """Raise CompetitionError with the nearest names if timm does not know the encoder (nor is it in `also`)."""
    if timm.is_model(_timm_name(name)) or name in (also or []):
        return
    packages = [TIMM] if also is None else [TIMM, SMP]
    raise unknown_encoder(name, packages, {*timm.list_models(), *(also or [])})


@contextmanager
def explaining_weights(model: Model) -> Generator[None]:
    """Turn what goes wrong while weights are fetched or read into one line with a way on."""
    if model.pretrained is True and not _hub_reachable():
        # Weights fetched earlier still load; the rest fails at once instead of after a minute of retries.
        huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    except OSError as error:
        if model.pretrained is not True:
            raise
        raise CompetitionError(
            f"model.pretrained: true: the weights of {model.network_name} cannot be fetched from the hub "
            f"({type(error).__name__}; no network?); {GO_ON}"
        ) from None
    except (RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, CompetitionError) or not model.pretrained:
            raise
        reason = " ".join(str(error).split())[:200]
        raise CompetitionError(
            f"model.pretrained: {model.pretrained}: does not load into {model.network_name} ({reason}); {GO_ON}"
        ) from None


def read_state(path: Path) -> State:
    """Read the tensors of safetensors or of a pickled state dict, or several, one in the other, by dotted names."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors each have errors of their own
        reason = " ".join(str(error).split())[:100]
        raise CompetitionError(f"model.pretrained: {path}: no file of weights ({reason}); {GO_ON}") from None
    tensors = dict(_flat(found)) if isinstance(found, dict) else {}
    if not tensors:
        kind = (
            "a dict without tensors" if isinstance(found, dict) else f"no dict of tensors but a {type(found).__name__}"
        )
        raise CompetitionError(f"model.pretrained: {path}: no file of weights (it holds {kind}); {GO_ON}")
    return tensors


def _flat(found: Mapping[Any, Any], depth: int = 4) -> Iterator[tuple[str, Tensor]]:
    for key, value in found.items():
        if isinstance(value, Tensor):
            yield str(key), value
        elif isinstance(value, Mapping) and depth:
            yield from ((f"{key}.{name}", inner) for name, inner in _flat(value, depth - 1))


def _hub_reachable() -> bool:
    if any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")):
        return True  # only the client itself can tell
    address = urlsplit(huggingface_hub.constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=5).close()
    except OSError:
        return False
    return True
