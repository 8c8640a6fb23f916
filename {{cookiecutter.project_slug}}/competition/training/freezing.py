"""Parts of a network that do not learn, all the time or at first: `model.freeze`, or what `model.lora` adapts."""

import gc
import math

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from competition.config.settings import Model
from competition.networks.encoder import encoder_layers
from competition.networks.lora import frozen_names
from competition.networks.volume import is_of_volume
from competition.support.errors import CompetitionError


class Frozen:
    """The frozen parameters of a network, and the modules that hold nothing else: these rest in evaluation mode.

    In training mode their batch norms would go on to learn what images look like, and their dropout to hide features.
    """

    def __init__(self, network: nn.Module, settings: Model) -> None:
        self.until = settings.unfreeze_epoch
        self.has_thawed = False
        self.names = _frozen_names(network, settings)
        own = dict(network.named_parameters())
        self._parameters = [own[name] for name in self.names]
        self._modules = [
            module
            for module in network.modules()
            if (inside := {id(one) for name, one in module.named_parameters() if not is_of_volume(name)})
            and inside <= {id(one) for one in self._parameters}
        ]
        for one in self._parameters:
            one.requires_grad_(False)

    @property
    def learn_later(self) -> set[str]:
        """Names of the parameters that the optimizer has from the start, though they learn only later."""
        return self.names if self.until is not None else set()

    @property
    def resting(self) -> set[nn.Module]:
        """Modules that do not learn, or not yet."""
        return set() if self.has_thawed else set(self._modules)

    def rest(self) -> None:
        """Put what is frozen into evaluation mode."""
        for module in self._modules:
            module.eval()

    def thaw_if_due(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Let everything learn from the epoch `until` on; called before a step, as a resumed epoch has no beginning."""
        if not self._parameters or self.until is None or trainer.current_epoch < self.until:
            return
        for one in self._parameters:
            one.requires_grad_(True)
        self._parameters, self._modules, self.has_thawed = [], [], True
        module.train()
        if isinstance(strategy := trainer.strategy, DDPStrategy):
            # It adds up the gradients of the parameters that learnt when it was made, and of no others.
            strategy.model = module
            gc.collect()  # the hooks of the one before, which would add them up once more
            strategy.configure_ddp()


def _frozen_names(network: nn.Module, settings: Model) -> set[str]:
    if settings.lora is not None:
        return frozen_names(network)
    if settings.freeze is None:
        return set()
    numbers = encoder_layers(network, "model.freeze").numbers
    if settings.freeze == "encoder":
        return set(numbers)
    end = settings.freeze * (max(numbers.values()) + 1)
    return {name for name, number in numbers.items() if number < round(end)}


def refuse_nothing_frozen(frozen: Frozen, network: nn.Module, settings: Model) -> None:
    """Raise CompetitionError where a share is so small that nothing is frozen by it."""
    if settings.freeze is None or frozen.names:
        return
    layers = max(encoder_layers(network, "model.freeze").numbers.values()) + 1
    raise CompetitionError(
        f"model.freeze: {settings.freeze} freezes nothing of an encoder of {layers} layers; expected "
        f"{math.ceil(100 / layers) / 100:g} or more, or no such key"
    )
