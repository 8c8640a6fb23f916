"""The optimizer: any of timm's, torch's or schedulefree's by name, and which weights learn at which rate."""

import inspect
from collections.abc import Collection, Iterable
from typing import Any

import timm.optim
import torch
from torch import nn

from competition.config.faults import nearest, show
from competition.config.optimizer_settings import Optimizer
from competition.networks.encoder import encoder_layers, undecayed
from competition.support.errors import CompetitionError

# Arguments that have keys of their own.
OURS = {"lr": "optimizer.lr", "weight_decay": "optimizer.weight_decay", "warmup_steps": "scheduler.warmup"}
SCHEDULE_FREE = {
    "schedulefree_adamw": "AdamWScheduleFree",
    "schedulefree_sgd": "SGDScheduleFree",
    "schedulefree_radam": "RAdamScheduleFree",
}


def build_optimizer(
    network: nn.Module, settings: Optimizer, learn_later: Collection[str] = ()
) -> torch.optim.Optimizer:
    """Return the optimizer of a network; raise CompetitionError where there is none of the name, or it cannot be had.

    Biases, norms and what a network names itself are not decayed. Of frozen weights it has those that learn later.
    """
    kind = optimizer_class(settings.name)
    _check_arguments(kind, settings)
    with torch.random.fork_rng(devices=[]):
        probe = nn.Linear(2, 2)
        _step_once(probe, _explained(settings, [{"params": list(probe.parameters())}]), settings)
    return _explained(settings, parameter_groups(network, settings, learn_later))


def parameter_groups(
    network: nn.Module, settings: Optimizer, learn_later: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Return the groups of a network's weights, each with its rate and decay: those that follow the encoder first.

    The rate of an encoder's layer is `optimizer.encoder_lr` times `optimizer.layer_decay` for each layer behind it.
    """
    still = undecayed(network)
    rates = _rates(network, settings)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, value in network.named_parameters():
        if value.requires_grad or name in learn_later:
            groups.setdefault((rates.get(name, 1.0), name in still), []).append(value)
    # The first group's rate is logged; decayed weights stand before the others.
    order = sorted(groups, key=lambda key: (key[0] != 1.0, -key[0], key[1]))
    return [
        {
            "params": groups[rate, is_still],
            "weight_decay": 0.0 if is_still else settings.weight_decay,
            **({} if rate == 1 else {"lr": settings.lr * rate}),
        }
        for rate, is_still in order
    ]


def _rates(network: nn.Module, settings: Optimizer) -> dict[str, float]:
    """Return the factor of the learning rate of each of the encoder's parameters; nothing where all learn alike."""
    if settings.encoder_lr == 1 and settings.layer_decay == 1:
        return {}
    layers = encoder_layers(network, "optimizer.layer_decay" if settings.encoder_lr == 1 else "optimizer.encoder_lr")
    return {
        name: settings.encoder_lr * settings.layer_decay ** (layers.last - number)
        for name, number in layers.numbers.items()
    }


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """Return the class: timm's names are in small letters, torch's are those of its classes."""
    if name in SCHEDULE_FREE:
        return _schedule_free_class(name)
    known = [str(one) for one in timm.optim.list_optimizers()]
    of_torch = {
        one: kind
        for one, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
    if name in of_torch:
        return of_torch[name]
    if name not in known:
        guess = _nearest(name, [*known, *of_torch, *SCHEDULE_FREE])
        raise CompetitionError(f"optimizer.name: {show(name)} is no optimizer of timm or torch; {guess}")
    kind: Any = timm.optim.get_optimizer_class(name, bind_defaults=False)
    return kind


def _schedule_free_class(name: str) -> type[torch.optim.Optimizer]:
    try:
        import schedulefree
    except ImportError:
        raise CompetitionError(
            f"optimizer.name: {name} needs the package schedulefree; install it (`uv sync --extra schedulefree` or "
            "`pip install schedulefree`)"
        ) from None
    return getattr(schedulefree, SCHEDULE_FREE[name])


def _check_arguments(kind: type[torch.optim.Optimizer], settings: Optimizer) -> None:
    known = [name for name in list(inspect.signature(kind.__init__).parameters)[2:] if name not in OURS]
    for name in settings.arguments:
        if name in OURS:
            raise CompetitionError(f"optimizer.arguments.{name}: it is set by {OURS[name]}")
        if name not in known:
            raise CompetitionError(
                f"optimizer.arguments: {settings.name} takes no {show(name)}; {_nearest(name, known)}"
            )


def _nearest(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near}?" if near else f"known here: {', '.join(known)}"


def _explained(settings: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build an optimizer of groups of weights; turn what it says against that into one line."""
    arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.arguments.items()}
    try:
        if settings.is_schedule_free or settings.name[0].isupper():
            kind: Any = optimizer_class(settings.name)
            optimizer = kind(groups, lr=settings.lr, **arguments)
            if settings.is_schedule_free:
                optimizer.train()  # its steps are refused in the other mode; nothing moves yet
            return optimizer
        return timm.optim.create_optimizer_v2(
            groups, settings.name, lr=settings.lr, weight_decay=settings.weight_decay, **arguments
        )
    except Exception as error:  # each has errors of its own
        raise _refused(settings, error) from None


def _step_once(layer: nn.Module, optimizer: torch.optim.Optimizer, settings: Optimizer) -> None:
    """Take a step of nothing that is kept: some optimizers say only then what they need, as second derivatives."""

    def loss() -> float:
        optimizer.zero_grad()
        value = layer(torch.ones(1, 2)).square().sum()
        value.backward()
        return value.item()

    try:
        optimizer.step(loss)
    except Exception as error:  # each has errors of its own
        raise _refused(settings, error) from None


def _refused(settings: Optimizer, error: Exception) -> CompetitionError:
    reason = " ".join(str(error).split())[:200]
    return CompetitionError(f"optimizer: {settings.name} cannot train this network as it is set: {reason}")
