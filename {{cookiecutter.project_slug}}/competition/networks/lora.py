"""Low-rank adapters of an encoder (`model.lora`), by the package peft.

Training has them; what predicts is built without, from merged weights, and needs no peft.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from competition.config.settings import Config
from competition.networks.encoder import encoder_layers
from competition.support.errors import CompetitionError

KEY = "model.lora"
IN_ADAPTER = re.compile(r"\.lora_[AB]\.default\.weight$")


def add_adapters(network: nn.Module, config: Config) -> None:
    """Put adapters into the linear layers of a network's encoder; raise CompetitionError where it has none.

    The encoder's own weights stand still from here on; heads and decoders learn as before.
    """
    settings = config.model.lora
    assert settings is not None
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise CompetitionError(
            f"{KEY}: needs the package peft; install it (`uv sync --extra lora` or `pip install peft`)"
        ) from None
    places = _linear_layers(network, config)
    if not places:
        raise CompetitionError(
            f"{KEY}: {config.model.network_name} has no linear layers, as transformers have; leave it out, or take "
            "another, as vit_small_patch16_224"
        )
    learning = {name for name, value in network.named_parameters() if value.requires_grad}
    pattern = "|".join(map(re.escape, places))
    given: dict[str, Any] = {"r": settings.rank, "lora_alpha": settings.alpha, "lora_dropout": settings.dropout}
    inject_adapter_in_model(LoraConfig(**given, target_modules=f"({pattern})"), network)
    encoder = encoder_layers(network, KEY).numbers
    for name, value in network.named_parameters():
        value.requires_grad_(bool(IN_ADAPTER.search(name)) or (name in learning and name not in encoder))


def frozen_names(network: nn.Module) -> set[str]:
    """Return the parameters of an encoder with adapters that stand still: all of it but these."""
    return {name for name in encoder_layers(network, KEY).numbers if not IN_ADAPTER.search(name)}


def has_adapters(state: Mapping[str, Tensor]) -> bool:
    """Return whether weights are of a network with adapters."""
    return any(IN_ADAPTER.search(name) for name in state)


def merged(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of a network with adapters as those of one without, by the settings of `model.lora`."""
    scale = settings["alpha"] / settings["rank"]
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if IN_ADAPTER.search(name):
            continue
        layer, is_adapted, rest = name.rpartition(".base_layer.")
        found[f"{layer}.{rest}" if is_adapted else name] = value
        if is_adapted and rest == "weight":
            down, up = (state[f"{layer}.lora_{part}.default.weight"].float() for part in "AB")
            found[f"{layer}.weight"] = (value.float() + scale * up @ down).to(value.dtype)
    return found


def _linear_layers(network: nn.Module, config: Config) -> list[str]:
    """Return where an encoder has linear layers that are called: some networks take only the weights of theirs."""
    encoder = encoder_layers(network, KEY).numbers
    linear = {
        name: one for name, one in network.named_modules() if isinstance(one, nn.Linear) and f"{name}.weight" in encoder
    }
    called: set[nn.Module] = set()
    hooks = [one.register_forward_pre_hook(lambda module, _: called.add(module)) for one in linear.values()]
    was_training = network.training
    try:
        with torch.no_grad():
            like = next(network.parameters())
            network.eval()(like.new_zeros(1, config.data.channels, *config.data.image_size))
    except Exception:  # sizes that it cannot take are told by whoever tries all of them
        called.update(linear.values())
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return [name for name, one in linear.items() if one in called]
