"""Predicting without Lightning, as a bundle does: the same numbers as `competition predict`."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric.plugins.environments import SLURMEnvironment
from warm import ANEW, OF_LIGHTNING, warm_python

from competition.config.data_settings import Window
from competition.config.loading import dump_config, load_config, task_names
from competition.config.settings import Config
from competition.config.views import views_of
from competition.data.dataset import ImageDataset
from competition.prediction.ensemble import Ensemble, precision_context, predict_stream
from competition.prediction.predict import predict_images
from competition.prediction.stored import Predictions
from competition.support.errors import CompetitionError
from competition.support.optional_rooms import has_room
from competition.tasks.contract import Task
from competition.training.devices import has_kernels, precision_here, refuse_gpus_without_kernels
from competition.training.module import CompetitionModule
from competition.training.trainer import build_trainer, devices_here, prediction_settings

WITHOUT_LIGHTNING = """
import sys
for name in ("pytorch_lightning", "lightning_fabric", "lightning", "faster_coco_eval"):
    sys.modules[name] = None
import importlib, pkgutil
import competition.prediction.ensemble, competition.submission.submit
from competition.config.loading import task_names
for name in task_names():
    package = importlib.import_module(f"competition.tasks.{name}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
"""


def test_predictions_are_those_of_a_trainer_to_the_last_bit(config: Config, tmp_path: Path) -> None:
    config = config.model_copy(update={"tta": ["hflip"]})
    torch.manual_seed(0)
    task = Task(config.task)
    classes = task.table.read_table(config).classes
    ids = task.submission.read_test_ids(config, classes)
    networks = [task.model.build_network(config, len(classes)).eval() for _ in range(2)]
    dataset = ImageDataset(config, ids)
    predict_images(config, networks, dataset, tmp_path / "test.npz", classes)
    stored = Predictions(tmp_path / "test.npz")
    streamed = list(predict_stream(Ensemble(config, networks, views_of(config.tta)), dataset))
    assert [one[0] for one in streamed] == stored.image_ids == list(ids)
    for index, (_, height, width, prediction) in enumerate(streamed):
        assert (height, width) == stored.sizes[index]
        for key, values in stored[index].items():
            np.testing.assert_array_equal(prediction[key], values)


@pytest.mark.slow
def test_on_several_devices_predictions_and_their_order_are_the_same(config: Config) -> None:
    for window in (None, Window(size=(40, 32))):
        data = config.data.model_copy(update={"batch_size": 2, "window": window})
        of_data = config.model_copy(update={"data": data})
        torch.manual_seed(0)
        task = Task(config.task)
        classes = task.table.read_table(config).classes
        network = task.model.build_network(config, len(classes)).eval()
        dataset = ImageDataset(of_data, task.submission.read_test_ids(config, classes)[:5])
        ensemble = Ensemble(of_data, [network], views_of(["vflip"]))
        one = list(predict_stream(ensemble, dataset))
        three = list(predict_stream(ensemble, dataset, [torch.device("cpu")] * 3))
        assert len(one) == len(three) == 5
        for alone, together in zip(one, three, strict=True):
            assert alone[:3] == together[:3]
            for key, values in alone[3].items():
                np.testing.assert_array_equal(together[3][key], values)


@pytest.mark.slow
def test_either_half_is_on_a_cpu_what_lightning_makes_of_it(config: Config, tmp_path: Path) -> None:
    half = config.model_copy(update={"inference": config.inference.model_copy(update={"precision": "16-mixed"})})
    torch.manual_seed(0)
    task = Task(half.task)
    classes = task.table.read_table(half).classes
    network = task.model.build_network(half, len(classes)).eval()
    dataset = ImageDataset(half, task.submission.read_test_ids(half, classes))
    predict_images(half, [network], dataset, tmp_path / "test.npz", classes)
    stored = Predictions(tmp_path / "test.npz")
    assert stored.is_as_asked(half)
    for index, (*_, prediction) in enumerate(predict_stream(Ensemble(half, [network], views_of([])), dataset)):
        for key, values in stored[index].items():
            np.testing.assert_array_equal(prediction[key], values)


def test_half_precision_and_channels_last_change_predictions_a_little(config: Config) -> None:
    torch.manual_seed(0)
    task = Task(config.task)
    classes = task.table.read_table(config).classes
    dataset = ImageDataset(config, task.submission.read_test_ids(config, classes)[:4])
    network = task.model.build_network(config, len(classes)).eval()
    plain = list(predict_stream(Ensemble(config, [network], views_of([])), dataset))
    faster = config.inference.model_copy(update={"precision": "bf16-mixed", "channels_last": True})
    half = config.model_copy(update={"inference": faster})
    rounded = list(predict_stream(Ensemble(half, [network], views_of([])), dataset))
    gaps = [task.decode.difference(one[3], other[3]) for one, other in zip(rounded, plain, strict=True)]
    assert 0 < max(gaps) < 0.05


def test_a_network_that_is_trained_channels_last_predicts_so_unless_told_otherwise(config: Config) -> None:
    trained = config.model_copy(update={"model": config.model.model_copy(update={"channels_last": True})})
    classes = Task(config.task).table.read_table(config).classes
    network = CompetitionModule(trained.model_dump(mode="json"), list(classes)).network
    weights = [weight for weight in network.parameters() if weight.ndim == 4 and min(weight.shape[1:]) > 1]
    assert weights
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert trained.predicts_channels_last
    plainly = trained.model_copy(update={"inference": trained.inference.model_copy(update={"channels_last": False})})
    assert not plainly.predicts_channels_last
    assert not config.predicts_channels_last


@pytest.mark.slow
def test_what_an_offline_notebook_imports_needs_no_lightning(project: Path) -> None:
    environment = os.environ | {ANEW: OF_LIGHTNING}
    subprocess.run([warm_python(), "-c", WITHOUT_LIGHTNING], cwd=project, env=environment, check=True)


def test_a_precision_that_only_lightning_has_is_refused_by_name(config_file: Path) -> None:
    config = load_config([config_file], ["trainer.precision=64-true"])
    with pytest.raises(CompetitionError, match=r"trainer\.precision: found 64-true.*inference\.precision, one of 32"):
        precision_context(config, torch.device("cpu"))


@pytest.mark.parametrize(
    ("found", "known"), [("32", "32"), ("32-true", "32"), ("16", "16-mixed"), ("bf16", "bf16-mixed"), ("half", "half")]
)
def test_precisions_go_by_every_name_that_the_trainer_takes(config_file: Path, found: str, known: str) -> None:
    trainer, inference = (
        load_config([config_file], [f"{part}.precision={found}"]) for part in ("trainer", "inference")
    )
    assert trainer.prediction_precision == inference.prediction_precision == known


@pytest.mark.parametrize(
    ("has_gpu", "has_bf16", "expected"),
    [(False, False, "bf16-mixed"), (True, True, "bf16-mixed"), (True, False, "16-mixed")],
)
def test_half_is_bf16_but_on_gpus_that_would_emulate_it(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, has_gpu: bool, has_bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or has_bf16)
    assert precision_here("half") == expected
    assert precision_here("32-true") == "32-true"
    config = load_config([config_file], ["trainer.precision=half", "trainer.accelerator=cpu"])
    context: Any = precision_context(config, torch.device("cpu"))
    assert context.fast_dtype == torch.bfloat16


def test_a_trainer_takes_half_precision(config_file: Path) -> None:
    config = load_config([config_file], ["trainer.precision=half", "trainer.accelerator=cpu"])
    assert build_trainer(config, []).precision == "bf16-mixed"


BUILT = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]  # as of torch 2.15 for CUDA 13


@pytest.mark.parametrize(
    ("gpu", "capability", "built", "expected"),
    [
        ("P100", (6, 0), BUILT, False),
        ("V100", (7, 0), BUILT, False),
        ("T4", (7, 5), BUILT, True),
        ("RTX 40", (8, 9), BUILT, True),  # runs what was built for an older one of its major version
        ("B300", (10, 3), BUILT, True),
        ("of the future", (13, 0), BUILT, False),
        ("of the future", (13, 0), [*BUILT, "compute_120"], True),  # compiled when it is loaded
        ("P100", (6, 0), [*BUILT, "compute_120"], False),
        ("P100", (6, 0), ["sm_50", "sm_60", "sm_70"], True),
        ("H100", (9, 0), ["sm_90a"], True),
        ("MI300", (9, 4), ["gfx90a", "gfx942"], True),
    ],
)
def test_a_gpu_is_used_where_torch_has_kernels_for_it(
    gpu: str, capability: tuple[int, int], built: list[str], expected: bool
) -> None:
    assert has_kernels(capability, built) == expected


@pytest.mark.parametrize(
    ("devices", "is_refused"),
    [
        ("auto", True),
        (-1, True),
        (2, True),
        ("2", True),
        ([1], True),
        ("0,1", True),
        (1, False),
        ("1", False),
        ([0], False),
    ],
)
def test_an_old_gpu_is_refused_where_it_would_be_used(
    devices: Any, is_refused: bool, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two; this machine need not have any."""
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_arch_list": lambda: BUILT,
        "get_device_capability": lambda device: [(7, 5), (6, 0)][device.index],
        "get_device_name": lambda device: ["T4", "P100"][device.index],
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    asked = config.model_copy(update={"trainer": {"devices": devices}})
    if is_refused:
        with pytest.raises(CompetitionError, match=r"GPU 1 \(P100\) is sm_60: "):
            refuse_gpus_without_kernels(asked)
    else:
        refuse_gpus_without_kernels(asked)


@pytest.mark.parametrize(
    ("wanted", "num_gpus", "expected"),
    [("auto", 2, "auto"), (-1, 2, -1), (2, 2, 2), (8, 2, 2), ("8", 2, 2), ([3], 1, 1), ([1], 2, [1]), ("0,5", 4, 2)],
)
def test_a_prediction_takes_the_gpus_that_are_here(wanted: Any, num_gpus: int, expected: Any) -> None:
    assert devices_here(wanted, num_gpus) == expected


def test_a_run_of_several_machines_is_predicted_on_this_one_alone(config_file: Path) -> None:
    presets = [config_file.parent / "trainer" / f"{name}.yaml" for name in ("multi_node", "gpu")]
    config = load_config([config_file, *presets], ["trainer.devices=8", "trainer.num_nodes=2"])
    trainer = build_trainer(config, [], training=False)
    assert (trainer.num_nodes, trainer.world_size) == (1, max(torch.cuda.device_count(), 1))


@pytest.mark.parametrize(
    ("given", "devices", "nodes"),
    [
        ({"NTASKS": "1", "NNODES": "1"}, 1, 1),
        ({"NTASKS": "8", "NNODES": "2"}, 4, 2),
        ({"NTASKS_PER_NODE": "3", "NTASKS": "6", "NNODES": "2"}, 3, 2),
        ({}, 1, 1),
    ],
    ids=["one", "two machines", "by machine", "bare"],
)
def test_a_job_of_slurm_predicts_by_the_processes_it_was_given(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], devices: int, nodes: int
) -> None:
    """Whatever the run was trained on; Lightning would refuse other numbers than those of the job."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(SLURMEnvironment, "detect", staticmethod(lambda: True))
    for name in ("NTASKS", "NTASKS_PER_NODE", "NNODES"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    config = load_config([config_file, config_file.parent / "trainer" / "multi_node.yaml"])
    found = prediction_settings(config)
    assert (found["devices"], found["num_nodes"]) == (devices, nodes)


def test_a_run_of_a_mac_is_predicted_on_gpus_that_are_here(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config([config_file], ["trainer.accelerator=mps"])
    assert prediction_settings(config)["accelerator"] in ("cpu", "mps")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert prediction_settings(config) | {"precision": ""} == {"accelerator": "gpu", "devices": 1, "precision": ""}


@pytest.mark.slow
@pytest.mark.parametrize("task", task_names()[:1], indirect=True)  # the same for all
def test_every_verb_runs_a_run_of_many_gpus_and_machines_on_what_is_here(
    replayable: Path, command: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    outputs = Path(shutil.copytree(replayable, tmp_path / "outputs"))
    for path in outputs.glob("t/fold*/config.yaml"):
        words = ["trainer.accelerator=gpu", "trainer.devices=8", "trainer.num_nodes=2", "trainer.strategy=ddp"]
        path.write_text(dump_config(load_config([path], words)))
    for words in (
        ("replay", "t"),
        ("predict", "t", "--estimate"),
        ("predict", "t"),
        ("tune", "t"),
        ("predict", "t", "--views", "tta=[hflip]"),
        ("submit", "t"),
        *[("bundle", "t", "--no-wheels")] * has_room("bundle"),
    ):
        done = command(*words)
        assert done.returncode == 0, (words, done.stderr)
