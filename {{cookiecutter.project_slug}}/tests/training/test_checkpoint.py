"""Checkpoints: which is the best, what is exported, and that the best survives a kill at the worst moment."""

import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from safetensors.torch import load_file
from tiny import PROJECT, tiny_words
from trainings import assert_same, rows
from warm import ANEW, OF_LIGHTNING, warm_python

from competition.config.loading import load_config, task_names
from competition.config.settings import Checkpoint as Settings
from competition.data.folds import make_folds
from competition.pipeline.train_fold import train
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.training.checkpoint import AtomicCheckpointIO, LatestAndBest, load_checkpoint
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule
from competition.training.trainer import build_trainer

Command = Callable[..., CompletedProcess[str]]

TASK = task_names()[0]
FOLD = Path("outputs", TASK, "fold0")
WORDS = (str(PROJECT / "configs" / f"{TASK}.yaml"), *tiny_words(TASK), "trainer.max_epochs=3", "sampler.share=natural")
LOAD = """
import sys
from pathlib import Path
from safetensors.torch import load_file
from competition.config.loading import load_config
from competition.tasks.contract import Task
config = load_config([Path(sys.argv[1])])
network = Task(config.task).model.build_network(config, int(sys.argv[3]))
network.load_state_dict(load_file(sys.argv[2]), strict=True)
assert not [name for name in sys.modules if "lightning" in name]
"""


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Train with a score monitored; return the folder and the name of the score."""
    folder = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_sample(TASK, Path("data"), size=24)
        config = load_config([Path(WORDS[0])], list(WORDS[1:]))
        make_folds(config)
        metric = next(iter(config.metrics))
        words = [*WORDS, f"checkpoint.monitor=val/{metric}"]
        train(load_config([Path(words[0])], words[1:]))
    return folder, metric


@pytest.mark.slow
def test_a_monitored_score_gives_best_score_of_the_epoch_with_the_highest(scored: tuple[Path, str]) -> None:
    folder, metric = scored
    scores = [float(row[f"val/{metric}"]) for row in rows(folder / FOLD)]
    assert load_checkpoint(folder / FOLD / "best_score.pt")["epoch"] == scores.index(max(scores))
    assert not (folder / FOLD / "best_loss.pt").exists()


@pytest.mark.slow
def test_exported_weights_load_by_plain_names_without_lightning(scored: tuple[Path, str]) -> None:
    folder, _ = scored
    exported = folder / FOLD / "best_score.safetensors"
    best = load_checkpoint(folder / FOLD / "best_score.pt")
    assert_same({f"network.{name}": value for name, value in load_file(exported).items()}, best["state_dict"])
    classes = len(best["hyper_parameters"]["classes"])
    command = [warm_python(), "-c", LOAD, str(folder / FOLD / "config.yaml"), str(exported), str(classes)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), ANEW: OF_LIGHTNING}
    subprocess.run(command, env=environment, check=True, timeout=300)


@pytest.mark.slow
def test_a_kill_between_saving_the_latest_and_linking_it_as_best_loses_no_best(
    command: Command, tmp_path: Path
) -> None:
    write_sample(TASK, Path("data"), size=24)
    make_folds(load_config([Path(WORDS[0])], list(WORDS[1:])))
    assert command("train", *WORDS, "trainer.max_epochs=1").returncode == 0
    best, latest = FOLD / "best_loss.pt", FOLD / "latest.pt"
    for name in ("best_loss.pt", "best_loss.safetensors", "oof.npz"):  # as if they had not been written yet
        (FOLD / name).unlink()
    (FOLD / ".latest.pt.1.tmp").write_bytes(b"half")
    assert command("train", *WORDS, "trainer.max_epochs=1", "--resume").returncode == 0
    assert best.read_bytes() == latest.read_bytes()
    assert best.samefile(latest)
    assert not list(FOLD.glob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("never", ["trainer.limit_val_batches=0", "trainer.max_steps=1"])
def test_a_training_without_any_validation_keeps_its_last_epoch_and_says_so(
    never: str, command: Command, tmp_path: Path
) -> None:
    write_sample(TASK, Path("data"), size=24)
    make_folds(load_config([Path(WORDS[0])], list(WORDS[1:])))
    done = command("train", *WORDS, "data.image_size=32", "trainer.max_epochs=2", "early_stopping.patience=1", never)
    assert done.returncode == 0, done.stderr
    assert "val/loss was not computed or never a number: the last epoch is the best\n" in done.stdout
    assert (FOLD / "best_loss.pt").read_bytes() == (FOLD / "latest.pt").read_bytes()
    assert (FOLD / "oof.npz").is_file()


class SavedSteps(Checkpoint):
    """Notes after every batch at which step latest.pt was saved last."""

    def __init__(self, latest: Path) -> None:
        self.latest = latest
        self.steps: list[int] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps.append(load_checkpoint(self.latest)["global_step"] if self.latest.is_file() else 0)


@pytest.mark.parametrize(
    ("often", "expected"),
    [({}, [0] * 6), ({"every_steps": 2}, [0, 2, 2, 4, 4, 4]), ({"every_minutes": 1e-9}, [1, 2, 3, 4, 5, 5])],
)
def test_latest_is_saved_in_mid_epoch_where_asked_for(
    often: dict[str, float], expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sample(TASK, Path("data"), size=24)
    config = load_config([Path(WORDS[0])], [*WORDS[1:], "data.batch_size=2", "trainer.max_epochs=1"])
    table = Task(TASK).table.read_table(config)
    data = FoldData(config, table, np.arange(len(table.image_ids)) % 2)  # 12 images in 6 batches
    noted = SavedSteps(tmp_path / "latest.pt")
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    build_trainer(config, [LatestAndBest(tmp_path, Settings.model_validate(often), "min"), noted]).fit(module, data)
    assert noted.steps == expected
    assert load_checkpoint(tmp_path / "latest.pt")["global_step"] == 6


def test_a_checkpoint_that_cannot_be_saved_speaks_of_one_before_it_only_where_there_is_one(tmp_path: Path) -> None:
    latest, writer = tmp_path / "latest.pt", AtomicCheckpointIO()
    small, large = {"epoch": 1, "state_dict": {}}, {"weights": torch.zeros(2**18)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, before[1]))  # as a full disk, for this process
    try:
        with pytest.raises(CompetitionError, match=r"latest\.pt: cannot be saved .*; there is none before it: .*$"):
            writer.save_checkpoint(large, latest)
        assert not list(tmp_path.iterdir())
        writer.save_checkpoint(small, latest)
        with pytest.raises(CompetitionError, match=r"the one before it is whole: .* --resume$"):
            writer.save_checkpoint(large, latest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_checkpoint(latest) == small
