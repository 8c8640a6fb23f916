"""`data.batch_size: auto`: the largest batch that fits, one for a whole run, and the rate that goes with it."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from tiny import PROJECT, TINY

from competition.config.loading import load_config, task_names, validate
from competition.config.optimizer_settings import Optimizer
from competition.config.settings import Config
from competition.data.folds import make_folds, read_folds
from competition.pipeline.find_batch_size import LEAST_STEPS, largest_that_fits
from competition.runs.batch_size import rate_factor, remember_batch_size, settled
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.training.fold_data import FoldData
from competition.training.trainer import build_trainer

Command = Callable[..., CompletedProcess[str]]
CONFIG = PROJECT / "configs" / f"{task_names()[0]}.yaml"
# A loss that needs the memory of a card that takes so many images.
CARD = """import torch
def image_losses(outputs, batch):
    if len(batch["image"]) > {}:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
    return torch.zeros(len(batch["image"]))
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_sample(task_names()[0], Path("data"), size=160)
    make_folds(load_config([CONFIG], list(TINY)))
    return tmp_path


def found(card: int, *words: str) -> int:
    Path(f"card{card}.py").write_text(CARD.format(card))
    plain = load_config([CONFIG], [*TINY, "data.image_size=32", "data.batch_size=auto", *words])
    losses = dict(Task(plain.task).loss.weights(plain)) | {f"card{card}.py": 1}
    values = plain.model_dump(mode="json")
    config = validate(values | {"loss": values["loss"] | losses}, {}, "test")
    table = Task(config.task).table.read_table(config)
    return largest_that_fits(config, build_trainer(config, []), FoldData(config, table, read_folds(config, table)))


def test_it_is_the_largest_power_of_two_that_a_device_takes_and_leaves_an_epoch_its_steps(data: Path) -> None:
    assert found(5) == 4
    assert found(2) == 2
    assert found(1000) == 8  # of 80 images
    assert 80 // LEAST_STEPS >= 8
    assert found(1000, "trainer.accumulate_grad_batches=4") == 2  # on a device: a step has four times as many
    with pytest.raises(CompetitionError, match=r"data\.batch_size: auto: not even two images fit"):
        found(1)


def test_a_mistake_that_is_none_of_memory_is_not_taken_for_one(data: Path) -> None:
    Path("wrong.py").write_text("def image_losses(outputs, batch):\n    return batch['nothing']\n")
    config = load_config([CONFIG], [*TINY, "data.batch_size=auto", "loss.files={wrong.py: 1}"])
    table = Task(config.task).table.read_table(config)
    with pytest.raises(CompetitionError, match=r"wrong\.py: line 2"):
        largest_that_fits(config, build_trainer(config, []), FoldData(config, table, read_folds(config, table)))


def test_the_rate_follows_the_batch_by_the_rule_of_the_optimizer() -> None:
    assert rate_factor(Optimizer(name="sgd", lr_batch_size=16), 64) == 4
    assert rate_factor(Optimizer(name="adamw", lr_batch_size=16), 64) == 2
    assert rate_factor(Optimizer(name="adamw"), 64) == 1


def with_auto(*words: str) -> Config:
    return load_config([CONFIG], ["data.batch_size=auto", "optimizer.lr=1e-3", "optimizer.lr_batch_size=16", *words])


def test_what_was_found_holds_for_all_of_a_run_and_no_other(data: Path) -> None:
    config = with_auto()
    assert settled(config) == config
    remember_batch_size(config, 64, "tried")
    for fold in (0, 1):
        one = settled(with_auto(f"fold={fold}"))
        assert (one.data.batch_size, one.optimizer.lr, one.data.finds_batch_size) == (64, 2e-3, False)
        assert settled(load_config([CONFIG], ["data.batch_size=8"])).data.batch_size == 8
    assert settled(with_auto("name=other")).data.finds_batch_size
    Path("outputs", config.name, "batch_size.yaml").write_text("batch_size: many\n")
    with pytest.raises(CompetitionError, match=r"batch_size\.yaml: "):
        settled(config)


@pytest.mark.slow
def test_without_a_gpu_it_is_the_batch_of_the_rate_and_a_run_goes_on_with_it(data: Path, command: Command) -> None:
    words = (*TINY, "data.image_size=32", "trainer.limit_train_batches=2", "data.batch_size=auto")
    more = ("optimizer.lr_batch_size=10", "trainer.accumulate_grad_batches=4")
    done = command("train", str(CONFIG), *words, *more)
    assert done.returncode == 0, done.stderr
    assert "data.batch_size: auto is 12 (no GPU to fill" in done.stdout  # what divides
    kept = yaml.safe_load(Path("outputs", task_names()[0], "fold0", "config.yaml").read_text())
    assert kept["data"]["batch_size"] == 12
    assert kept["optimizer"]["lr"] == pytest.approx(1e-3 * 1.2**0.5, rel=1e-3)
    again = command("train", str(CONFIG), *words, *more, "trainer.max_epochs=2", "--resume")
    assert again.returncode == 0, again.stderr
    assert "auto" not in again.stdout
