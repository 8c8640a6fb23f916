"""Adapters of an encoder: what learns, what is left of them in exported weights, and what is refused."""

import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from trainings import assert_same

from competition.config.loading import load_config, validate
from competition.config.settings import Config
from competition.data.folds import make_folds, read_folds
from competition.networks.encoder import encoder_layers
from competition.prediction.predict import load_network
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.training.averaging import AverageWeights
from competition.training.checkpoint import LATEST, LatestAndBest, export_weights, load_checkpoint
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule
from competition.training.trainer import build_trainer

# Where the extra is not installed, as on a notebook's versions, there is nothing to test.
Linear = pytest.importorskip("peft.tuners.lora").Linear
ENCODERS = {"segmentation": "tu-test_convnext", "points": "tu-test_convnext", "detection": "test_convnext"}
MIDDLE = "middle.pt"


def adapted(config: Config, **model: Any) -> Config:
    """Return the config with an encoder that has linear layers, and with adapters in them."""
    values = config.model_dump(mode="json")
    given = {"encoder": ENCODERS.get(config.task, "test_vit"), "lora": {"rank": 2, "alpha": 6}} | model
    return validate(values | {"model": values["model"] | given}, {}, "t")


def module_of(config: Config) -> CompetitionModule:
    torch.manual_seed(0)
    classes = Task(config.task).table.read_table(config).classes
    return CompetitionModule(config.model_dump(mode="json"), list(classes))


class SaveInTheMiddle(pl.Callback):
    def __init__(self, path: Path | None) -> None:
        self.path = path

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.path is not None and trainer.global_step == 3:
            trainer.save_checkpoint(self.path)


def learn(config: Config, folder: Path, middle: Path | None = None, start: Path | None = None) -> dict[str, Any]:
    """Train with a moving average; return latest.pt."""
    folder.mkdir(exist_ok=True)
    table = Task(config.task).table.read_table(config)
    callbacks = [AverageWeights(0.5), SaveInTheMiddle(middle), LatestAndBest(folder, config.checkpoint, "min")]
    data = FoldData(config, table, read_folds(config, table))
    build_trainer(config, callbacks).fit(module_of(config), data, ckpt_path=start, weights_only=True)
    return load_checkpoint(folder / LATEST)


def test_adapters_and_heads_learn_the_encoder_rests_and_a_training_goes_on_bit_for_bit(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [*words[1:], "sampler.share=natural", "trainer.limit_val_batches=1", "trainer.limit_train_batches=2"]
    config = adapted(load_config([Path(words[0])], [*given, "trainer.max_epochs=2"]))
    make_folds(config)
    first = module_of(config)
    encoder = encoder_layers(first.network, "t").numbers
    unbroken = learn(config, tmp_path / "unbroken", middle=tmp_path / MIDDLE)
    last = unbroken["current_model_state"]
    moved = {name for name, value in first.named_parameters() if not torch.equal(value, last[name])}
    expected = {f"network.{name}" for name in encoder if ".lora_" in name}
    assert expected
    assert expected <= moved
    assert moved - expected == {
        name for name, _ in first.named_parameters() if name.removeprefix("network.") not in encoder
    }
    resumed = learn(config, tmp_path / "resumed", start=tmp_path / MIDDLE)
    for part in ("state_dict", "current_model_state", "optimizer_states"):
        assert_same(resumed[part], unbroken[part], part)


def test_weights_are_exported_merged_and_predict_as_the_network_with_adapters(config: Config, tmp_path: Path) -> None:
    made = adapted(config)
    module = module_of(made).eval()
    layers = [one for one in module.modules() if isinstance(one, Linear)]
    for layer in layers:
        torch.nn.init.normal_(next(layer.lora_B["default"].parameters()))
    state = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save(state, tmp_path / LATEST)
    export_weights(tmp_path / LATEST)
    exported = load_file(tmp_path / "latest.safetensors")
    plain = Task(made.task).model.build_network(made, len(module.classes)).eval()  # as a bundle does: without adapters
    plain.load_state_dict(exported)
    images = torch.randn(2, made.data.channels, *made.data.image_size)
    batch = {"image": images, "height": torch.tensor([64, 64]), "width": torch.tensor([64, 64])}
    predictions = Task(made.task).prediction.predictions
    with torch.no_grad():
        found = predictions(module.network, module(batch), batch)
        merged = predictions(plain, plain(images), batch)
        loaded = load_network(tmp_path / LATEST)[0]
        again = predictions(loaded, loaded(images), batch)
        for layer in layers:
            layer.merge()  # the package's own way
    own = {name: value for name, value in module.network.state_dict().items() if ".lora_" not in name}
    for name, value in own.items():
        torch.testing.assert_close(exported[name.replace(".base_layer", "")], value, rtol=1e-4, atol=1e-5)
    for one, other, third in zip(found, merged, again, strict=True):
        for key in one:
            torch.testing.assert_close(torch.tensor(other[key]), torch.tensor(one[key]), rtol=1e-2, atol=2e-3)
            assert (other[key] == third[key]).all()


def rates(config: Config) -> dict[str, float]:
    """Return the learning rate of each parameter that learns, in the order of the network."""
    module = module_of(config)
    groups = module.build_optimizer().param_groups
    found = {id(value): group["lr"] for group in groups for value in group["params"]}
    return {name: found[id(value)] for name, value in module.network.named_parameters() if value.requires_grad}


def test_their_rates_are_those_of_the_layers_that_they_are_in(config: Config) -> None:
    values = config.model_dump(mode="json")
    values |= {"optimizer": values["optimizer"] | {"layer_decay": 0.5, "lr": 1.0}}
    decayed = validate(values, {}, "t")
    found, plain = rates(adapted(decayed)), rates(adapted(decayed, lora=None))
    adapters = [name for name in found if ".lora_" in name]
    assert {found[name] for name in adapters} > {0.5}
    for name in adapters:
        layer = name.partition(".lora_")[0]
        assert found[name] == plain[f"{layer}.weight"]


def test_a_network_without_linear_layers_freezing_besides_and_no_package_are_one_line(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    resnet = "tu-test_resnet" if ENCODERS.get(config.task, "").startswith("tu-") else "test_resnet"
    with pytest.raises(CompetitionError, match=r"model\.lora: (tu-)?test_resnet has no linear layers, as transformers"):
        module_of(adapted(config, encoder=resnet))
    with pytest.raises(CompetitionError, match=r"model\.lora freezes the encoder's own weights"):
        adapted(config, freeze="encoder")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(CompetitionError, match="uv sync --extra lora"):
        module_of(adapted(config))
