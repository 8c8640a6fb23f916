"""Averages of weights: the moving one of all steps (`ema`), that of a schedule-free optimizer, that of best epochs
(`checkpoint.keep`).

The first two are what is validated, saved and used for prediction. The last is used only where it is better on the
fold. Two are tried: of all that were kept, and greedily, from the best epoch on, of those that make it better. The
choice is made by `checkpoint.monitor` on the very images that the fold is scored on: `tune` says how much of the score
that is. Lightning's stochastic weight averaging, an average of late epochs too, is not used: it adds an epoch and steps
of its own to a training, which could not go on bit for bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_avg_fn

from competition.config.settings import Config
from competition.data.loaders import evaluation_loader
from competition.data.series_dataset import open_dataset
from competition.runs.folder import CHOICE, CHOSEN, LATEST, best_name
from competition.support.atomic_files import write_csv
from competition.tasks.contract import Table
from competition.training.checkpoint import AtomicCheckpointIO, epoch_paths, exported_path, load_checkpoint
from competition.training.fold_data import FoldData
from competition.training.lost_process import watch_processes
from competition.training.module import CompetitionModule
from competition.training.monitor import better_mode
from competition.training.remember import RememberImages
from competition.training.stopping import EndAtSigterm
from competition.training.trainer import build_trainer

MOST_IMAGES = 1024  # that the statistics of batch norm are computed from again: evenly spaced ones

State = dict[str, Tensor]


class AverageWeights(WeightAveraging):
    """Lightning's average, which up to `start_step` is the weights themselves.

    Lightning's own moving average would stay at the weights that training began with, and these would be validated and
    saved.
    """

    def __init__(self, decay: float, start_step: int = 0) -> None:
        super().__init__(avg_fn=self._average)
        self.start_step = start_step
        self._move = get_ema_avg_fn(decay)
        self._has_started = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average, or copy up to the start."""
        self._has_started = trainer.global_step > self.start_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _average(self, average: Tensor, weights: Tensor, number: Tensor | int) -> Tensor:
        return self._move(average, weights, number) if self._has_started else weights


class ScheduleFreeWeights(pl.Callback):
    """Lets validation and checkpoints have the weights that a schedule-free optimizer averages.

    What it steps from are others. Its own way there and back again rounds: here what it steps from is kept and put
    back, so that a checkpoint in mid-epoch changes nothing of what follows. Batch norm has statistics of the averaged
    weights.
    """

    def __init__(self, data: FoldData) -> None:
        self._norms = RecomputeNorms(data)
        self._statistics: tuple[int, State] = (-1, {})  # of batch norm, and after which step
        self._kept: State = {}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the averaged weights into the network."""
        self._show(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put back what it learns from."""
        self._put_back(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute the statistics that are saved, where no validation did."""
        assert isinstance(pl_module, CompetitionModule)
        if self._statistics[0] == trainer.global_step or not _learning_norms(pl_module):
            return
        pl_module.eval()
        with torch.no_grad():
            self._show(trainer, pl_module)
            self._put_back(trainer, pl_module)
        pl_module.train()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the averaged weights in the place of those that it learns from, and these beside them."""
        checkpoint["current_model_state"] = learning = checkpoint["state_dict"]
        with torch.no_grad():
            self._average(trainer, pl_module)
            averaged = {name: value.clone() for name, value in learning.items()}
            self._put_back(trainer, pl_module)
        step, statistics = self._statistics
        checkpoint["state_dict"] = averaged | (statistics if step == trainer.global_step else {})

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on from the weights that it learns from."""
        pl_module.load_state_dict(checkpoint["current_model_state"])

    def _show(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._average(trainer, module)
        self._norms.compute(trainer, module)
        norms = {name for name, one in module.named_modules() if isinstance(one, _BatchNorm)}
        buffers = module.named_buffers()
        found = {name: value.clone() for name, value in buffers if name.rpartition(".")[0] in norms}
        self._statistics = (trainer.global_step, found)

    def _average(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._kept = {name: value.detach().clone() for name, value in module.state_dict().items()}
        optimizer: Any = trainer.optimizers[0]
        optimizer.eval()

    def _put_back(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        optimizer: Any = trainer.optimizers[0]
        optimizer.train()
        module.load_state_dict(self._kept)
        self._kept = {}


@dataclass(frozen=True)
class Tried:
    """Weights with what they score on the fold's validation images."""

    name: str
    epochs: tuple[int, ...]  # the first is the best of them
    scores: dict[str, float]
    state: State


def choose_weights(config: Config, table: Table, data: FoldData) -> None:
    """Compare the weights of a trained fold that may predict, write which do and say so; call it on every rank.

    What it leaves, weights.csv last, is the same after a kill at any moment, as the training it is made of is.
    """
    folder, kept = config.fold_folder, epoch_paths(config.fold_folder)
    if not config.checkpoint.chooses or not kept:
        return
    judge = Judge(config, table, data)
    tried = [judge.judged("best", load_checkpoint(folder / best_name(config.checkpoint)))]
    if config.checkpoint.predict_with == "auto":
        latest = load_checkpoint(folder / LATEST)
        tried.append(judge.judged("latest", latest))
        if config.ema is not None:  # all others are of its average
            tried.append(judge.judged("unaveraged", latest | {"state_dict": latest["current_model_state"]}))
    if len(kept) > 1:
        tried.append(_best_soup(judge, tried[0], judge.by_value(kept)))
    chosen = tried[0]
    for other in tried[1:]:
        chosen = other if judge.is_better(other, chosen) else chosen
    _remember(config, tried, chosen)
    judge.trainer.strategy.barrier()  # what rank zero wrote is read by all


class Judge:
    """Validates any weights as an epoch's are validated."""

    def __init__(self, config: Config, table: Table, data: FoldData) -> None:
        self.config, self.data = config, data
        self._sign = 1 if better_mode(config) == "min" else -1
        values = config.model_dump(mode="json")
        # Nothing is fetched: the weights come from checkpoints.
        values["model"] = values["model"] | {"pretrained": False}
        self.module = CompetitionModule(values, list(table.classes))
        self._norms = RecomputeNorms(data)
        self.trainer = build_trainer(config, [self._norms, RememberImages(data), EndAtSigterm()])
        watch_processes(self.trainer, "training")

    def by_value(self, kept: Sequence[Path]) -> list[tuple[int, Path]]:
        """Return kept epochs with their files, the best first."""
        found = ((load_checkpoint(path), path) for path in kept)
        ranked = sorted((self._sign * state["value"], state["epoch"], path) for state, path in found)
        return [(epoch, path) for _, epoch, path in ranked]

    def is_better(self, one: Tried, other: Tried) -> bool:
        """Return whether weights have a better monitored value; of equal ones neither is."""
        values = [self._sign * each.scores[self.config.checkpoint.monitor] for each in (one, other)]
        return math.isfinite(values[0]) and not values[0] >= values[1]

    def judged(self, name: str, checkpoint: dict[str, Any]) -> Tried:
        """Validate the weights of a checkpoint as they are."""
        return self._validated(name, (checkpoint["epoch"],), checkpoint["state_dict"], is_averaged=False)

    def mixed(self, members: Sequence[tuple[int, Path]]) -> Tried:
        """Validate the average of epochs."""
        average = averaged([path for _, path in members])
        return self._validated("soup", tuple(epoch for epoch, _ in members), average, is_averaged=True)

    def _validated(self, name: str, epochs: tuple[int, ...], state: State, *, is_averaged: bool) -> Tried:
        self.module.load_state_dict(state)
        frozen = self.module.frozen  # only for what comes of an epoch in which it learns is it no longer
        frozen.has_thawed = frozen.until is not None and max(epochs) >= frozen.until
        self._norms.is_due = is_averaged
        self.trainer.validate(self.module, datamodule=self.data, verbose=False)
        scores = {key: float(value) for key, value in self.trainer.callback_metrics.items() if key.startswith("val/")}
        found = {key: value.detach().cpu().clone() for key, value in self.module.state_dict().items()}
        return Tried(name, epochs, scores, found)


def _best_soup(judge: Judge, best: Tried, kept: Sequence[tuple[int, Path]]) -> Tried:
    """Return the better one of all epochs and of those that, added one by one, made it better."""
    uniform = judge.mixed(kept)
    members, greedy = [kept[0]], best
    for one in kept[1:]:
        wider = [*members, one]
        found = uniform if len(wider) == len(kept) else judge.mixed(wider)
        if judge.is_better(found, greedy):
            members, greedy = wider, found
    return greedy if len(members) > 1 and judge.is_better(greedy, uniform) else uniform


def averaged(paths: Sequence[Path]) -> State:
    """Return the mean of the weights of checkpoints, read one after the other; whole numbers are those of the first."""
    first = load_checkpoint(paths[0])["state_dict"]
    sums = {name: value.double() for name, value in first.items() if value.is_floating_point()}
    for path in paths[1:]:
        state = load_checkpoint(path)["state_dict"]
        for name, value in sums.items():
            value.add_(state[name])
    return first | {name: (value / len(paths)).to(first[name].dtype) for name, value in sums.items()}


class RecomputeNorms(pl.Callback):
    """Computes the statistics of batch norm again before a validation: those of averaged weights are no average.

    Every process does it on the same images, not augmented, and takes over what the first found, so that their
    networks are the same. Frozen ones keep theirs.
    """

    def __init__(self, data: FoldData) -> None:
        self.data = data
        self.is_due = False

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute them where the weights are averaged."""
        if self.is_due:
            self.compute(trainer, pl_module)

    def compute(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Compute them; call it on every rank."""
        assert isinstance(module, CompetitionModule)
        norms = _learning_norms(module)
        if not norms:
            return
        self._compute(trainer, module, norms)
        if trainer.world_size > 1:
            own = [value for norm in norms for value in norm.buffers()]
            first = trainer.strategy.broadcast([value.cpu() for value in own])
            for value, given in zip(own, first, strict=True):
                value.copy_(given)

    def _compute(self, trainer: pl.Trainer, module: CompetitionModule, norms: list[_BatchNorm]) -> None:
        usual = [norm.momentum for norm in norms]
        is_begun = False
        for batch in self._loader(trainer):
            if len(batch["image"]) < 2:
                continue  # one image has no spread
            for norm in norms if not is_begun else []:
                norm.reset_running_stats()
                norm.momentum = None  # the mean of all batches
                norm.train()
            is_begun = True
            module.show(batch)
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
            norm.eval()

    def _loader(self, trainer: pl.Trainer) -> Any:
        data = self.data
        parts = trainer.world_size * trainer.accumulate_grad_batches
        size = max(data.config.data.batch_size // parts, 2)
        config = data.config.model_copy(update={"data": data.config.data.model_copy(update={"batch_size": size})})
        ids = data.train_table.image_ids[data.train_rows]
        places = np.linspace(0, len(ids) - 1, min(len(ids), MOST_IMAGES)).round().astype(int)
        return evaluation_loader(open_dataset(config, ids[places], table=data.train_table))


def _learning_norms(module: CompetitionModule) -> list[_BatchNorm]:
    """Return the batch norms whose statistics training moves."""
    resting = module.frozen.resting
    found = (one for one in module.network.modules() if isinstance(one, _BatchNorm) and one not in resting)
    return [one for one in found if one.running_mean is not None]


@rank_zero_only
def _remember(config: Config, tried: Sequence[Tried], chosen: Tried) -> None:
    folder, monitor = config.fold_folder, config.checkpoint.monitor
    for name in CHOSEN.values():
        exported_path(folder / name).unlink(missing_ok=True)  # of an earlier choice
        if name != CHOSEN.get(chosen.name):
            (folder / name).unlink(missing_ok=True)
    if chosen.name in CHOSEN:
        parameters = load_checkpoint(folder / LATEST)["hyper_parameters"]
        kept = {"state_dict": chosen.state, "hyper_parameters": parameters, "epochs": list(chosen.epochs)}
        AtomicCheckpointIO().save_checkpoint(kept, folder / CHOSEN[chosen.name])
    names = list(chosen.scores)
    rows = (
        [
            one.name,
            one.epochs[0],
            " ".join(map(str, one.epochs)),
            *(one.scores[name] for name in names),
            int(one is chosen),
        ]
        for one in tried
    )
    write_csv(folder / CHOICE, ["weights", "epoch", "epochs", *names, "predicts"], rows)
    each = ", ".join(f"{one.name} {one.scores[monitor]:.4f}" for one in tried)
    of = f" of {len(chosen.epochs)} epochs" if chosen.name == "soup" else ""
    print(
        f"fold {config.fold}: predicts with {chosen.name}{of}, by {monitor} ({each}) on the images it is scored on, "
        "which flatters: see `competition tune`",
        flush=True,
    )
