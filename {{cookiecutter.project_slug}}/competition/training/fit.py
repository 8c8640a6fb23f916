"""The training of one fold: its Trainer, callbacks, and what is said when it begins."""

from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from competition.config.settings import Config
from competition.config.views import view_of
from competition.data.dataset import share_cache
from competition.files.image_folder import one_of_many
from competition.networks.columns import fit_columns
from competition.networks.encoder import refuse_other_sizes
from competition.networks.pretrained import weights_note
from competition.runs.folder import METRICS, OOF, is_finished, more_epochs, remember_config
from competition.sampling.epoch_plan import plan_warnings
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table, Task
from competition.tasks.user_losses import load_loss
from competition.training.averaging import AverageWeights, ScheduleFreeWeights
from competition.training.checkpoint import (
    LATEST,
    LatestAndBest,
    explaining_other_network,
    export_weights,
    exported_path,
    load_checkpoint,
)
from competition.training.fold_data import FoldData, mixing_warnings, per_device_batch_size
from competition.training.freezing import refuse_nothing_frozen
from competition.training.logger import MetricsCsv, build_loggers
from competition.training.lost_process import watch_processes
from competition.training.module import CompetitionModule
from competition.training.monitor import better_mode
from competition.training.remember import RememberImages
from competition.training.stopping import StopEarly, StopInGoodOrder, StopOnNan
from competition.training.trainer import build_trainer, describe_device, describe_trainer, refuse_clipping


def fit(config: Config, table: Table, data: FoldData, begun: Callable[[str], None]) -> None:
    """Train a fold to its end, from latest.pt where there is one; `begun` is told the device once nothing is refused.

    Raises CompetitionError for a user's mistake, StoppedError where it was asked to stop and can go on.
    """
    folder = config.fold_folder
    latest = folder / LATEST if (folder / LATEST).is_file() else None
    pl.seed_everything(config.seed, workers=True, verbose=False)
    loggers = build_loggers(config.logger, folder, f"{config.name}-fold{config.fold}")
    trainer = build_trainer(config, _callbacks(config, folder, data), loggers=loggers)
    watch_processes(trainer, "training")
    batch_size = per_device_batch_size(config, trainer.world_size, trainer.accumulate_grad_batches)
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    fit_columns(module.network, data.train_set.columns)
    refuse_clipping(trainer, module.build_optimizer())  # what cannot be had is refused before a run is there
    refuse_other_sizes(module.network, config.data.channels, _sizes(config))
    module.train()
    for file in config.loss.files:
        load_loss(file)
    data.trainer = trainer
    planned = plan_warnings(data.batches(), data.plan(), config.ema)
    if config.data.augmentation.more:
        data.batch()  # what a step of the user's cannot do with these images is said before a run is there
    if latest is not None:  # a damaged file is said in one line, before any process waits for another
        if (more := more_epochs(folder, config)) is not None:
            _say(lengthen(config, latest, more))
        else:
            load_checkpoint(latest)
    share_cache(config, [data.train_set.of_images(), data.val_set.of_images()])
    if latest is None:
        refuse_nothing_frozen(module.frozen, module.network, config.model)
    if trainer.is_global_zero:
        remember_config(folder, config)  # last of what may be refused: what has a config counts as a run
        begun(describe_device(trainer))
    checked = "no validation: all images are trained on"
    if len(data.val_set):
        checked = f"{len(data.val_set)} validation {data.val_set.unit}"
    _say(f"fold {config.fold}: {len(data.train_set)} training {data.train_set.unit}, {checked}")
    _say(describe_trainer(config, trainer, batch_size))
    if latest is None and (line := weights_note(module.network)) is not None:
        _say(line)
    if module.frozen.names:
        until = f" in the epochs up to {module.frozen.until}" if module.frozen.until else ""
        key = "model.freeze" if config.model.lora is None else "model.lora"
        _say(f"{key}: {len(module.frozen.names)} of {len(list(module.parameters()))} tensors do not learn{until}")
    added = {**Task(config.task).loss.weights(config), **config.loss.files}
    if (distil := config.loss.distil) is not None:
        added[f"distil of {distil.run}"] = distil.weight
    added = {name: weight for name, weight in added.items() if weight}
    _say(f"loss: {' + '.join(f'{weight:g} {name}' for name, weight in added.items())}")
    for line in [*one_of_many(config, table.image_ids), *data.notes, *planned, *mixing_warnings(config, batch_size)]:
        _say(line)
    # Lightning does it after it has restored weights, which rounds those of 64-true.
    trainer.precision_plugin.convert_module(module)
    with explaining_other_network(folder / LATEST):
        trainer.fit(module, data, ckpt_path=latest, weights_only=True)


def _sizes(config: Config) -> dict[tuple[int, int], str]:
    """Return the sizes of images that the network will see, each with the key that says so."""
    data = config.data
    views = {view_of(name).seen_size(*data.image_size): f"tta: {name}" for name in config.tta}
    return views | dict.fromkeys([*(size for _, size in data.train_sizes), data.image_size], "data.image_size")


def lengthen(config: Config, latest: Path, epochs: int) -> str:
    """Say what becomes of a training that is to have more epochs; raise CompetitionError where it would not go on."""
    folder, state = latest.parent, load_checkpoint(latest)
    if any(one.get("has_stopped") for one in state["callbacks"].values() if isinstance(one, dict)):
        raise CompetitionError(
            f"trainer.max_epochs: {folder} stopped early, after {state['epoch'] + 1} epochs, and would not go on to "
            f"{epochs}; train it anew under another name=..., with more early_stopping.patience"
        )
    made = f"{OOF} is deleted and made anew at the end, what was made of it by `competition run`"
    kept = f"fold {config.fold}: goes on to {epochs} epochs from {latest}; " + (made if is_finished(folder) else "")
    if config.scheduler.name == "constant" and not config.scheduler.warmup:
        return kept
    return (
        f"{kept.removesuffix('; ')}; the learning rate jumps to its course over {epochs} epochs, so that this is not "
        f"what {epochs} epochs from the start would give"
    )


def _callbacks(config: Config, folder: Path, data: FoldData) -> list[Callback]:
    mode = better_mode(config)
    checkpoint = LatestAndBest(folder, config.checkpoint, mode)
    callbacks: list[Callback] = [
        StopOnNan(),
        MetricsCsv(folder / METRICS, config.metric_names, describe_epoch=data.describe_epoch),
        checkpoint,
        StopInGoodOrder(checkpoint, config.trainer.get("max_time")),
        RememberImages(data),
    ]
    if ema := config.ema:
        callbacks.insert(0, AverageWeights(ema.decay, ema.start_step))
    if config.optimizer.is_schedule_free:
        callbacks.insert(0, ScheduleFreeWeights(data))
    if (stop := config.early_stopping) and config.fold != "all":
        callbacks.append(StopEarly(config.checkpoint.monitor, stop, mode))
    return callbacks


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


@rank_zero_only
def export(config: Config, weights: Path) -> None:
    """Write the weights of a training on all images, which nothing validates, and say where they are."""
    export_weights(weights)
    print(f"fold {config.fold}: trained to its end, with {exported_path(weights)}", flush=True)
