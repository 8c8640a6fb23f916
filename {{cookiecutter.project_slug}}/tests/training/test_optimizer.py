"""Any optimizer by name: which weights learn at which rate, what is refused, and that each can be resumed."""

import copy
import io
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import pytorch_lightning as pl
import timm
import timm.optim
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay
from tiny import PROJECT, tiny_words
from torch import Tensor, nn
from trainings import assert_same, rows

from competition.config.loading import load_config, task_names
from competition.config.optimizer_settings import Optimizer
from competition.config.settings import Config
from competition.data.dataset import ImageDataset, ready
from competition.data.folds import make_folds, read_folds
from competition.networks.encoder import note_encoder
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.training.averaging import ScheduleFreeWeights
from competition.training.checkpoint import LATEST, LatestAndBest, load_checkpoint
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule
from competition.training.optimizer import SCHEDULE_FREE, build_optimizer, parameter_groups
from competition.training.trainer import build_trainer

Command = Callable[..., CompletedProcess[str]]


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))


def take_steps(network: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        network(images).square().sum().backward()
        optimizer.step()


# -- names


BY_HAND: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.01),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True),
    "lion": lambda groups: timm.optim.Lion(groups, lr=0.01),
    "NAdam": lambda groups: torch.optim.NAdam(groups, lr=0.01),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_an_optimizer_is_the_librarys_and_decays_neither_biases_nor_norms(name: str) -> None:
    network = small_network()
    twin = copy.deepcopy(network)
    weights = [value for value in twin.parameters() if value.ndim > 1]
    others = [value for value in twin.parameters() if value.ndim <= 1]
    by_hand = BY_HAND[name]([{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}])
    take_steps(network, build_optimizer(network, Optimizer(name=name, lr=0.01, weight_decay=0.1)), range(3))
    take_steps(twin, by_hand, range(3))
    assert_same(network.state_dict(), twin.state_dict())


def test_building_one_draws_no_number() -> None:
    network = small_network()
    state = torch.get_rng_state()
    build_optimizer(network, Optimizer())
    assert torch.equal(torch.get_rng_state(), state)


REFUSED = {
    "a misspelt name": ({"name": "adamv"}, 'optimizer.name: "adamv" is no optimizer of timm or torch; did you mean'),
    "a misspelt argument": (
        {"arguments": {"beta": [0.9, 0.99]}},
        'optimizer.arguments: adamw takes no "beta"; did you mean betas?',
    ),
    "an argument timm would drop": (
        {"name": "lion", "arguments": {"eps": 1e-8}},
        'optimizer.arguments: lion takes no "eps"; ',
    ),
    "a rate in two places": ({"arguments": {"lr": 1}}, "optimizer.arguments.lr: it is set by optimizer.lr"),
    "a value out of range": (
        {"arguments": {"betas": [2, 3]}},
        "optimizer: adamw cannot train this network as it is set: Invalid beta parameter",
    ),
    "one that fails at its first step": (
        {"name": "SparseAdam"},
        "optimizer: SparseAdam cannot train this network as it is set: SparseAdam does not support dense",
    ),
    "one of second order": ({"name": "adahessian"}, "optimizer: adahessian cannot train this network as it is set: "),
    "a factor for an encoder that is not known": (
        {"encoder_lr": 0.1},
        "optimizer.encoder_lr: this network has no part that is known as its encoder",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_had_is_one_line(case: str) -> None:
    given, expected = REFUSED[case]
    with pytest.raises(CompetitionError) as refused:
        build_optimizer(small_network(), Optimizer.model_validate(given))
    assert str(refused.value).startswith(expected)
    assert "\n" not in str(refused.value)


FUSED = ("optimizer.arguments={fused: true}", "trainer.gradient_clip_val=0.5")


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["optimizer.name=adamv"], 'optimizer.name: "adamv" is no optimizer'),
        ([*FUSED, "trainer.precision=bf16-mixed"], "optimizer.arguments: gradients cannot be clipped before a fused"),
    ],
)
def test_a_training_with_one_that_cannot_be_had_leaves_nothing_behind(
    wrong: list[str], expected: str, words: list[str], tmp_path: Path, command: Command
) -> None:
    make_folds(load_config([Path(words[0])], words[1:]))
    done = command("train", *words, *wrong)
    assert done.returncode == 1
    assert done.stderr.startswith(expected)
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("config.yaml"))


def test_gradients_are_clipped_before_a_fused_one_in_full_precision(words: list[str], command: Command) -> None:
    make_folds(load_config([Path(words[0])], words[1:]))
    done = command("train", *words, *FUSED)
    assert done.returncode == 0, done.stderr


# -- states


@pytest.mark.parametrize(
    "name", ["adamw", "sgd", "lion", "muon", "adopt", "lamb", "madgrad", "adafactor", "NAdam", *SCHEDULE_FREE]
)
def test_its_state_goes_into_a_checkpoint_and_back_bit_for_bit(name: str) -> None:
    if name in SCHEDULE_FREE:
        pytest.importorskip("schedulefree")
    settings = Optimizer(name=name, lr=0.01, weight_decay=0.1)
    unbroken = small_network()
    take_steps(unbroken, build_optimizer(unbroken, settings), range(6))
    network = small_network()
    optimizer = build_optimizer(network, settings)
    take_steps(network, optimizer, range(3))
    torch.save([network.state_dict(), optimizer.state_dict()], saved := io.BytesIO())
    saved.seek(0)
    weights, state = torch.load(saved, weights_only=True)
    resumed = small_network()
    resumed.load_state_dict(weights)
    optimizer = build_optimizer(resumed, settings)
    optimizer.load_state_dict(state)
    take_steps(resumed, optimizer, range(3, 6))
    assert_same(resumed.state_dict(), unbroken.state_dict())


# -- groups


def rates(network: nn.Module, **settings: Any) -> dict[str, tuple[float, float]]:
    """Return the rate and the weight decay of each parameter."""
    names = {value: name for name, value in network.named_parameters()}
    groups = parameter_groups(network, Optimizer(lr=1.0, weight_decay=0.5, **settings))
    found = [(names[one], group.get("lr", 1.0), group["weight_decay"]) for group in groups for one in group["params"]]
    assert len(found) == len(names)
    return {name: (rate, decay) for name, rate, decay in found}


@pytest.mark.parametrize("encoder", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_a_classifiers_layers_decay_as_those_of_timm(encoder: str) -> None:
    network = timm.create_model(encoder)
    note_encoder(network, "", encoder)
    names = {value: name for name, value in network.named_parameters()}
    still = network.no_weight_decay() if isinstance(network, VisionTransformer) else ()
    groups = param_groups_layer_decay(network, 0.5, still, layer_decay=0.7)
    expected = {names[one]: (group["lr_scale"], group["weight_decay"]) for group in groups for one in group["params"]}
    found = rates(network, layer_decay=0.7)
    assert {name: pytest.approx(pair) for name, pair in expected.items()} == found


def test_an_encoders_layers_learn_the_slower_the_nearer_they_are_to_the_image(config: Config) -> None:
    network = Task(config.task).model.build_network(config, 2)
    found = rates(network, layer_decay=0.5, encoder_lr=0.1)
    classifier = timm.create_model("test_resnet")
    note_encoder(classifier, "", "test_resnet")
    whole = rates(classifier, layer_decay=0.5, encoder_lr=0.1)
    slow = {name: rate for name, (rate, _) in found.items() if rate != 1}
    assert 0 < len(slow) < len(found)
    assert set(slow.values()) <= {rate for rate, _ in whole.values()}
    assert len({rate for rate, _ in whole.values()} - set(slow.values())) <= 1  # of the classifier that a mask has not
    first = next(name for name, _ in network.named_parameters() if name in slow)
    assert slow[first] == min(slow.values())
    groups = parameter_groups(network, Optimizer(layer_decay=0.5, encoder_lr=0.1))
    assert "lr" not in groups[0]


def test_what_a_network_names_is_not_decayed() -> None:
    found = rates(timm.create_model("test_vit"))
    assert found["pos_embed"][1] == found["cls_token"][1] == 0
    assert found["blocks.0.attn.qkv.weight"][1] == 0.5


def test_the_rate_of_what_follows_the_encoder_is_logged(words: list[str], command: Command, config: Config) -> None:
    make_folds(load_config([Path(words[0])], words[1:]))
    slow = ("optimizer.lr=0.01", "optimizer.encoder_lr=0.1", "scheduler.name=constant", "scheduler.warmup=0")
    done = command("train", *words, *slow, "sampler.share=natural")
    assert done.returncode == 0, done.stderr
    (path,) = Path("outputs").rglob("metrics.csv")
    assert float(rows(path.parent)[-1]["learning_rate"]) == 0.01


# -- schedule-free


class Steps(pl.Callback):
    """Notes the gradients and the rate of every step, and the weights that validation sees; saves in mid-epoch."""

    def __init__(self, saved_at: int = 0, folder: Path = Path()) -> None:
        self.saved_at, self.folder = saved_at, folder
        self.gradients: list[dict[str, Tensor]] = []
        self.rates: list[float] = []
        self.validated: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        found = {name: value.grad for name, value in pl_module.named_parameters()}
        self.gradients.append({name: value.clone() for name, value in found.items() if value is not None})
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.saved_at:
            trainer.save_checkpoint(self.folder / "middle.pt")

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.validated = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}


def free_config(tmp_path: Path, sample: Path, name: str = "schedulefree_adamw") -> Config:
    pytest.importorskip("schedulefree")
    task = task_names()[0]
    more = [f"optimizer.name={name}", "scheduler.name=constant", "data.image_size=32", "trainer.max_epochs=2"]
    more += [f"data.dir={sample}", f"data.folds={tmp_path / 'folds.csv'}", "trainer.gradient_clip_val=null"]
    config = load_config([PROJECT / "configs" / f"{task}.yaml"], [*tiny_words(task), "sampler.share=natural", *more])
    if not (tmp_path / "folds.csv").is_file():
        make_folds(config)
    return config


def learn_freely(config: Config, folder: Path, steps: Steps, start: Path | None = None) -> dict[str, Any]:
    """Train; return latest.pt."""
    folder.mkdir(exist_ok=True)
    table = Task(config.task).table.read_table(config)
    torch.manual_seed(0)
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    data = FoldData(config, table, read_folds(config, table))
    callbacks = [ScheduleFreeWeights(data), steps, LatestAndBest(folder, config.checkpoint, "min")]
    build_trainer(config, callbacks).fit(module, data, ckpt_path=start, weights_only=True)
    return load_checkpoint(folder / LATEST)


@pytest.fixture(scope="module")
def free_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("free") / "data"
    write_sample(task_names()[0], folder, size=24)
    return folder


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_what_is_validated_and_saved_are_the_weights_that_the_package_averages(
    name: str, tmp_path: Path, free_sample: Path
) -> None:
    config, steps = free_config(tmp_path, free_sample, name), Steps()
    latest = learn_freely(config, tmp_path / "run", steps)
    torch.manual_seed(0)
    twin = CompetitionModule(config.model_dump(mode="json"), list(latest["hyper_parameters"]["classes"]))
    learnt = dict(twin.named_parameters())
    optimizer: Any = twin.build_optimizer()  # the package's own loop on the same gradients
    optimizer.train()
    for gradients, rate in zip(steps.gradients, steps.rates, strict=True):
        for value_name, value in learnt.items():
            value.grad = gradients[value_name].clone()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    for value_name, value in learnt.items():
        torch.testing.assert_close(latest["current_model_state"][value_name], value.detach(), msg=value_name)
    optimizer.eval()
    for value_name, value in learnt.items():
        torch.testing.assert_close(steps.validated[value_name], value.detach(), msg=value_name)
    assert_same(latest["state_dict"], steps.validated)  # statistics of batch norm, too
    others = [not torch.allclose(latest["current_model_state"][one], value) for one, value in learnt.items()]
    assert any(others)


def test_batch_norm_has_statistics_of_the_averaged_weights(tmp_path: Path, free_sample: Path) -> None:
    config = free_config(tmp_path, free_sample)
    for validates in (1, 0):  # without validation, too
        given = config.trainer | {"limit_val_batches": validates, "max_epochs": 1}
        latest = learn_freely(config.model_copy(update={"trainer": given}), tmp_path / f"run{validates}", Steps())
        table = Task(config.task).table.read_table(config)
        module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
        module.load_state_dict(latest["state_dict"])
        data = FoldData(config, table, read_folds(config, table))
        shown = ImageDataset(config, table.image_ids[data.train_rows], table=table)
        batch = ready(shown.collate([shown[place] for place in range(len(shown))]), config, torch.float32)
        seen: list[Tensor] = []
        first = next(one for one in module.modules() if isinstance(one, nn.BatchNorm2d))
        first.register_forward_hook(lambda _, given, __, kept=seen: kept.append(given[0].mean(dim=(0, 2, 3))))
        with torch.no_grad():
            module(batch)
        torch.testing.assert_close(first.running_mean, seen[0], rtol=1e-3, atol=1e-4)


def test_a_save_in_mid_epoch_changes_nothing_and_a_training_goes_on_from_it_bit_for_bit(
    tmp_path: Path, free_sample: Path
) -> None:
    config = free_config(tmp_path, free_sample)
    unbroken = learn_freely(config, tmp_path / "unbroken", Steps())
    saved = learn_freely(config, tmp_path / "saved", Steps(saved_at=4, folder=tmp_path))
    resumed = learn_freely(config, tmp_path / "resumed", Steps(), tmp_path / "middle.pt")
    assert load_checkpoint(tmp_path / "middle.pt")["FoldData"]["batches_done"] == 1
    for part in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        assert_same(saved[part], unbroken[part], part)
        assert_same(resumed[part], unbroken[part], part)


UNFIT = {
    "another course": (["scheduler.name=cosine"], "scheduler.name: schedulefree_sgd needs no rate that falls"),
    "a second average": (["scheduler.name=constant", "ema.decay=0.9"], "ema: schedulefree_sgd averages the weights"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_go_with_a_schedule_free_one_is_refused(case: str, config_file: Path) -> None:
    words, expected = UNFIT[case]
    with pytest.raises(CompetitionError) as refused:
        load_config([config_file], ["optimizer.name=schedulefree_sgd", *words])
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_its_package_the_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    with pytest.raises(CompetitionError, match="uv sync --extra schedulefree"):
        build_optimizer(small_network(), Optimizer(name="schedulefree_adamw"))
