"""The Trainer: Lightning's own, from `trainer:` in YAML, plus a plain word on what it will do."""

import logging
import os
import warnings
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.accelerators import CPUAccelerator, MPSAccelerator
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import MixedPrecision, TorchSyncBatchNorm
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from competition.config.settings import Config
from competition.support.distributed import num_processes
from competition.support.errors import CompetitionError
from competition.support.progress import has_bars
from competition.training.checkpoint import AtomicCheckpointIO
from competition.training.devices import precision_here

# Lightning says these of every run; none asks the user to do anything.
NOISE = (
    ".*LeafSpec.*",
    ".*The `srun` command is available on your system but is not used.*",
    ".*The number of training batches .* is smaller than the logging interval.*",
    ".*does not have many workers.*",
    ".*sync_dist=True.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Trying to infer the `batch_size`.*",
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
    ".*GPU available but not used.*",
    ".*MPS available but not used.*",
    ".*You're resuming from a checkpoint that ended before the epoch ended.*",
    ".*lr_scheduler.step.*before.*optimizer.step.*",
    ".*module.s. in eval mode at the start of training.*",  # what is frozen
    # Its reason is a new loader an epoch, each with its workers; FoldData hands over the same one again.
    ".*The combination of .DataLoader.*pin_memory=True.*persistent_workers=True.*",
)


def silence_noise() -> None:
    """Keep quiet what a user cannot act on."""
    for pattern in NOISE:
        warnings.filterwarnings("ignore", message=pattern)
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Before it kills what waits for a dead process, Lightning says so, but only as information.
    logging.getLogger("lightning_fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
    logging.getLogger("pytorch_lightning.profilers.profiler").setLevel(logging.INFO)  # says what was asked for


def build_trainer(
    config: Config, callbacks: Sequence[Callback], *, loggers: Sequence[Logger] = (), training: bool = True
) -> pl.Trainer:
    """Return a Trainer; one for prediction only takes from `trainer:` where to compute and how precisely.

    Raises CompetitionError where Lightning cannot do what `trainer:` asks for.
    """
    silence_noise()
    # `max_time` is kept by StopInGoodOrder, which can be resumed from.
    settings = {key: value for key, value in config.trainer.items() if key != "max_time"}
    if not training:
        settings = prediction_settings(config)
    elif config.fold == "all":
        settings["limit_val_batches"] = 0  # Lightning would warn of the loader of no images, each time it asks for it
    if "precision" in settings:
        settings["precision"] = precision_here(settings["precision"])
    # A bar redraws itself; in a log file or a notebook's subprocess every redraw would be another line.
    has_bar = settings.get("enable_progress_bar", True) and has_bars()
    bar: list[Callback] = [TQDMProgressBar(leave=False)] if has_bar else []
    arguments: dict[str, Any] = {"enable_model_summary": False, "num_sanity_val_steps": 0}
    arguments |= settings | {"enable_progress_bar": has_bar}
    try:
        trainer = pl.Trainer(
            **arguments,
            callbacks=[*callbacks, *bar],
            logger=list(loggers) or False,
            enable_checkpointing=training,
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=1,
            plugins=[AtomicCheckpointIO(), *([NormsOverProcesses()] if settings.get("sync_batchnorm") else [])],
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise CompetitionError(f"trainer: Lightning refuses it: {' '.join(str(error).split())}") from None
    trainer.limit_train_batches = 1.0  # TrainBatches keeps to it, which knows whole steps from their parts
    if settings.get("sync_batchnorm") and trainer.world_size > 1 and isinstance(trainer.accelerator, CPUAccelerator):
        raise CompetitionError("trainer.sync_batchnorm: found true; torch can do it on GPUs only: set it to false here")
    return trainer


def refuse_clipping(trainer: pl.Trainer, optimizer: torch.optim.Optimizer) -> None:
    """Raise CompetitionError where Lightning would refuse to clip gradients, at the first step of a training.

    In mixed precision a fused optimizer undoes their scale inside its step: before, their norm is another.
    """
    is_fused = getattr(optimizer, "_step_supports_amp_scaling", False)
    if is_fused and trainer.gradient_clip_val and isinstance(trainer.precision_plugin, MixedPrecision):
        raise CompetitionError(
            f"optimizer.arguments: gradients cannot be clipped before a fused optimizer in {trainer.precision}; leave "
            f"fused out, or set trainer.gradient_clip_val (found {trainer.gradient_clip_val:g}) to null"
        )


def prediction_settings(config: Config) -> dict[str, Any]:
    """Return what a Trainer for prediction takes from `trainer:`: where to compute and how precisely.

    A run is often predicted elsewhere than it was trained: on the devices that are here, by the processes that were
    started, whatever trained it.
    """
    kept = ("accelerator", "devices", "strategy", "precision")
    settings = {key: value for key, value in config.trainer.items() if key in kept}
    if config.inference.precision is not None:
        settings["precision"] = config.inference.precision
    wanted, num_gpus = str(settings.get("accelerator", "auto")), torch.cuda.device_count()
    if wanted in ("auto", "gpu", "cuda", "mps") and not num_gpus:
        wanted = settings["accelerator"] = "mps" if MPSAccelerator.is_available() else "cpu"
        if num_processes() == 1:  # of a training on several processes each predicts its share
            settings["devices"] = 1
    elif wanted == "mps":  # trained on a Mac
        settings["accelerator"] = "gpu"
    if wanted != "cpu":
        settings["devices"] = devices_here(settings.get("devices", "auto"), num_gpus)
    return settings | _processes_started(config)


def _processes_started(config: Config) -> dict[str, int]:
    """Return how many devices and machines a launcher has started processes for; nothing where there is none."""
    if TorchElasticEnvironment.detect():
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return {"devices": here, "num_nodes": int(os.environ["WORLD_SIZE"]) // here}
    if SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        tasks = os.environ.get("SLURM_NTASKS_PER_NODE") or int(os.environ.get("SLURM_NTASKS", nodes)) // nodes
        return {"devices": int(tasks), "num_nodes": nodes}
    if os.environ.get("MASTER_ADDR", "localhost") not in ("localhost", "127.0.0.1"):
        return {"num_nodes": config.trainer.get("num_nodes", 1)}  # somebody starts it on each machine
    return {}


def devices_here(wanted: Any, num_gpus: int) -> Any:
    """Return `trainer.devices` as it is, but for GPUs of which there are fewer on this machine."""
    if isinstance(wanted, str) and "," in wanted:
        wanted = [int(one) for one in wanted.split(",") if one.strip()]
    if isinstance(wanted, list):
        return wanted if max(wanted, default=0) < num_gpus or not num_gpus else min(len(wanted), num_gpus)
    return num_gpus if num_gpus and str(wanted).isdigit() and int(wanted) > num_gpus else wanted


def describe_trainer(config: Config, trainer: pl.Trainer, batch_size: int) -> str:
    """Say in plain words on what, how precisely and in which batches the run computes."""
    accumulate = trainer.accumulate_grad_batches
    return (
        f"{describe_device(trainer)}, precision "
        f"{trainer.precision}, batch {config.data.batch_size} in all = {batch_size} a device x "
        f"{trainer.world_size} devices x {accumulate} accumulated"
    )


def describe_device(trainer: pl.Trainer) -> str:
    """Say on how many devices of which kind a Trainer computes."""
    kind = trainer.accelerator.__class__.__name__.removesuffix("Accelerator")
    name = f" ({torch.cuda.get_device_name()})" if kind == "CUDA" else f" ({torch.get_num_threads()} threads)"
    nodes = f" on {trainer.num_nodes} machines" if trainer.num_nodes > 1 else ""
    return f"{trainer.world_size} x {kind}{name if kind in ('CUDA', 'CPU') else ''}{nodes}"


class NormsOverProcesses(TorchSyncBatchNorm):
    """`trainer.sync_batchnorm`: makes each batch norm one over all processes, and is undone after the training.

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
