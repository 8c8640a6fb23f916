"""Parts of a network that do not learn, all the time or at first, and what is as before when they do."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from trainings import assert_same

from competition.config.loading import load_config, validate
from competition.config.settings import Config
from competition.data.folds import make_folds, read_folds
from competition.networks.encoder import encoder_layers
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.training.averaging import AverageWeights, _learning_norms
from competition.training.checkpoint import LATEST, LatestAndBest, load_checkpoint
from competition.training.fold_data import FoldData
from competition.training.freezing import refuse_nothing_frozen
from competition.training.module import CompetitionModule
from competition.training.trainer import build_trainer

MIDDLE = "middle.pt"


class Notes(Callback):
    """Notes the state of the network and the modes of its modules in each epoch, and keeps a checkpoint of a step."""

    def __init__(self, folder: Path, kept_at: int) -> None:
        self.folder, self.kept_at = folder, kept_at
        self.states: list[dict[str, Tensor]] = []
        self.modes: list[dict[str, bool]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.modes.append({name: module.training for name, module in pl_module.named_modules()})
        if trainer.global_step == self.kept_at:
            trainer.save_checkpoint(self.folder / MIDDLE)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        state = pl_module.state_dict().items()
        self.states.append({name.removeprefix("network."): value.detach().clone() for name, value in state})


def learn(config: Config, folder: Path, kept_at: int = 0, start: Path | None = None) -> tuple[Notes, CompetitionModule]:
    """Train with a moving average, from a checkpoint where one is given."""
    folder.mkdir(exist_ok=True)
    table = Task(config.task).table.read_table(config)
    torch.manual_seed(0)
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    notes = Notes(folder, kept_at)
    callbacks = [AverageWeights(0.5), notes, LatestAndBest(folder, config.checkpoint, "min")]
    data = FoldData(config, table, read_folds(config, table))
    build_trainer(config, callbacks).fit(module, data, ckpt_path=start, weights_only=True)
    return notes, module


@pytest.fixture
def frozen(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    more = ["sampler.share=natural", "trainer.max_epochs=3", "model.freeze=encoder", "model.unfreeze_epoch=2"]
    config = load_config([Path(words[0])], [*words[1:], *more, "trainer.limit_val_batches=1"])
    make_folds(config)
    return config


def with_model(config: Config, **model: Any) -> Config:
    values = config.model_dump(mode="json")
    return validate(values | {"model": values["model"] | model}, {}, "t")


def test_an_encoder_rests_with_its_norms_until_its_epoch_and_resumes_over_it(frozen: Config, tmp_path: Path) -> None:
    steps = FoldData(frozen, *tables(frozen)).plan()[0].steps
    notes, module = learn(frozen, tmp_path / "unbroken", kept_at=2 * steps - 1)
    encoder = encoder_layers(module.network, "model.freeze").numbers
    first, second, third = notes.states
    resting = {name for name in first if name in encoder or name.rpartition(".")[2].startswith("running")}
    names = [name for name in resting if name in encoder or name.rpartition(".")[0] + ".weight" in encoder]
    assert_same({name: second[name] for name in names}, {name: first[name] for name in names})
    assert all(not torch.equal(third[name], second[name]) for name in names if name in encoder)
    assert any(not torch.equal(second[name], first[name]) for name in first.keys() - resting)
    norms = {name for name, one in module.named_modules() if isinstance(one, nn.BatchNorm2d)}
    norms = {name for name in norms if name.removeprefix("network.") + ".weight" in encoder}
    assert norms
    assert not any(notes.modes[0][name] for name in norms)
    assert not any(notes.modes[2 * steps - 1][name] for name in norms)
    assert all(notes.modes[2 * steps].values())
    shutil.copy(tmp_path / "unbroken" / MIDDLE, tmp_path / "start.pt")
    learn(frozen, tmp_path / "resumed", start=tmp_path / "start.pt")
    found, expected = (load_checkpoint(tmp_path / name / LATEST) for name in ("resumed", "unbroken"))
    for part in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        assert_same(found[part], expected[part], part)


def tables(config: Config) -> tuple[Any, Any]:
    table = Task(config.task).table.read_table(config)
    return table, read_folds(config, table)


@pytest.mark.parametrize(("freeze", "share"), [("encoder", 1.0), (0.5, 0.5), (1.0, 1.0)])
def test_a_share_of_the_layers_is_counted_from_the_image_on(config: Config, freeze: Any, share: float) -> None:
    values = with_model(config, freeze=freeze).model_dump(mode="json")
    module = CompetitionModule(values, list(tables_classes(config)))
    numbers = encoder_layers(module.network, "model.freeze").numbers
    still = {name for name, value in module.network.named_parameters() if not value.requires_grad}
    end = round(share * (max(numbers.values()) + 1))
    assert still == {name for name, number in numbers.items() if number < end}
    assert 0 < len(still) < len(list(module.network.parameters()))
    assert sum(len(group["params"]) for group in module.build_optimizer().param_groups) == len(
        [value for value in module.parameters() if value.requires_grad]
    )


def tables_classes(config: Config) -> tuple[str, ...]:
    return Task(config.task).table.read_table(config).classes


def test_an_epoch_without_anything_frozen_is_refused(config_file: Path) -> None:
    with pytest.raises(CompetitionError, match=r"model: found .*; model\.unfreeze_epoch needs model\.freeze"):
        load_config([config_file], ["model.unfreeze_epoch=2"])


def test_norms_that_rest_keep_their_statistics_where_those_of_averaged_weights_are_computed(config: Config) -> None:
    values = config.model_dump(mode="json")
    values["model"] |= {"freeze": "encoder", "unfreeze_epoch": 1}
    classes = list(Task(config.task).table.read_table(config).classes)
    module = CompetitionModule(values, classes)
    norms = {one for one in module.network.modules() if isinstance(one, _BatchNorm)}
    resting = norms & module.frozen.resting
    assert resting
    assert set(_learning_norms(module)) == norms - resting
    module.frozen.has_thawed = True
    assert set(_learning_norms(module)) == norms


def test_a_share_that_freezes_nothing_is_refused_with_the_least_that_does(config: Config) -> None:
    values = config.model_dump(mode="json")
    values["model"] |= {"freeze": 0.01}
    few = validate(values, {}, "test")
    classes = list(Task(config.task).table.read_table(config).classes)
    module = CompetitionModule(values, classes)
    with pytest.raises(
        CompetitionError, match=r"model.freeze: 0.01 freezes nothing .* expected 0\.\d+ or more"
    ) as told:
        refuse_nothing_frozen(module.frozen, module.network, few.model)
    values["model"] |= {"freeze": float(str(told.value).partition("expected ")[2].split()[0])}
    assert CompetitionModule(values, classes).frozen.names
