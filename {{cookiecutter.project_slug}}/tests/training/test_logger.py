"""What a training tells: metrics.csv, metrics.png and other loggers."""

import csv
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.profilers import Profiler
from tiny import PROJECT, tiny_words
from trainings import begin, end, rows

from competition.config.loading import load_config, task_names
from competition.config.settings import Config
from competition.data.folds import make_folds, read_folds
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.training import logger
from competition.training.fold_data import FoldData
from competition.training.logger import FIRST_COLUMNS, MetricsCsv
from competition.training.module import CompetitionModule
from competition.training.trainer import build_trainer

Command = Callable[..., CompletedProcess[str]]

TASK = task_names()[0]
FOLD = Path("outputs", TASK, "fold0")
PACKAGES = ("tensorboard", "wandb", "mlflow")
WORDS = (str(PROJECT / "configs" / f"{TASK}.yaml"), *tiny_words(TASK), "trainer.max_epochs=2", "sampler.share=natural")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    write_sample(TASK, Path("data"), size=24)
    config = load_config([Path(WORDS[0])], list(WORDS[1:]))
    make_folds(config)
    return config


def fit(config: Config, *callbacks: pl.Callback) -> None:
    table = Task(TASK).table.read_table(config)
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    build_trainer(config, callbacks).fit(module, FoldData(config, table, read_folds(config, table)))


class LateMetric(pl.Callback):
    """A metric of the user's own that is first known in the second epoch."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            pl_module.log("val/late", 0.5)


def test_a_metric_that_comes_late_gets_a_column_that_earlier_rows_leave_empty(config: Config, tmp_path: Path) -> None:
    fit(config, MetricsCsv(tmp_path / "metrics.csv", config.metrics, plot=False), LateMetric())
    first, second = rows(tmp_path)
    assert (first["val/late"], second["val/late"]) == ("", "0.5")
    assert first["epoch"] == "1"
    assert float(first["val/loss"]) > 0


def test_an_epoch_without_validation_repeats_no_values_of_an_earlier_one(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config([Path(WORDS[0])], [*WORDS[1:], "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2"])
    fit(config, MetricsCsv(tmp_path / "metrics.csv", config.metrics, plot=False))
    first, second, third = rows(tmp_path)
    scored = ["val/loss", *(f"val/{name}" for name in config.metrics)]
    assert all(second[name] for name in scored)
    assert not any(first[name] or third[name] for name in scored)
    assert all(float(row["train/loss"]) > 0 for row in (first, second, third))
    assert ["val/loss" in line for line in capsys.readouterr().out.splitlines()] == [False, True, False]


class SlowValidation(pl.Callback):
    """Takes a minute by the clock of the logger."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = 0.0
        monkeypatch.setattr(logger.time, "perf_counter", lambda: self.clock)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.clock += 1.0

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.clock += 60.0


def test_samples_per_second_are_of_training_alone(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowValidation(monkeypatch)
    fit(config, MetricsCsv(tmp_path / "metrics.csv", config.metrics, plot=False), slow)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    assert [float(row["samples_per_second"]) for row in epochs] == [4.0, 4.0]  # batches of 4 images, a second each
    assert [float(row["seconds"]) for row in epochs] == [63.0, 63.0]


def test_a_torn_last_row_is_dropped_when_training_goes_on(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    whole = "".join(f"{epoch},{epoch},0.001\n" for epoch in range(1, 10))
    path.write_text(f"epoch,step,learning_rate\n{whole}1")  # what a full disk left of a row of epoch 10
    trainer = build_trainer(config, [])
    trainer.fit_loop.epoch_progress.current.completed = 9
    MetricsCsv(path, config.metrics, plot=False).on_train_start(trainer, pl.LightningModule())
    assert [row["epoch"] for row in rows(tmp_path)] == [str(epoch) for epoch in range(1, 10)]


@pytest.mark.slow
def test_metrics_csv_has_the_metrics_asked_for_and_the_plot_is_as_new(config: Config, command: Command) -> None:
    done = command("train", *WORDS, plot=True)
    assert done.returncode == 0, done.stderr
    header = (FOLD / "metrics.csv").read_text().splitlines()[0].split(",")
    assert header == [*FIRST_COLUMNS, "val/loss", *(f"val/{name}" for name in config.metrics)]
    assert (FOLD / "metrics.png").stat().st_mtime >= (FOLD / "metrics.csv").stat().st_mtime
    assert done.stderr == ""
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("epoch")] == ["1/2", "2/2"]


def test_a_profiler_says_what_it_has_measured(config: Config) -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    log = logging.getLogger("pytorch_lightning.profilers.profiler")
    log.addHandler(handler)
    trainer = build_trainer(load_config([Path(WORDS[0])], [*WORDS[1:], "trainer.profiler=simple"]), [])
    profiler: Profiler = getattr(trainer, "profiler")  # noqa: B009 - Lightning sets it without declaring it
    with profiler.profile("reading of tea leaves"):
        pass
    profiler.describe()
    log.removeHandler(handler)
    assert "reading of tea leaves" in "".join(said)


def test_validation_within_an_epoch_is_refused_with_another_way() -> None:
    with pytest.raises(CompetitionError, match=r"^.*trainer\.val_check_interval: .* `sampler\.num_draws`$"):
        load_config([Path(WORDS[0])], ["trainer.val_check_interval=0.25"])


@pytest.mark.parametrize("package", PACKAGES)
def test_a_logger_that_is_not_installed_says_how_to_install_it(package: str, config: Config, command: Command) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    done = command("train", *WORDS, f"logger.{package}=true")
    assert done.returncode == 1
    assert done.stderr == (
        f"logger.{package}: the package is not installed; install it (`uv sync --extra {package}` or "
        f"`pip install {package}`) or set logger.{package} to false\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "written"),
    [("tensorboard", "tensorboard/events*"), ("wandb", "wandb/offline-run*/*.wandb"), ("mlflow", "mlflow.db")],
)
def test_a_logger_that_is_installed_writes_once_into_the_folder_of_the_fold(
    package: str, written: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)
    monkeypatch.setenv("WANDB_MODE", "offline")
    two = ("trainer.devices=2", "trainer.strategy=ddp")  # of which the first one writes
    end(begin(PROJECT, Path.cwd(), *WORDS, *two, f"logger.{package}=true"), 0)
    (path,) = FOLD.glob(written)
    assert path.stat().st_size > 0
    assert {path.name for path in Path().iterdir()} == {"data", "outputs"}
