"""Stopping early: that it stays so over a resume, and that an epoch without validation does not count."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from tiny import PROJECT, tiny_words
from trainings import rows

from competition.config.loading import load_config, task_names
from competition.data.folds import make_folds
from competition.tasks.made_up_images import write_sample
from competition.training.checkpoint import load_checkpoint

Command = Callable[..., CompletedProcess[str]]

TASK = task_names()[0]
FOLD = Path("outputs", TASK, "fold0")
NEVER_BETTER = ("early_stopping.patience=1", "early_stopping.min_delta=100")
WORDS = (str(PROJECT / "configs" / f"{TASK}.yaml"), *tiny_words(TASK), "data.image_size=32", *NEVER_BETTER)


@pytest.fixture(autouse=True)
def folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_sample(TASK, Path("data"), size=24)
    make_folds(load_config([Path(WORDS[0])], list(WORDS[1:])))


@pytest.mark.parametrize("more", [(), pytest.param(("trainer.min_epochs=3",), marks=pytest.mark.slow)])
def test_a_run_killed_after_it_stopped_early_is_resumed_to_the_same_end(
    more: tuple[str, ...], command: Command
) -> None:
    words = [*WORDS, *more, "trainer.max_epochs=6"]
    done = command("train", *words)
    assert done.returncode == 0, done.stderr
    epochs, step = rows(FOLD), load_checkpoint(FOLD / "latest.pt")["global_step"]
    with np.load(FOLD / "oof.npz") as stored:
        predicted = dict(stored)
    (FOLD / "oof.npz").unlink()  # as if it had been killed while it predicted
    assert command("train", *words, "--resume").returncode == 0
    assert len(epochs) == (3 if more else 2)
    assert rows(FOLD) == epochs
    assert load_checkpoint(FOLD / "latest.pt")["global_step"] == step
    with np.load(FOLD / "oof.npz") as stored:
        assert all(np.array_equal(stored[name], values) for name, values in predicted.items())


@pytest.mark.slow
def test_patience_counts_validations_not_epochs(command: Command) -> None:
    done = command("train", *WORDS, "trainer.max_epochs=6", "trainer.check_val_every_n_epoch=2")
    assert done.returncode == 0, done.stderr
    assert len(rows(FOLD)) == 4
