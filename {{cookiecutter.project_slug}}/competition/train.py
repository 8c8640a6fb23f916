"""`competition train CONFIG... [key=value ...]`: train one fold and predict its validation images."""

from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from competition.checkpoint import LATEST, LatestAndBest, export_weights, exported_path, load_checkpoint, weights_to_use
from competition.data import FoldData, mixing_warnings, per_device_batch_size
from competition.early_stopping import StopEarly
from competition.ema import AverageWeights
from competition.epoch_plan import plan_warnings
from competition.errors import CompetitionError
from competition.folder_lock import holding
from competition.folds import read_folds
from competition.host_metric import load_score
from competition.inference import refuse_gpus_without_kernels
from competition.interruption import StopInGoodOrder
from competition.logger import MetricsCsv, build_loggers
from competition.lost_process import explaining_lost_process, watch_processes
from competition.module import CompetitionModule
from competition.monitor import better_mode
from competition.nan_guard import StopOnNan
from competition.predict import load_network, predict_images
from competition.record import begin, record
from competition.runs import METRICS, OOF, is_finished, more_epochs, refuse_start, remember_config
from competition.score import describe_scores, score_predictions
from competition.settings import Config
from competition.task import Table, Task
from competition.trainer import build_trainer, describe_device, describe_trainer
from competition.weights import weights_note


def train(config: Config, *, resume: bool = False, bases: Sequence[str] = ()) -> Path:
    """Train the fold `config.fold`; return its folder with checkpoints, metrics.csv and oof.npz.

    The predictions oof.npz come last: a fold that has them is done. In the ledger the run is compared with the first of
    the runs `bases` that is there.

    Raises CompetitionError for a user's mistake, StoppedError where it was asked to stop and can go on.
    """
    folder = config.fold_folder
    refuse_gpus_without_kernels(config)
    with holding(folder, "training"):
        refuse_start(config, resume=resume)
        if config.host_metric is not None:
            load_score(config.host_metric.file)  # a wrong path should not be found after the training
        table = Task(config.task).table.read_table(config)
        data = FoldData(config, table, read_folds(config, table))
        with explaining_lost_process("training"):
            _fit(config, table, data, folder / LATEST if (folder / LATEST).is_file() else None, bases)
            if len(data.val_set):
                _predict_out_of_fold(config, table, data)
            else:
                _export(config, folder / LATEST)
        rank_zero_only(record)(config.run_folder)
    return folder


def _fit(config: Config, table: Table, data: FoldData, latest: Path | None, bases: Sequence[str]) -> None:
    folder = config.fold_folder
    pl.seed_everything(config.seed, workers=True, verbose=False)
    loggers = build_loggers(config.logger, folder, f"{config.name}-fold{config.fold}")
    trainer = build_trainer(config, _callbacks(config, folder, data), loggers=loggers)
    watch_processes(trainer, "training")
    batch_size = per_device_batch_size(config, trainer)
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    if latest is not None and (more := more_epochs(folder, config)) is not None:
        _say(lengthen(config, latest, more))
    if trainer.is_global_zero:
        remember_config(folder, config)  # last of what may be refused: what has a config counts as a run
        begin(config, bases, describe_device(trainer))
    if latest is not None:
        load_checkpoint(latest)  # a damaged file is said in one line, before any process waits for another
    checked = (
        f"{len(data.val_set)} validation images" if len(data.val_set) else "no validation: all images are trained on"
    )
    _say(f"fold {config.fold}: {len(data.train_set)} training images, {checked}")
    _say(describe_trainer(config, trainer, batch_size))
    if latest is None and (line := weights_note(module.network)) is not None:
        _say(line)
    added = {name: weight for name, weight in Task(config.task).loss.weights(config).items() if weight}
    _say(f"loss: {' + '.join(f'{weight:g} {name}' for name, weight in added.items())}")
    data.trainer = trainer
    planned = plan_warnings(data.batches(), data.plan())
    for line in [*planned, *mixing_warnings(config, batch_size)]:
        _say(line)
    trainer.fit(module, data, ckpt_path=latest, weights_only=True)


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
        MetricsCsv(folder / METRICS, config.metrics, describe_epoch=data.describe_epoch),
        checkpoint,
        StopInGoodOrder(checkpoint, config.trainer.get("max_time")),
    ]
    if ema := config.ema:
        callbacks.insert(0, AverageWeights(ema.decay, ema.start_step))
    if (stop := config.early_stopping) and config.fold != "all":
        callbacks.append(StopEarly(config.checkpoint.monitor, stop, mode))
    return callbacks


def _predict_out_of_fold(config: Config, table: Table, data: FoldData) -> None:
    """Predict the validation images with the weights that will be used, in a Trainer of its own.

    A Trainer that has fitted would predict with the weights it ended on, and without the exponential average.
    """
    path = config.fold_folder / OOF
    weights = weights_to_use(config.fold_folder, config.checkpoint)
    network, classes = load_network(weights)
    # Before the predictions: a fold that has those counts as done.
    rank_zero_only(export_weights)(weights)
    predict_images(config, [network], data.val_set, path, classes)
    _tell_score(config, table, path, weights)


@rank_zero_only
def _tell_score(config: Config, table: Table, path: Path, weights: Path) -> None:
    scores = describe_scores(score_predictions(config, table, [path]))
    print(f"fold {config.fold}: {scores} out of fold, with {exported_path(weights)}", flush=True)


@rank_zero_only
def _export(config: Config, weights: Path) -> None:
    export_weights(weights)
    print(f"fold {config.fold}: trained to its end, with {exported_path(weights)}", flush=True)


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
