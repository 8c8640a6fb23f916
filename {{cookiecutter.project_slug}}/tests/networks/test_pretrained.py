"""Pretrained weights: from a local file into every task's network, and what is said when they cannot be had."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from hub import fetch_twice, held, in_a_process
from safetensors.torch import save_file
from task_facts import facts_of
from timm.models import _registry
from torch import Tensor, nn

from competition.config.loading import task_names, validate
from competition.networks.pretrained import GO_ON, weights_note
from competition.prediction.predict import load_network
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.training.module import CompetitionModule

State = dict[str, Tensor]
each_task = pytest.mark.parametrize("task", task_names())


def plain(task: str, pretrained: bool | str, encoder: str = "test_resnet", channels: int = 3) -> dict[str, Any]:
    data = {"channels": channels, "mean": [0.5] * channels, "std": [0.2] * channels, "image_size": 64}
    model = {"encoder": encoder, "pretrained": pretrained, **facts_of(task).small}
    return {"name": "t", "task": task, "data": data, "model": model}


def build(task: str, pretrained: bool | str, encoder: str = "test_resnet", channels: int = 3) -> nn.Module:
    config = validate(plain(task, pretrained, encoder, channels), {}, "test")
    return Task(task).model.build_network(config, 4)


@pytest.fixture(scope="module")
def state() -> State:
    """Weights of an encoder with a classifier of 1000 classes, every tensor of them unmistakable."""
    generator = torch.Generator().manual_seed(7)
    shapes = timm.create_model("test_resnet").state_dict()
    return {
        name: torch.rand(value.shape, generator=generator) + 0.5 if value.is_floating_point() else value
        for name, value in shapes.items()
    }


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def noise(state: State) -> State:
    return {name: torch.randn(value.shape) for name, value in state.items()}


FORMATS: dict[str, Callable[[State, Path], object]] = {
    "weights.safetensors": save_file,
    "weights.pth": torch.save,
    "under state_dict.pt": lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path),
    "under model.pt": lambda state, path: torch.save({"model": state}, path),
    "dataparallel.pth": lambda state, path: torch.save({"state_dict": prefixed("module.", state)}, path),
    "lightning.ckpt": lambda state, path: torch.save(
        {"state_dict": prefixed("model.", state), "callbacks": {"a": {"best": [1, "b"]}}, "epoch": 1}, path
    ),
    "backbone.pth": lambda state, path: torch.save({"model": prefixed("backbone.", state)}, path),
    "a detector.pth": lambda state, path: torch.save(
        prefixed("backbone.body.", state) | prefixed("head.", {"weight": torch.ones(3)}), path
    ),
    "teacher and student.pth": lambda state, path: torch.save(
        {
            name: prefixed("module.backbone.", noise(state) if name == "student" else state)
            for name in ("student", "teacher")
        },
        path,
    ),
    "average.pth.tar": lambda state, path: torch.save({"state_dict": noise(state), "state_dict_ema": state}, path),
}


@pytest.mark.parametrize(
    ("task", "name"),
    [(task, name) for task in task_names() for name in FORMATS if task == task_names()[0] or name == "lightning.ckpt"],
)
def test_a_local_file_becomes_the_encoders_weights(task: str, name: str, state: State, tmp_path: Path) -> None:
    FORMATS[name](state, tmp_path / name)
    network = build(task, str(tmp_path / name))
    found, number = held(network, state)
    assert found == number
    assert held(build(task, False), state)[0] == 0
    weights = f"{number} of {number} tensors of test_resnet, {facts_of(task).anew} anew, from {tmp_path / name}"
    note = f"model.pretrained: {weights}"
    assert weights_note(network) == note


@each_task
@pytest.mark.parametrize("source", task_names())
@pytest.mark.parametrize("encoder", ["test_resnet", "test_convnext", "tu-test_convnext"])
def test_the_weights_of_any_task_begin_any_other(task: str, source: str, encoder: str, tmp_path: Path) -> None:
    """`best_loss.safetensors` of another run: timm names a network of features otherwise than the whole."""
    if encoder.startswith("tu-") and not (task == source and facts_of(task).takes_prefix):
        pytest.skip("the prefix is of segmentation-models-pytorch")
    torch.manual_seed(5)
    first = build(source, False, encoder)
    for value in first.state_dict().values():
        value.copy_(torch.randn(value.shape))
    save_file(first.state_dict(), tmp_path / "best_loss.safetensors")
    network = build(task, str(tmp_path / "best_loss.safetensors"), encoder)
    found, number = map(int, re.findall(r"(\d+) of (\d+) tensors", weights_note(network) or "")[0])
    of_first, theirs = list(first.state_dict().values()), list(network.state_dict().values())
    same = [
        any(one.shape == other.shape and torch.equal(one, other) for other in of_first) for one in theirs if one.ndim
    ]
    assert found == sum(same)
    assert number - found <= 2  # the norm before the classifier, which features have no use for


def test_an_encoder_of_smp_takes_its_weights_from_its_own_file(tmp_path: Path) -> None:
    if "segmentation" not in task_names():
        pytest.skip("no segmentation")
    first = build("segmentation", False, "resnet18")
    save_file(first.state_dict(), tmp_path / "best_loss.safetensors")
    network = build("segmentation", str(tmp_path / "best_loss.safetensors"), "resnet18", channels=4)
    assert "100 of 100 tensors of resnet18, decoder anew" in (weights_note(network) or "")
    same = network.state_dict()["encoder.layer4.0.conv1.weight"]
    assert torch.equal(same, first.state_dict()["encoder.layer4.0.conv1.weight"])


@each_task
def test_the_names_of_a_networks_authors_are_translated(task: str, tmp_path: Path) -> None:
    state = timm.create_model("test_convnext").state_dict()
    to_theirs = [
        (r"^head\.norm", "norm"), (r"^head\.fc", "head"), (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d)\.blocks\.", r"stages.\1."), (r"^stages\.(\d)\.downsample", r"downsample_layers.\1"),
        ("conv_dw", "dwconv"), (r"mlp\.fc", "pwconv"),
    ]  # fmt: skip
    for pattern, theirs in to_theirs:
        state = {re.sub(pattern, theirs, name): value for name, value in state.items()}
    torch.save({"model": state}, tmp_path / "theirs.pth")
    found, number = re.findall(
        r"(\d+) of (\d+) ", weights_note(build(task, str(tmp_path / "theirs.pth"), "test_convnext")) or ""
    )[0]
    assert found == number


@each_task
def test_what_the_hub_has_is_loaded_and_counted(
    task: str, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    save_file(state, tmp_path / "hub.safetensors")
    (known,) = [cfg for name, cfg in _registry._model_pretrained_cfgs.items() if name.startswith("test_resnet.")]
    monkeypatch.setattr(known, "file", str(tmp_path / "hub.safetensors"))
    network = build(task, True, channels=1)
    found, number = held(network, {name: value for name, value in state.items() if name != "conv1.0.weight"})
    assert found == number
    assert re.search(
        rf"{number + 1} of {number + 1} tensors of test_resnet, .* anew, from the hub", weights_note(network) or ""
    )


@each_task
@pytest.mark.parametrize("channels", [1, 5])
def test_a_local_file_fits_another_number_of_channels(task: str, state: State, tmp_path: Path, channels: int) -> None:
    """More than three take the three in turn, so much weaker that all together are as strong; grey takes their sum."""
    save_file(state, tmp_path / "weights.safetensors")
    network = build(task, str(tmp_path / "weights.safetensors"), channels=channels)
    first = state["conv1.0.weight"]
    first = first.sum(dim=1, keepdim=True) if channels == 1 else first[:, [0, 1, 2, 0, 1]] * 3 / 5
    assert any(first.shape == p.shape and torch.allclose(first, p) for p in network.parameters())


def fault(task: str, pretrained: bool | str, encoder: str = "test_resnet") -> str:
    """Return the message of a network that cannot be built: one line."""
    with pytest.raises(CompetitionError) as caught:
        build(task, pretrained, encoder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@each_task
def test_a_file_that_is_not_there_is_named_with_the_ways_on(task: str, tmp_path: Path) -> None:
    message = fault(task, str(tmp_path / "nothing.pt"))
    assert str(tmp_path / "nothing.pt") in message
    assert "no such file" in message
    assert GO_ON in message


@each_task
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 a torn archive", b"\x80\x02}q\x00."])
def test_a_file_that_holds_no_weights_is_named(task: str, suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    message = fault(task, str(path))
    assert str(path) in message
    assert GO_ON in message


@each_task
def test_a_folder_is_no_file_of_weights(task: str, tmp_path: Path) -> None:
    assert str(tmp_path) in fault(task, str(tmp_path))


@each_task
def test_weights_of_another_network_are_refused(task: str, tmp_path: Path) -> None:
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "other.pt")
    message = fault(task, str(tmp_path / "other.pt"))
    assert str(tmp_path / "other.pt") in message
    assert "test_resnet" in message
    assert GO_ON in message


@each_task
def test_a_file_of_which_most_fits_is_said_to_lack_the_rest_and_one_of_which_little_does_is_refused(
    task: str, state: State, tmp_path: Path
) -> None:
    names = [name for name in state if not name.startswith("fc.") and not name.endswith("num_batches_tracked")]
    path = tmp_path / "part.pt"
    torch.save({name: state[name] for name in names[2:]}, path)
    note = weights_note(build(task, str(path)))
    assert f"{len(names) - 2} of {len(names)} tensors of test_resnet (there is no " in (note or "")
    torch.save({name: state[name] for name in names[: len(names) // 2]}, path)
    assert f": {len(names) // 2} of {len(names)} tensors of test_resnet fit; there is no" in fault(task, str(path))
    torch.save(state | {names[5]: torch.ones(3, 2)}, path)
    assert f"{names[5]} has the shape (3, 2), expected" in fault(task, str(path)).replace("model.", "")


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(3), 7, "text", None, {}, {"state_dict": {"a": 1}}])
def test_a_file_of_something_else_is_refused_in_a_line(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "else.pt")
    message = fault(task_names()[0], str(tmp_path / "else.pt"))
    assert "no file of weights (it holds " in message
    assert GO_ON in message


@each_task
def test_a_misspelt_encoder_gets_the_nearest_names(task: str) -> None:
    nearest = fault(task, False, "resnt18").partition("nearest: ")[2].split(", ")
    assert nearest[0] == "resnet18"
    assert len(set(nearest)) == len(nearest)
    assert "efficientnet_b0" in fault(task, False, "efficientnetb0").partition("nearest:")[2]
    assert "none" in fault(task, False, "§§§").partition("nearest:")[2]


def save_checkpoint(task: str, path: Path) -> State:
    """Write a checkpoint of a training that had started from the hub's weights; return its network's weights."""
    torch.manual_seed(3)
    module = CompetitionModule(plain(task, False), ["a", "b", "c", "d"])
    parameters = {"config": plain(task, True), "classes": module.classes}
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": parameters}, path)
    return module.network.state_dict()


@pytest.mark.slow
def test_what_is_fetched_from_the_hub_is_there_without_it_from_then_on(state: State, tmp_path: Path) -> None:
    (known,) = [cfg for name, cfg in _registry._model_pretrained_cfgs.items() if name.startswith("test_resnet.")]
    folder = tmp_path / "repos" / str(known.hf_hub_id)
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors")
    for found in fetch_twice(tmp_path, {task: (folder, plain(task, True)) for task in task_names()}):
        for task in task_names():
            kept, number, line = found[task]
            assert kept == number, task
            assert re.search(r"(\d+) of \1 tensors of test_resnet, .*from the hub", line)


ASK_THE_HUB = """
import json, sys, time
from pathlib import Path
import competition.prediction.predict
sys.path.insert(0, {tests!r})
from test_pretrained import build
from competition.support.errors import CompetitionError

found = {{}}
for task in {tasks!r}:
    for encoder in ("test_resnet", "resnet18"):
        started = time.perf_counter()
        try:
            build(task, True, encoder)
        except CompetitionError as error:
            found[f"{{task}} {{encoder}}"] = [str(error), time.perf_counter() - started]
    network, classes = competition.prediction.predict.load_network(Path({folder!r}) / f"{{task}}.pt")
    found[f"{{task}} checkpoint"] = [sum(float(p.double().abs().sum()) for p in network.parameters()), classes]
print("found", json.dumps(found))
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process finds for which there is no hub: nobody listens at its address."""
    folder = tmp_path_factory.mktemp("hub")
    sums = {}
    for task in task_names():
        weights = save_checkpoint(task, folder / f"{task}.pt")
        parameters = dict(build(task, False).named_parameters())
        sums[task] = sum(float(value.double().abs().sum()) for name, value in weights.items() if name in parameters)
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(folder), "TORCH_HOME": str(folder)}
    script = ASK_THE_HUB.format(tests=str(Path(__file__).parent), tasks=task_names(), folder=str(folder))
    return in_a_process(script, nobody) | {"sums": sums}


@pytest.mark.slow
@each_task
@pytest.mark.parametrize("encoder", ["test_resnet", "resnet18"])
def test_without_a_hub_one_line_names_the_ways_on_at_once(task: str, encoder: str, offline: dict[str, Any]) -> None:
    message, seconds = offline[f"{task} {encoder}"]
    assert "\n" not in message
    assert f"weights of {encoder} cannot be fetched" in message
    assert GO_ON in message
    assert seconds < 15


@pytest.mark.slow
@each_task
def test_a_checkpoint_loads_without_a_hub(task: str, offline: dict[str, Any]) -> None:
    total, classes = offline[f"{task} checkpoint"]
    assert classes == ["a", "b", "c", "d"]
    assert total == pytest.approx(offline["sums"][task], rel=1e-9)


@each_task
def test_a_network_from_a_checkpoint_is_that_network_ready_to_predict(task: str, tmp_path: Path) -> None:
    weights = save_checkpoint(task, tmp_path / "best_loss.pt")
    started = time.perf_counter()
    network, classes = load_network(tmp_path / "best_loss.pt")
    assert time.perf_counter() - started < 10
    assert not network.training
    assert classes == ["a", "b", "c", "d"]
    loaded = network.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


@pytest.mark.parametrize("content", [b"", b"torn"])
def test_a_damaged_checkpoint_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "latest.pt").write_bytes(content)
    with pytest.raises(CompetitionError, match=r"latest\.pt: not a whole checkpoint"):
        load_network(tmp_path / "latest.pt")
