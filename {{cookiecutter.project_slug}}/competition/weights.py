"""Pretrained weights: from the hub, from a local file, or none; and what to say when they cannot be had."""

import difflib
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from competition.errors import CompetitionError
from competition.settings import Model

GO_ON = (
    "give a local file (model.pretrained=/path/to/weights.safetensors) or start from random weights "
    "(model.pretrained=false)"
)


def timm_arguments(model: Model) -> dict[str, Any]:
    """Return the arguments of `timm.create_model` that load what `model.pretrained` says."""
    if isinstance(model.pretrained, str):
        read_state(weights_file(model))  # timm's own messages for a broken file are many lines
        return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(weights_file(model))}}
    return {"pretrained": model.pretrained}


def weights_file(model: Model) -> Path:
    """Return the local weights file; raise CompetitionError if it is not there."""
    path = Path(str(model.pretrained)).expanduser()
    if not path.is_file():
        raise CompetitionError(f"model.pretrained: {path}: no such file; {GO_ON}")
    return path


def check_encoder(name: str, also: list[str] | None = None) -> None:
    """Raise CompetitionError with the nearest names if timm does not know the encoder (nor is it in `also`)."""
    if timm.is_model(name.removeprefix("tu-")) or name in (also or []):
        return
    near = difflib.get_close_matches(name, {*timm.list_models(), *(also or [])}, n=3, cutoff=0.5)
    raise CompetitionError(f"model.encoder: {name!r} is no encoder of timm; nearest: {', '.join(near) or 'none'}")


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
            f"model.pretrained: true: the weights of {model.encoder} cannot be fetched from the hub "
            f"({type(error).__name__}; no network?); {GO_ON}"
        ) from None
    except (RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, CompetitionError) or not model.pretrained:
            raise
        reason = " ".join(str(error).split())[:200]
        raise CompetitionError(
            f"model.pretrained: {model.pretrained}: does not load into {model.encoder} ({reason}); {GO_ON}"
        ) from None


def load_encoder(encoder: nn.Module, path: Path, name: str) -> None:
    """Load a file of weights into an encoder by parameter names, leaving a classifier in the file unused.

    Raises CompetitionError if a parameter of the encoder is missing in the file or has another shape.
    """
    found = read_state(path)
    wanted = {key: value for key, value in encoder.state_dict().items() if not key.endswith("num_batches_tracked")}
    missing = [key for key, value in wanted.items() if key not in found or found[key].shape != value.shape]
    if missing:
        raise CompetitionError(
            f"model.pretrained: {path}: lacks {len(missing)} of {len(wanted)} tensors of {name}, the first "
            f"{missing[0]}; {GO_ON}"
        )
    encoder.load_state_dict({key: found[key] for key in wanted}, strict=False)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from safetensors or a state dict, which may lie under `state_dict` or `model`."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors each have errors of their own
        reason = " ".join(str(error).split())[:100]
        raise CompetitionError(f"model.pretrained: {path}: no file of weights ({reason}); {GO_ON}") from None
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, dict) else state
    return state


def _hub_reachable() -> bool:
    if any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")):
        return True  # only the client itself can tell
    address = urlsplit(huggingface_hub.constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=5).close()
    except OSError:
        return False
    return True
