"""`competition train CONFIG... [key=value ...]`: train one fold and predict its validation images."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.callbacks import EarlyStopping as StopEarly
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from competition.checkpoint import LATEST, Best, Latest, weights_to_use
from competition.data import FoldData, per_device_batch_size
from competition.errors import CompetitionError
from competition.folds import read_folds
from competition.logger import MetricsCsv
from competition.module import CompetitionModule
from competition.predict import load_network, predict_images
from competition.runs import OOF, remember_config
from competition.score import describe_scores, score_predictions
from competition.settings import Config
from competition.task import Table, Task
from competition.trainer import build_trainer, describe_trainer


def train(config: Config, *, resume: bool = False) -> Path:
    """Train the fold `config.fold`; return its folder with checkpoints, metrics.csv and oof.npz."""
    folder = config.fold_folder
    _check_start(folder, resume)
    table = Task(config.task).table.read_table(config)
    folds = read_folds(config, table)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    trainer = build_trainer(config, _callbacks(config, folder))
    batch_size = per_device_batch_size(config, trainer)
    if trainer.is_global_zero:
        remember_config(folder, config)
    data = FoldData(config, table, folds)
    _say(
        f"fold {config.fold}: {len(data.train_set)} training images, {len(data.val_set)} validation images\n"
        f"{describe_trainer(config, trainer, batch_size)}"
    )
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    latest = folder / LATEST
    trainer.fit(module, data, ckpt_path=str(latest) if resume and latest.is_file() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    _predict_out_of_fold(config, table, data)
    return folder


def _check_start(folder: Path, resume: bool) -> None:
    if (folder / OOF).is_file():
        raise CompetitionError(f"{folder}: is trained already; delete the folder, or give this run another name=...")
    if (folder / LATEST).is_file() and not resume:
        raise CompetitionError(
            f"{folder / LATEST}: a training that did not end; go on with --resume, or delete {folder} to start anew"
        )


def _callbacks(config: Config, folder: Path) -> list[Callback]:
    callbacks: list[Callback] = [
        MetricsCsv(folder / "metrics.csv"),
        Best(folder, config.checkpoint),
        Latest(folder),
    ]
    if stop := config.early_stopping:
        monitor, mode = config.checkpoint.monitor, config.checkpoint.mode
        callbacks.append(StopEarly(monitor, stop.min_delta, stop.patience, mode=mode))
    return callbacks


def _predict_out_of_fold(config: Config, table: Table, data: FoldData) -> None:
    """Predict the validation images with the weights that will be used, in a Trainer of its own.

    A Trainer that has fitted would predict with the weights it ended on, and without the exponential average.
    """
    path = config.fold_folder / OOF
    weights = weights_to_use(config.fold_folder, config.checkpoint)
    network, classes = load_network(weights)
    predict_images(config, [network], data.val_set, path, classes)
    _say_scores(config, table, path, weights)


@rank_zero_only
def _say_scores(config: Config, table: Table, path: Path, weights: Path) -> None:
    scores = score_predictions(config, table, [path])
    print(f"fold {config.fold}: {describe_scores(scores)} out of fold, with {weights}", flush=True)


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
