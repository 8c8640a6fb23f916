"""The moving average of the weights: what it is, and that it is what is validated, kept, exported and used."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from competition.config.loading import load_config
from competition.config.settings import Config
from competition.data.folds import make_folds, read_folds
from competition.tasks.contract import Task
from competition.training.averaging import AverageWeights
from competition.training.checkpoint import load_checkpoint
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule
from competition.training.trainer import build_trainer
from safetensors.torch import load_file
from torch import Tensor
from trainings import assert_same, rows

DECAY = 0.5


class WeightsOfSteps(pl.Callback):
    """Notes the weights after every step, and those that each epoch is validated with."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.validated: dict[str, Tensor] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps.append({name: value.detach().clone() for name, value in pl_module.named_parameters()})

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.validated = {name: value.detach().clone() for name, value in pl_module.named_parameters()}


def train_with(config: Config, start_step: int) -> WeightsOfSteps:
    table = Task(config.task).table.read_table(config)
    noted = WeightsOfSteps()
    trainer = build_trainer(config, [AverageWeights(DECAY, start_step), noted])
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    trainer.fit(module, FoldData(config, table, read_folds(config, table)))
    return noted


@pytest.fixture
def folded(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    config = load_config([Path(words[0])], [*words[1:], "sampler.share=natural"])
    make_folds(config)
    return config


def test_validation_sees_the_average_of_the_weights_of_all_steps_from_the_start_step(folded: Config) -> None:
    noted = train_with(folded, start_step=2)
    average = noted.steps[1]  # up to the start, the weights themselves
    for weights in noted.steps[2:]:
        average = {name: DECAY * average[name] + (1 - DECAY) * weights[name] for name in weights}
    for name, value in noted.validated.items():
        torch.testing.assert_close(value, average[name])


def test_before_the_start_step_the_average_is_the_weights_themselves(folded: Config) -> None:
    noted = train_with(folded, start_step=1000)
    assert_same(noted.validated, noted.steps[-1])


@pytest.mark.slow
def test_the_average_is_kept_exported_and_used_out_of_fold(
    folded: Config, words: list[str], command: Callable[..., CompletedProcess[str]]
) -> None:
    more = ("sampler.share=natural", f"ema.decay={DECAY}", "trainer.max_epochs=2", "checkpoint.predict_with=latest")
    done = command("train", *words, *more)
    assert done.returncode == 0, done.stderr
    latest = load_checkpoint(folded.fold_folder / "latest.pt")
    exported = load_file(folded.fold_folder / "latest.safetensors")
    assert_same({f"network.{name}": value for name, value in exported.items()}, latest["state_dict"])
    is_equal = [torch.equal(value, latest["current_model_state"][key]) for key, value in latest["state_dict"].items()]
    assert not all(is_equal)
    for name in folded.metrics:
        assert f"{name} {float(rows(folded.fold_folder)[-1][f'val/{name}']):.4f}" in done.stdout.splitlines()[-1]
