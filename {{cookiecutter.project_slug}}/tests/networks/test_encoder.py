"""Encoders of every family of timm: built for the size of the images, trained a step, or refused in one line."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from task_facts import facts_of
from timm.layers import DropPath, resample_abs_pos_embed
from tiny import small_words
from torch import nn

from competition.config.loading import load_config, task_names, validate
from competition.config.settings import Config
from competition.data.dataset import Batch
from competition.networks.encoder import encoder_layers, refuse_other_sizes, save_memory
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule

PROJECT = Path(__file__).resolve().parents[2]
FAMILIES = [*timm.list_models("test_*"), *timm.list_models("vit_tiny_patch16_dinov3_qkvb")]  # timm has it since 1.0.20
PLAIN = [name for name in FAMILIES if "vit" in name and "max" not in name]  # one level of features only


@cache
def batch_of(task: str, folder: Path) -> tuple[Config, Batch, list[str]]:
    """Return a config, a batch of made-up images and the classes."""
    write_sample(task, folder, size=24)
    words = [
        f"data.dir={folder}",
        "data.batch_size=2",
        "data.num_workers=0",
        f"data.image_size={list(facts_of(task).encoder_size)}",
        *small_words(task),
    ]
    config = load_config([PROJECT / "configs" / f"{task}.yaml"], words)
    table = Task(task).table.read_table(config)
    batch = FoldData(config, table, torch.arange(len(table.image_ids)).numpy() % 2).batch()
    return config, batch, list(table.classes)


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made_up")


def with_model(config: Config, **model: Any) -> Config:
    values = config.model_dump(mode="json")
    return validate(values | {"model": values["model"] | model}, {}, "t")


@pytest.mark.parametrize("encoder", FAMILIES)
def test_every_family_is_built_for_the_size_of_the_images_and_takes_a_step(
    task: str, encoder: str, made_up: Path
) -> None:
    config, batch, classes = batch_of(task, made_up / task)
    plain = facts_of(task).plain_encoder if encoder in PLAIN else {}
    model = {} if isinstance(plain, str) else plain
    values = with_model(config, encoder=encoder, **model).model_dump(mode="json")
    torch.manual_seed(0)
    if isinstance(plain, str):
        with pytest.raises(CompetitionError, match=plain):
            CompetitionModule(values, classes)
        return
    module = CompetitionModule(values, classes).train()
    before = {name: value.clone() for name, value in module.named_parameters()}
    optimizer = module.build_optimizer()
    loss = module.image_losses(batch).mean()
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    assert sum(not torch.equal(value, before[name]) for name, value in module.named_parameters()) > len(before) / 2


def of_task(task: str, made_up: Path, **model: Any) -> nn.Module:
    if task not in task_names():
        pytest.skip("another task's")
    config, _, classes = batch_of(task, made_up / task)
    config = with_model(config, **model)
    return Task(task).model.build_network(config, len(classes))


def test_an_encoder_of_timm_has_its_name_in_smp_for_every_task(task: str, made_up: Path) -> None:
    network, other = (of_task(task, made_up, encoder=name) for name in ("tu-test_convnext", "test_convnext"))
    assert [(name, one.shape) for name, one in network.named_parameters()] == [
        (name, one.shape) for name, one in other.named_parameters()
    ]


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_positions_of_a_file_are_resampled_to_the_size_of_the_images(task: str, made_up: Path, tmp_path: Path) -> None:
    whole = timm.create_model("test_vit")
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    model = {"encoder": "test_vit", "pretrained": str(tmp_path / "weights.pt")}
    network = of_task(task, made_up, **model, **({"architecture": "dpt"} if task == "segmentation" else {}))
    state = {name.removeprefix("encoder.model.").removeprefix("model."): v for name, v in network.state_dict().items()}
    expected = resample_abs_pos_embed(whole.state_dict()["pos_embed"], (4, 6), num_prefix_tokens=1, antialias=True)
    torch.testing.assert_close(state["pos_embed"], expected)
    assert torch.equal(state["blocks.1.attn.qkv.weight"], whole.state_dict()["blocks.1.attn.qkv.weight"])


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "an architecture that takes levels": (
        "segmentation",
        {"encoder": "test_vit", "architecture": "unet"},
        "model.architecture: unet cannot be built on test_vit .*; dpt takes plain vision transformers",
    ),
    "blocks that cannot be left out": (
        "classification",
        {"encoder": "vgg11", "drop_path": 0.1},
        "model.drop_path: vgg11 cannot leave out blocks; set it to 0",
    ),
    "a pooling of others": (
        "classification",
        {"encoder": "test_vit", "pool": "gem"},
        "model.pool: test_vit does not pool a grid of features",
    ),
    "a misspelt pooling": (
        "classification",
        {"encoder": "test_resnet", "pool": "avgmin"},
        "model.pool: test_resnet cannot pool by 'avgmin'; expected avg, ",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_encoder_cannot_do_is_one_line(case: str, made_up: Path) -> None:
    task, model, expected = REFUSED[case]
    with pytest.raises(CompetitionError, match=expected):
        of_task(task, made_up, **model)


def test_a_size_that_a_network_cannot_take_is_refused_with_one_it_can(made_up: Path) -> None:
    network = of_task("classification", made_up, encoder="test_vit")
    refuse_other_sizes(network, 3, {(64, 96): "data.image_size"})
    expected = r"^tta: scale1.25: test_vit cannot take images of 80 x 120 .*; take multiples of 32, as 64 x 128, or"
    with pytest.raises(CompetitionError, match=expected):
        refuse_other_sizes(network, 3, {(64, 96): "data.image_size", (80, 120): "tta: scale1.25"})
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_drop_path_reaches_the_blocks(task: str, made_up: Path) -> None:
    network = of_task(task, made_up, encoder="test_convnext", drop_path=0.5)
    rates = [module.drop_prob for module in network.modules() if isinstance(module, DropPath)]
    assert max(rates) == 0.5


def test_what_a_pooling_learns_changes_no_layer_of_the_encoder(made_up: Path) -> None:
    plain, learnt = (of_task("classification", made_up, encoder="test_resnet", pool=pool) for pool in ("avg", "gem"))
    assert encoder_layers(plain, "test") == encoder_layers(learnt, "test")


def test_gem_lies_between_mean_and_maximum(made_up: Path) -> None:
    network: Any = of_task("classification", made_up, encoder="test_resnet", pool="gem")
    mean: Any = of_task("classification", made_up, encoder="test_resnet")
    features = torch.rand(2, 4, 3, 5)
    found, plain = network.global_pool(features), mean.global_pool(features)
    assert found.shape == plain.shape
    assert ((found >= plain) & (found <= features.amax(dim=(2, 3)))).all()
    network.global_pool.power.data.fill_(1.0)
    torch.testing.assert_close(network.global_pool(features), plain)
    assert network(torch.rand(1, 3, 64, 96)).shape == mean(torch.rand(1, 3, 64, 96)).shape


@pytest.mark.parametrize(("encoder", "norm"), [("test_convnext", "blocks.0.norm"), ("test_resnet", "layer1.0.bn1")])
def test_gradient_checkpointing_computes_twice_and_learns_the_same(
    task: str, made_up: Path, encoder: str, norm: str
) -> None:
    config, batch, classes = batch_of(task, made_up / task)
    gradients, statistics, calls = [], [], []
    for saving in (False, True):
        values = with_model(config, encoder=encoder, gradient_checkpointing=saving).model_dump(mode="json")
        torch.manual_seed(0)
        module = CompetitionModule(values, classes).train()
        calls.append(0)
        norms = [one for name, one in module.named_modules() if name.endswith(norm)]
        assert norms
        for one in norms:
            one.register_forward_hook(lambda *_: calls.append(calls.pop() + 1))
        module.image_losses(batch).mean().backward()
        gradients.append([one.grad for one in module.parameters()])
        statistics.append(list(module.buffers()))  # of batch norm
    assert calls[1] > calls[0] > 0
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(statistics[0], statistics[1])


def test_norms_that_keep_no_statistics_may_save_memory_too() -> None:
    network = timm.create_model("test_resnet", norm_layer=partial(nn.BatchNorm2d, track_running_stats=False))
    save_memory(network)
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(one.grad is not None for one in network.parameters())


def test_an_encoder_that_cannot_save_memory_is_refused(made_up: Path) -> None:
    if "segmentation" not in task_names():
        pytest.skip("another task's")
    config, _, classes = batch_of("segmentation", made_up / "segmentation")
    values = with_model(config, encoder="mobilenet_v2", gradient_checkpointing=True).model_dump(mode="json")
    with pytest.raises(CompetitionError, match=r"model\.gradient_checkpointing: mobilenet_v2 cannot; set it to false"):
        CompetitionModule(values, classes)
