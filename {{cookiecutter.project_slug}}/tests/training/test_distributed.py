"""Two processes, on one machine or as two, or accumulated batches learn what one learns from the same global batches.

In double precision, as a network's last bits hang on the size of its batch, on some CPUs, and training magnifies them.

Run as a script, this file has two processes learn, which are forks: python tests/training/test_distributed.py FOLDER
Run by torchrun it is one of two on GPUs: torchrun --nproc-per-node 2 tests/training/test_distributed.py FOLDER sync
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from task_facts import facts_of
from tiny import PROJECT
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from trainings import fork_group, get_ready, rows, run_as_script, wait

from competition.config.loading import task_names, validate
from competition.config.settings import Config
from competition.data.dataset import ImageDataset
from competition.prediction.predict import predict_images
from competition.prediction.stored import Predictions
from competition.runs.folder import OOF
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.training.fold_data import FoldData
from competition.training.logger import MetricsCsv
from competition.training.module import CompetitionModule
from competition.training.trainer import NormsOverProcesses, build_trainer

NUM_TRAINED, NUM_VALIDATED = 11, 11  # two processes have an unequal number of them
WHOLE, SHORT = 4, 16  # images a global batch: three images are left out of two; one is incomplete
MIDDLE = "middle.pt"
each_task = pytest.mark.parametrize("task", task_names())


def make_config(task: str, batch_size: int = WHOLE, **trainer: Any) -> Config:
    data = {
        "dir": task,
        "image_size": 32,
        "num_workers": 0,
        "batch_size": batch_size,
        "weights_csv": f"{task}/weights.csv",
    }
    always = {"accelerator": "cpu", "max_epochs": 2, "gradient_clip_val": 0.5, "precision": "64-true"}
    # Adam divides gradients by their size: of those that are nearly 0 it makes steps out of float32's rounding alone.
    optimizer = {"name": "sgd", "lr": 0.1}
    values: dict[str, Any] = {
        "name": "t",
        "task": task,
        "data": data,
        "model": {"encoder": "test_resnet", **facts_of(task).small},
        "optimizer": optimizer,
    }
    values["model"] |= trainer.pop("model", {})
    return validate(values | {"trainer": always | trainer}, {}, "test")


def without_batch_norm(network: nn.Module) -> None:
    """Put into its place what does not mix the images of a batch."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.GroupNorm(1, child.num_features))


class SaveInTheMiddle(pl.Callback):
    """Saves what a training is after its third step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 3:
            trainer.save_checkpoint(self.path)


def learn(config: Config, target: Path, start: Path | None = None) -> None:
    """Train, from a checkpoint if there is one, and write `target`/metrics.csv, oof.npz and MIDDLE."""
    table = Task(config.task).table.read_table(config)
    folds = np.where(np.arange(len(table.image_ids)) < NUM_TRAINED, 1, 0)
    torch.manual_seed(0)
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    if not config.trainer.get("sync_batchnorm"):
        without_batch_norm(module.network)
    if "unused" in str(config.trainer.get("strategy")):
        module.network.unused = nn.Linear(2, 2)
    callback = MetricsCsv(target / "metrics.csv", config.metrics, plot=False)
    callbacks = [callback, *([SaveInTheMiddle(target / MIDDLE)] if start is None else [])]
    data = FoldData(config, table, folds)
    build_trainer(config, callbacks).fit(module, data, ckpt_path=start, weights_only=True)
    dataset = ImageDataset(config, table.image_ids[folds == 0], table=table)
    predict_images(config, [module.network.eval()], dataset, target / OOF, table.classes)


def write_weights(folder: Path) -> None:
    """Let some images count more than others: the step is the mean over all images, however they are split."""
    ids = sorted(path.name for path in (folder / "train_images").iterdir())
    rows = [f"{image_id},{0.5 + number % 3}" for number, image_id in enumerate(ids)]
    (folder / "weights.csv").write_text("\n".join(["image_id,weight", *rows]) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder with made-up data of each task."""
    folder = tmp_path_factory.mktemp("distributed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for task in task_names():
            write_sample(task, Path(task), NUM_TRAINED + NUM_VALIDATED)
            write_weights(Path(task))
            learn(make_config(task, devices=1), folder / "alone" / task)
        learn(make_config(task_names()[0], SHORT, devices=1), folder / "alone, short" / task_names()[0])
        yield folder
    torch.set_num_threads(threads)


def assert_learned_alike(folder: Path, found: str, expected: str, num_tasks: int) -> None:
    assert len(list((folder / found).iterdir())) == num_tasks
    for task in task_names()[:num_tasks]:
        ours, theirs = (rows(folder / name / task) for name in (found, expected))
        assert len(ours) == len(theirs) == 2
        for one, other in zip(ours, theirs, strict=True):
            for column in ("step", "learning_rate", "train/loss", *(name for name in one if name.startswith("val/"))):
                assert float(one[column]) == pytest.approx(float(other[column]), rel=1e-6), f"{task}: {column}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "accumulate", "expected"),
    [(WHOLE, 4, "alone"), (SHORT, 4, "alone, short"), (SHORT, 16, "alone, short")],
)
def test_accumulated_batches_learn_what_whole_ones_do(
    folder: Path, batch_size: int, accumulate: int, expected: str
) -> None:
    found = f"{batch_size} in {accumulate}"
    task = task_names()[0]
    learn(make_config(task, batch_size, devices=1, accumulate_grad_batches=accumulate), folder / found / task)
    assert_learned_alike(folder, found, expected, 1)


@pytest.fixture(scope="module")
def together(folder: Path) -> Path:
    """Have two processes of one machine, and then of two, learn the same."""
    run_as_script(__file__, folder)
    return folder


@pytest.mark.slow
def test_two_processes_learn_what_one_does(together: Path) -> None:
    folder = together
    assert_learned_alike(folder, "1 nodes", "alone", len(task_names()))
    assert_predicted_alike(folder, "1 nodes", "alone", len(task_names()))


def assert_predicted_alike(folder: Path, found: str, expected: str, num_tasks: int) -> None:
    """The processes' shares, 6 and 5 images, are joined in the order of one process."""
    for task in task_names()[:num_tasks]:
        ours, theirs = (Predictions(folder / name / task / OOF) for name in (found, expected))
        assert ours.image_ids == theirs.image_ids
        assert len(ours) == NUM_VALIDATED
        difference = Task(task).decode.difference
        assert max(difference(ours[index], theirs[index]) for index in range(NUM_VALIDATED)) < 1e-2


@pytest.mark.slow
def test_two_machines_learn_what_one_does(together: Path) -> None:
    folder = together
    assert_learned_alike(folder, "2 nodes", "alone, short", 1)
    assert_predicted_alike(folder, "2 nodes", "alone, short", 1)
    said = [(folder / f"said{rank}").read_text() for rank in (0, 1)]
    assert "epoch 2/2" in said[0]
    assert "epoch" not in said[1]  # the first process alone tells


THAWED: dict[str, Any] = {"model": {"freeze": "encoder", "unfreeze_epoch": 1}}


@pytest.mark.slow
def test_two_processes_learn_what_one_does_when_an_encoder_joins_in(together: Path) -> None:
    task = task_names()[0]
    learn(make_config(task, devices=1, **THAWED), together / "alone, thawed" / task)
    assert_learned_alike(together, "thawed", "alone, thawed", 1)
    frozen, all_along = (rows(together / name / task)[1]["train/loss"] for name in ("thawed", "alone"))
    assert float(frozen) != pytest.approx(float(all_along), rel=1e-3)


# Adapters in an encoder that stands still but for them.
ADAPTED: dict[str, Any] = {"model": {"encoder": "tu-test_convnext", "lora": {"rank": 2, "alpha": 6}}}


def adapted(task: str) -> dict[str, Any]:
    """Return what a training with adapters is given; some tasks call an encoder of timm by its name alone."""
    encoder = ADAPTED["model"]["encoder"] if task in ("segmentation", "points") else "test_convnext"
    return {"model": ADAPTED["model"] | {"encoder": encoder}}


@pytest.mark.slow
def test_two_processes_learn_adapters_as_one_does_and_go_on_with_them(together: Path) -> None:
    task = task_names()[0]
    learn(make_config(task, devices=1, **adapted(task)), together / "alone, adapted" / task)
    assert_learned_alike(together, "adapted", "alone, adapted", 1)
    unbroken, resumed = (rows(together / name / task)[-1] for name in ("adapted", "adapted, resumed"))
    assert resumed == unbroken
    first, last = (float(one["train/loss"]) for one in rows(together / "adapted" / task))
    assert first != last


def gpus(number: int, *values: Any) -> Any:
    """Mark a case that needs so many GPUs."""
    is_missing = torch.cuda.device_count() < number
    return pytest.param(*values, marks=[pytest.mark.gpu, pytest.mark.skipif(is_missing, reason=f"needs {number} GPUs")])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accelerator", "precision"),
    [("cpu", "bf16-mixed"), gpus(1, "gpu", "32-true"), gpus(1, "gpu", "bf16-mixed"), gpus(1, "gpu", "16-mixed")],
)
def test_half_precision_learns_about_what_full_precision_does(folder: Path, accelerator: str, precision: str) -> None:
    task, target = task_names()[0], folder / f"{accelerator} {precision}"
    learn(make_config(task, devices=1, accelerator=accelerator, precision=precision), target)
    found, expected = (rows(path)[0] for path in (target, folder / "alone" / task))
    for column in ("train/loss", "val/loss"):
        assert float(found[column]) == pytest.approx(float(expected[column]), rel=0.1)


SYNCED: dict[str, Any] = {"accelerator": "gpu", "sync_batchnorm": True, "precision": "32-true"}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [gpus(2, 2)])
def test_batch_norm_over_processes_is_that_of_one_process(folder: Path, processes: int) -> None:
    task = task_names()[0]
    learn(make_config(task, devices=1, **SYNCED), folder / "alone, batch norm")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), __file__, str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (PROJECT, PROJECT / "tests")))}
    subprocess.run([sys.executable, *command, "sync"], cwd=folder, env=environment, timeout=600, check=True)
    found, expected = (rows(folder / name) for name in ("sync", "alone, batch norm"))
    for one, other in zip(found, expected, strict=True):
        for column in ("train/loss", "val/loss"):
            assert float(one[column]) == pytest.approx(float(other[column]), rel=1e-3)  # GPUs add up in any order


def norms_of(module: CompetitionModule) -> list[nn.Module]:
    return [one for one in module.network.modules() if isinstance(one, _BatchNorm)]


def tensors_of(said: Any) -> list[torch.Tensor]:
    """Return the tensors of what a network says, whatever its task."""
    if isinstance(said, torch.Tensor):
        return [said]
    parts = said.values() if isinstance(said, dict) else said if isinstance(said, list | tuple) else ()
    return [one for part in (parts or getattr(said, "__dict__", {}).values()) for one in tensors_of(part)]


@pytest.mark.parametrize("encoder", ["test_resnet", "test_efficientnet"])  # whose norms hold activations
def test_norms_over_processes_say_and_hold_what_they_did(folder: Path, encoder: str) -> None:
    task = task_names()[0]
    config = make_config(task)
    model = {"encoder": encoder, "gradient_checkpointing": True}
    values = config.model_dump(mode="json")
    module = CompetitionModule(values | {"model": values["model"] | model}, ["a", "b"])
    norms, images = norms_of(module), torch.rand(2, 3, 64, 64)
    kinds, expected = [type(one) for one in norms], tensors_of(module.network.eval()(images))
    hooks, plugin = [len(one._forward_hooks) for one in norms], NormsOverProcesses()
    assert expected
    assert any(hooks)  # of the encoder's
    assert plugin.apply(module) is module
    assert norms_of(module) == norms  # the same objects, with what is hooked to them
    assert [len(one._forward_hooks) for one in norms] == hooks
    assert all(isinstance(one, nn.SyncBatchNorm) for one in norms)
    torch.testing.assert_close(tensors_of(module.network(images)), expected, rtol=0, atol=0)
    plugin.revert(module)
    assert [type(one) for one in norms] == kinds


def test_a_norm_that_is_computed_otherwise_is_refused() -> None:
    class Own(nn.BatchNorm2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return input

    with pytest.raises(CompetitionError, match=r"trainer\.sync_batchnorm: found true, but 0 is a Own, which is"):
        NormsOverProcesses().apply(nn.Sequential(Own(3)))


LEAVING = """
import subprocess
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
raise ValueError("too many")
"""


@pytest.mark.slow
def test_a_script_of_tests_that_fails_says_so_and_what_it_left_is_ended(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(LEAVING)
    with pytest.raises(AssertionError, match="ValueError: too many") as failed:
        run_as_script(str(tmp_path / "script.py"))
    left = re.search(r"^\d+$", str(failed.value).partition("\n")[2], re.MULTILINE)
    assert left
    state, until = Path(f"/proc/{left[0]}/stat"), time.monotonic() + 60
    while state.is_file() and state.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until
        time.sleep(0.01)


def test_statistics_over_processes_are_refused_without_gpus_in_one_line() -> None:
    config = make_config(task_names()[0], devices=2, strategy="ddp", sync_batchnorm=True)
    with pytest.raises(CompetitionError, match=r"trainer\.sync_batchnorm: found true; torch can do it on GPUs only"):
        build_trainer(config, [])


def learn_as_one_of_two(machines: int) -> None:
    """All tasks on one machine; one of them on two, where each batch is cut once more."""
    names, size = (task_names(), WHOLE) if machines == 1 else (task_names()[:1], SHORT)
    trainer: dict[str, Any] = {"num_nodes": machines, "devices": 2 // machines, "accumulate_grad_batches": 2}
    trainer["strategy"] = "ddp_find_unused_parameters_true" if machines == 1 else "ddp"
    for name in names:
        learn(make_config(name, size, **trainer), Path(f"{machines} nodes", name))
    if machines == 1:
        learn(make_config(names[0], strategy="ddp", devices=2, **THAWED), Path("thawed", names[0]))
        config = make_config(names[0], strategy="ddp", devices=2, **adapted(names[0]))
        learn(config, Path("adapted", names[0]))
        learn(config, Path("adapted, resumed", names[0]), start=Path("adapted", names[0], MIDDLE))


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    get_ready(task_names())
    if sys.argv[2:] == ["sync"]:
        learn(make_config(task_names()[0], strategy="ddp", devices=2, **SYNCED), Path("sync"))
        sys.exit()
    for number in (1, 2):
        wait(fork_group(2, lambda rank, machines=number: learn_as_one_of_two(machines), machines=number))
