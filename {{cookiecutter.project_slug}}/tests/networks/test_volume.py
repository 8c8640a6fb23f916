"""Stacks seen as volumes (`model.volume`): what encoders are by their slices alone, what they see of others."""

import copy
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from task_facts import facts_of
from tiny import PROJECT
from torch import Tensor, nn
from trainings import run_whole_way

from competition.config.loading import task_names, validate
from competition.config.settings import Config
from competition.networks.pretrained import weights_note
from competition.networks.volume import is_of_volume
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.training.freezing import Frozen
from competition.training.module import CompetitionModule

SLICES = 3
ENCODERS = timm.list_models(["test_convnext", "test_efficientnet", "test_maxvit"])  # of all of timm's families it holds
of_places = pytest.mark.skipif("segmentation" not in task_names(), reason="another task's")
of_classes = pytest.mark.skipif("classification" not in task_names(), reason="another task's")


def configured(task: str, *, take: list[int] | None = None, each: int = 1, **model: Any) -> Config:
    """Return a config of stacks of `each` channels a slice."""
    stack = {"by": "case{case}_{slice}", "take": take or [-1, 0, 1]}
    channels = len(stack["take"]) * each
    data = {"channels": channels, "mean": [0.5] * each, "std": [0.2] * each, "image_size": 64, "stack": stack}
    values = {"name": "t", "task": task, "data": data, "model": {"encoder": "test_resnet", "volume": True} | model}
    return validate(values, {}, "test")


def built(config: Config) -> nn.Module:
    torch.manual_seed(0)
    return Task(config.task).model.build_network(config, 2).eval()


def alone(network: nn.Module) -> nn.Module:
    """Return a network whose slices take nothing of one another."""
    for name, value in network.named_parameters():
        if is_of_volume(name):
            nn.init.zeros_(value)
    return network


def differ(one: Tensor, other: Tensor) -> bool:
    return float((one - other).detach().abs().max()) > 1e-4


@of_places
@torch.no_grad()
@pytest.mark.parametrize("encoder", ENCODERS[:2])
def test_a_mask_is_that_of_the_images_own_slice_and_hangs_on_its_neighbours(encoder: str) -> None:
    network = built(configured("segmentation", encoder=encoder, take=[-2, -1, 0, 1, 2], each=3))
    images = torch.randn(2, 15, 64, 64)
    mask = network(images)
    turned = images.unflatten(1, (5, 3)).flip(1).flatten(1, 2)
    assert differ(network(turned), mask)  # the order tells
    for place in (0, 9):
        other = images.clone()
        other[0, place] += 1
        assert differ(network(other)[0], mask[0])
        torch.testing.assert_close(network(other)[1], mask[1], atol=1e-4, rtol=1e-4)  # of the batch's other image
    plain = Task("segmentation").model.build_network(
        validate(
            {"name": "t", "task": "segmentation", "data": {"image_size": 64}, "model": {"encoder": encoder}}, {}, "t"
        ),
        2,
    )
    found = plain.load_state_dict(network.state_dict(), strict=False)
    assert not found.missing_keys
    assert all(map(is_of_volume, found.unexpected_keys))
    expected = plain.eval()(images[:, 6:9])
    assert differ(mask, expected)
    torch.testing.assert_close(alone(network)(images), expected, atol=1e-4, rtol=1e-4)


@of_classes
@torch.no_grad()
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_class_is_said_by_all_slices_and_their_order(encoder: str) -> None:
    network = built(configured("classification", encoder=encoder))
    images = torch.randn(2, SLICES, 64, 64)
    assert differ(network(images.flip(1)), network(images))
    alone(network)
    each = [network(images[:, [place] * SLICES]) for place in range(SLICES)]
    torch.testing.assert_close(network(images), sum(each) / SLICES, atol=1e-4, rtol=1e-4)


def test_pretrained_weights_begin_as_in_the_network_of_images(task: str, tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet", in_chans=1).state_dict(), tmp_path / "images.pt")
    network = built(configured(task, pretrained=str(tmp_path / "images.pt")))
    line = weights_note(network)
    assert line is not None
    number = line.split(" tensors")[0].removeprefix("model.pretrained: ")
    assert number.split(" of ")[0] == number.split(" of ")[1]
    assert all(not value.any() for name, value in network.named_parameters() if is_of_volume(name))
    for name, value in network.named_parameters():
        if is_of_volume(name):
            nn.init.ones_(value)
    torch.save(network.state_dict(), tmp_path / "volume.pt")  # of a run, of any number of slices
    again = built(configured(task, pretrained=str(tmp_path / "volume.pt"), take=[-2, -1, 0, 1, 2]))
    assert all(bool((value == 1).all()) for name, value in again.named_parameters() if is_of_volume(name))


@pytest.mark.parametrize("keys", [{"freeze": "encoder"}, {"freeze": 0.5}])
def test_what_looks_across_slices_learns_on_in_a_frozen_encoder(task: str, keys: dict[str, Any]) -> None:
    config = configured(task, **keys)
    network = built(config)
    frozen = Frozen(network, config.model)
    assert frozen.names
    learning = {name for name, value in network.named_parameters() if value.requires_grad}
    across = {name for name, _ in network.named_parameters() if is_of_volume(name)}
    assert across
    assert across <= learning
    if keys["freeze"] == "encoder":
        network.train()
        frozen.rest()
        place, _ = network.__dict__["encoder_note"]
        assert not any(module.training for module in network.get_submodule(place).modules())


@of_places
@pytest.mark.parametrize("keys", [{"gradient_checkpointing": True}, {"channels_last": True}])
def test_gradients_are_the_same_however_memory_is_used(keys: dict[str, Any]) -> None:
    images = torch.randn(2, SLICES, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradients = []
    for more in ({}, keys):
        values = configured("segmentation", encoder="tu-test_resnet", **more).model_dump(mode="json")
        torch.manual_seed(0)
        module = CompetitionModule(values, ["a", "b"]).train().double()
        copy.deepcopy(module.network)(images).square().mean().backward()  # the copy, as averages have it
        assert all(value.grad is None for value in module.network.parameters())
        module.network(images).square().mean().backward()
        gradients.append({name: value.grad for name, value in module.network.named_parameters()})
    assert any(is_of_volume(name) and value.any() for name, value in gradients[0].items() if value is not None)
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, msg=name)


def test_half_precision_stays_half(task: str) -> None:
    network = built(configured(task))
    place, _ = network.__dict__["encoder_note"]
    seen: list[torch.dtype] = []
    for module in network.get_submodule(place).modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        network.get_submodule(place)(torch.randn(2, SLICES, 64, 64))
    assert set(seen[1:]) == {torch.bfloat16}


def test_what_is_no_volume_is_refused(task: str) -> None:
    data = {"channels": 3, "stack": {"by": "case{case}_{slice}", "take": [-1, 0, 1]}}
    for other, fault in (
        ({"channels": 3}, "model.volume: a volume is a stack of slices; say which, as data.stack"),
        ({"channels": 3, "stack": data["stack"] | {"take": [0]}}, "model.volume: a volume is a stack of slices"),
        ({"channels": 3, "stack": data["stack"] | {"take": [1, 0, -1]}}, r"slices.*ascend; found .*take \[1, 0, -1\]"),
        ({"maps": {"run": "a", "classes": ["b"]}, "stack": data["stack"]}, "model.volume: data.maps are of the image"),
    ):
        with pytest.raises(CompetitionError, match=fault):
            validate({"name": "t", "task": task, "data": other, "model": {"volume": True}}, {}, "t")
    values = {"name": "t", "task": task, "data": data | {"stack": data["stack"] | {"take": [-2, -1, 1]}}}
    if task == "classification":
        assert validate(values | {"model": {"volume": True}}, {}, "t").model.volume
    else:
        with pytest.raises(CompetitionError, match=r"places in one slice.*expected 0 in data.stack.take, found \[-2"):
            validate(values | {"model": {"volume": True}}, {}, "t")
    if task == "detection":
        with pytest.raises(CompetitionError, match=r"model.volume: is for fcos and tood; faster_rcnn sees"):
            configured(task, architecture="faster_rcnn")
    plain = facts_of(task).plain_encoder
    if not isinstance(plain, str):
        network = configured(task, encoder="test_vit", take=[-2, -1, 0, 1, 2], **plain)
        with pytest.raises(CompetitionError, match=r"test_vit has 1 convolutions that are wider.*needs 2: take a conv"):
            built(network)


SIDE, DEPTH = 32, 16
WORDS = (
    *("data.image_file={case}.npy[{slice}]", "data.id_parts={case}_{slice}", "data.group_pattern=^(.+)_"),
    *("data.stack={take: [-1, 0, 1]}", "data.mean=[0.4]", "data.std=[0.2]", "data.image_size=32"),
    *("model.encoder=tu-test_resnet", "model.volume=true", "model.channels_last=true", "ema.decay=0.5"),
    "model.decoder_channels=64",
    *("data.num_folds=4", "fold=0", "data.batch_size=16", "data.num_workers=0", "data.augmentation={}"),
    *("sampler.share=natural", "optimizer.lr=4e-3", "trainer.max_epochs=3", "trainer.accelerator=cpu"),
    *("metrics=[dice]", "data.near_duplicates=false"),
)


@of_places
@pytest.mark.slow
def test_what_goes_through_slices_is_found_from_training_to_a_bundle(tmp_path: Path) -> None:
    write_volumes(tmp_path / "data", "train", range(12))
    write_volumes(tmp_path / "data", "test", range(20, 22))
    run = run_whole_way(tmp_path, [PROJECT / "configs" / "segmentation.yaml", *WORDS])
    with (run / "fold0" / "metrics.csv").open(newline="") as file:
        scores = [float(row["val/dice"]) for row in csv.DictReader(file) if row["val/dice"]]
    assert max(scores) > 0.75  # whoever sees one slice marks all discs, of which half are right: 2/3


def write_volumes(folder: Path, part: str, cases: range) -> None:
    """Write volumes of noise with discs, four a slice: two that go through all slices, which are the mask, and two of
    that slice alone, which look the same there."""
    rng, rows = np.random.default_rng(cases.start), list[list[str]]()
    (folder / f"{part}_images").mkdir(parents=True)
    y, x = np.mgrid[:SIDE, :SIDE]
    for case in cases:
        stay, volume = rng.integers(4, SIDE - 4, (2, 2)), rng.normal(60, 20, (DEPTH, SIDE, SIDE))
        for number in range(DEPTH):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            for place, (row, column) in enumerate([*stay, *rng.integers(4, SIDE - 4, (2, 2))]):
                disc = (y - row) ** 2 + (x - column) ** 2 < 12
                volume[number][disc] = rng.normal(180, 20, disc.sum())
                mask |= disc & (place < 2)
            rows.append([f"case{case}_{number}", "through", run_lengths(mask)])
        np.save(folder / f"{part}_images" / f"case{case}.npy", volume.clip(0, 255).astype(np.uint8))
    name = "train.csv" if part == "train" else "sample_submission.csv"
    write_csv(folder / name, ("image_id", "class_id", "rle"), rows)


def run_lengths(mask: np.ndarray) -> str:
    """Return run lengths down the columns, counted from 1."""
    edges = np.flatnonzero(np.diff(np.pad(mask.T.reshape(-1), 1)))
    return " ".join(f"{start + 1} {end - start}" for start, end in edges.reshape(-1, 2))
