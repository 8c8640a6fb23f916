"""Batch norm whose statistics are those of all processes: `trainer.sync_batchnorm`."""

from pytorch_lightning.plugins import TorchSyncBatchNorm
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from competition.support.errors import CompetitionError


class NormsOverProcesses(TorchSyncBatchNorm):
    """Makes each batch norm one over all processes, and is undone after the training.

    Lightning's own puts plain norms in their places, and many of timm's hold an activation, which would be gone without
    a word. Here they stay the objects that they are: what is hooked to them, or knows them as frozen, still does.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Change the norms of a model; raise CompetitionError for one that is computed in a way of its own."""
        for name, norm in model.named_modules():
            if isinstance(norm, _BatchNorm) and not isinstance(norm, nn.SyncBatchNorm):
                norm.__dict__ |= {"kind_alone": type(norm), "process_group": None}
                norm.__class__ = _over_processes(name, norm)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Make them again what they were."""
        for norm in model.modules():
            if "kind_alone" in norm.__dict__:
                norm.__class__ = norm.__dict__.pop("kind_alone")
        return model


def _over_processes(name: str, norm: _BatchNorm) -> type[nn.SyncBatchNorm]:
    if isinstance(norm, BatchNormAct2d):
        return SyncBatchNormAct
    if type(norm).forward is not _BatchNorm.forward:
        raise CompetitionError(
            f"trainer.sync_batchnorm: found true, but {name} is a {type(norm).__name__}, which is computed in a way of "
            "its own; set it to false, or take another encoder"
        )
    return nn.SyncBatchNorm
