"""`data.batch_size: auto`: the largest batch that the GPU has memory for, found once for all trainings of a run."""

import gc
import time
from collections.abc import Callable

import pytorch_lightning as pl
import torch
from filelock import FileLock
from pytorch_lightning.utilities.memory import is_oom_error
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from competition.config.settings import Config
from competition.data.dataset import SeededIndex
from competition.data.folds import read_folds
from competition.runs.batch_size import FOUND, is_plain, remember_batch_size, settled
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule
from competition.training.trainer import build_trainer, describe_device

LEAST_STEPS = 8  # of an epoch: a larger batch would hardly learn, however much fits
USUAL = 16  # where there is no GPU to fit into, and `optimizer.lr_batch_size` tells none
SAMPLES = 16  # images that a trial's batch is made of, again and again
SPARE = 0.05  # of a card's memory: what cuDNN tries, and pieces that are too small
PATIENCE = 600.0  # seconds for which another process may look for it


def with_batch_size(config: Config) -> Config:
    """Return the config with the batch that its run takes, which is found now if no training of it has yet."""
    if not config.data.finds_batch_size:
        return config
    path = config.run_folder / FOUND
    if not getattr(rank_zero_only, "rank", 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{FOUND}.lock")):  # trainings side by side wait for the first one
            if not path.is_file():
                _find(config)
    waits_until = time.monotonic() + PATIENCE
    while not path.is_file():
        if time.monotonic() > waits_until:
            raise CompetitionError(f"{path}: was not written for {PATIENCE:g} seconds by the first process")
        time.sleep(0.2)
    return settled(config)


def _find(config: Config) -> None:
    trainer = build_trainer(config, [])
    parts = trainer.world_size * trainer.accumulate_grad_batches
    if trainer.strategy.root_device.type == "cuda":
        table = Task(config.task).table.read_table(config)
        data = FoldData(config, table, read_folds(config, table))
        size = parts * largest_that_fits(config, trainer, data)
        how = f"{size // parts} fit on a device at a time, of {describe_device(trainer)}"
    else:
        wanted = config.optimizer.lr_batch_size or USUAL
        size = -(-wanted // parts) * parts
        how = "no GPU to fill: optimizer.lr_batch_size, or else 16"
    path = remember_batch_size(config, size, how)
    print(f"data.batch_size: auto is {size} ({how}); kept in {path}", flush=True)
    _tell_rate(config)


def _tell_rate(config: Config) -> None:
    before, after = config.optimizer, settled(config).optimizer
    if before.lr_batch_size is None:
        print(f"optimizer.lr stays {before.lr:g}: name the batch it is for in optimizer.lr_batch_size", flush=True)
        return
    rule = "in proportion to the batch" if is_plain(before) else "by the root of the batch"
    print(f"optimizer.lr is {after.lr:g}: {before.lr:g} for {before.lr_batch_size} images, {rule}", flush=True)


def largest_that_fits(config: Config, trainer: pl.Trainer, data: FoldData) -> int:
    """Return the largest power of two of images that a device of the Trainer takes a step of.

    An epoch is left LEAST_STEPS steps. Raises CompetitionError where not even two images fit.
    """
    parts = trainer.world_size * trainer.accumulate_grad_batches
    most = max(len(data.train_set) // (LEAST_STEPS * parts), 2)
    size = 1  # which batch norm may refuse
    with torch.random.fork_rng():
        step = _trial(config, trainer, data)
        try:
            while 2 * size <= most and _fits(step, 2 * size):
                size *= 2
        finally:
            del step
            gc.collect()
            torch.cuda.empty_cache()
    if size == 1:
        raise CompetitionError(
            "data.batch_size: auto: not even two images fit into the memory of the device; take a smaller "
            "data.image_size or model.encoder, model.gradient_checkpointing=true or trainer.precision=half"
        )
    return size


def _fits(step: Callable[[int], None], size: int) -> bool:
    try:
        for _ in range(2):  # the second one has the optimizer's states besides
            step(size)
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError) or is_oom_error(error):
            return False
        raise
    return True


def _trial(config: Config, trainer: pl.Trainer, data: FoldData) -> Callable[[int], None]:
    """Return what takes a step of so many images: with all weights that ever learn, on the largest images."""
    device = trainer.strategy.root_device
    values = config.model_dump(mode="json")
    later = {"freeze": None, "unfreeze_epoch": None} if config.model.unfreeze_epoch is not None else {}
    values["model"] = values["model"] | {"pretrained": False} | later
    module = CompetitionModule(values, list(data.train_table.classes)).train()
    trainer.precision_plugin.convert_module(module)
    module.to(device)
    optimizer = module.build_optimizer()
    data.trainer = trainer
    spare = _spare(config, trainer, module)
    largest = max(config.data.train_sizes or [(0, config.data.image_size)], key=lambda one: one[1][0] * one[1][1])
    draws = [SeededIndex(row, row, largest[0]) for row in range(min(SAMPLES, len(data.train_set)))]
    samples = [data.train_set[draw] for draw in draws]

    def step(size: int) -> None:
        batch = data.train_set.collate([samples[place % len(samples)] for place in range(size)])
        batch = trainer.strategy.batch_to_device(batch, device)
        with trainer.precision_plugin.train_step_context():
            losses = module.image_losses(data.mixed(module.ready(batch), 0, 0))
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        spare.add_(0)  # held up to here

    return step


def _spare(config: Config, trainer: pl.Trainer, module: pl.LightningModule) -> torch.Tensor:
    """Return memory that a trial holds because a training needs it besides: averaged weights, gradients to exchange."""
    device = trainer.strategy.root_device
    copies = (config.ema is not None) + (trainer.world_size > 1)
    wanted = copies * sum(value.numel() * value.element_size() for value in module.parameters())
    if device.type == "cuda":
        wanted += int(SPARE * torch.cuda.get_device_properties(device).total_memory)
    return torch.zeros(wanted, dtype=torch.uint8, device=device)
