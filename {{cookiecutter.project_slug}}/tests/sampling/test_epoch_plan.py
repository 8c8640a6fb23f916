"""What a run will hold is known before: preview, learning rate and metrics.csv say what is then trained."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from tiny import PROJECT, tiny_words

from competition.config.loading import load_config, task_names
from competition.config.settings import Config
from competition.data.folds import make_folds, read_folds
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule
from competition.training.preview import preview
from competition.training.trainer import build_trainer

TASK = task_names()[0]


def config_of(folder: Path, *words: str) -> Config:
    """Return a config of 12 training images."""
    words = (
        f"data.dir={folder / 'data'}",
        "sampler.share=natural",
        "sampler.positive=null",
        "trainer.limit_val_batches=0",
        *words,
    )
    return load_config([PROJECT / "configs" / f"{TASK}.yaml"], [*tiny_words(TASK), *words])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_sample(TASK, tmp_path / "data", size=24)
    make_folds(config_of(tmp_path, "data.num_folds=2"))
    return tmp_path


def rows_of(table: str) -> list[dict[str, str]]:
    """Return the rows of a preview by column."""
    header, *rows = (line.split() for line in table.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


class Seen(pl.Callback):
    """Counts images and steps by epoch, and notes the learning rate of each batch."""

    def __init__(self) -> None:
        self.images: Counter[int] = Counter()
        self.steps: list[int] = []
        self.rates: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.images[trainer.current_epoch] += len(batch["image_id"])
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.steps.append(trainer.global_step)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "images"),
    [
        (["max_epochs=2", "max_steps=1000"], [12, 12]),
        (["max_epochs=9", "max_steps=4", "accumulate_grad_batches=2"], [12, 4]),
        (["max_epochs=null", "max_steps=4"], [12, 4]),
        (["max_epochs=2", "limit_train_batches=0.7", "accumulate_grad_batches=2"], [8, 8]),
        (["max_epochs=2", "data.batch_size=16", "accumulate_grad_batches=4"], [12, 12]),
    ],
)
def test_a_training_is_as_long_as_was_planned_and_the_learning_rate_comes_to_its_end(
    folder: Path, words: list[str], images: list[int]
) -> None:
    given = [word if word.startswith("data.") else f"trainer.{word}" for word in words]
    config = config_of(folder, "data.num_folds=2", *given)
    table = Task(TASK).table.read_table(config)
    data, seen = FoldData(config, table, read_folds(config, table)), Seen()
    build_trainer(config, [seen]).fit(CompetitionModule(config.model_dump(mode="json"), list(table.classes)), data)
    assert list(seen.images.values()) == images
    assert [data.describe_epoch(epoch)["images"] for epoch in range(len(images))] == images
    assert seen.rates[-1] == pytest.approx(config.optimizer.lr * config.scheduler.final)
    previewed = rows_of(preview(config)[0][0])
    assert [sum(int(row["steps"]) for row in previewed[: n + 1]) for n in range(len(previewed))] == seen.steps
    assert float(previewed[0]["lr_first"]) == pytest.approx(seen.rates[0], rel=0.01)
    assert float(previewed[-1]["lr_last"]) == pytest.approx(seen.rates[-1], rel=0.01)


@pytest.mark.parametrize(("batch_size", "trained", "left_out"), [(7, 7, "5 of its 12 images (42%)"), (6, 12, "")])
def test_the_preview_counts_the_images_that_do_not_fill_a_batch(
    folder: Path, batch_size: int, trained: int, left_out: str
) -> None:
    (table, *warnings), _ = preview(config_of(folder, "data.num_folds=2", f"data.batch_size={batch_size}"))
    assert int(rows_of(table)[0]["images"]) == trained
    assert [left_out in line for line in warnings] == [True] * bool(left_out)


def test_the_preview_speaks_of_positives_where_a_rule_says_what_they_are(folder: Path) -> None:
    words = ["data.num_folds=2", "data.batch_size=6"]
    ((without, *_), _), ((ruled, *_), _) = (
        preview(config_of(folder, *words, *more)) for more in ([], ["sampler.positive=[disk]"])
    )
    (row,) = rows_of(ruled)
    assert int(row["positives"]) + int(row["negatives"]) == 12
    assert set(row) - set(rows_of(without)[0]) == {"positives", "negatives", "share"}


def test_the_preview_says_where_a_moving_average_stays_at_what_it_began_with(folder: Path) -> None:
    (_, *usual), _ = preview(config_of(folder, "data.num_folds=2", "ema={decay: 0.2}"))
    (_, *slow), _ = preview(config_of(folder, "data.num_folds=2", "ema={decay: 0.999}"))
    assert not [line for line in usual if line.startswith("ema.decay")]
    (line,) = (line for line in slow if line.startswith("ema.decay"))
    steps, fits = int(line.split(" steps ")[0].split()[-1]), float(line.partition("; ")[2].split()[0])
    assert f"{0.999 ** (steps - 1):.0%} of the moving average" in line
    assert fits**steps < 0.2


def test_a_run_without_end_is_refused_before_anything_is_trained(folder: Path) -> None:
    with pytest.raises(CompetitionError, match=r"^trainer\.max_epochs: found -1, a run without end; expected .*$"):
        preview(config_of(folder, "data.num_folds=2", "trainer.max_epochs=-1"))


def test_overfitting_batches_is_refused_as_every_epoch_draws_anew() -> None:
    with pytest.raises(CompetitionError, match=r"trainer\.overfit_batches: .* `limit_train_batches`"):
        load_config([PROJECT / "configs" / f"{TASK}.yaml"], ["trainer.overfit_batches=1"])


@pytest.mark.parametrize("word", ["trainer.max_epochs=0", "trainer.max_steps=0", "trainer.limit_train_batches=0"])
def test_a_run_that_would_train_nothing_is_refused(folder: Path, word: str) -> None:
    with pytest.raises(CompetitionError, match="leave nothing to train; expected numbers over 0"):
        preview(config_of(folder, "data.num_folds=2", word))
