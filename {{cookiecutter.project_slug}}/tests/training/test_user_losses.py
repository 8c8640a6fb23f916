"""Files of the user's: losses and metrics beside a task's own, and the host's metric, which chooses the epoch."""

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from trainings import rows

from competition.config.loading import load_config, validate
from competition.config.settings import Config
from competition.data.dataset import Batch
from competition.data.folds import make_folds
from competition.files.item_source import train_source
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.tasks.user_metrics import evidence_of, scores_of
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule
from competition.training.monitor import better_mode

Command = Callable[..., CompletedProcess[str]]
NUMBERED = "import torch\ndef image_losses(outputs, batch):\n    return torch.arange(len(batch['image'])) + 1.0\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "my_loss.py").write_text(NUMBERED)
    return tmp_path / "my_loss.py"


def with_losses(config: Config, losses: dict[str, Any]) -> Config:
    values = config.model_dump(mode="json")
    return validate(values | {"loss": values["loss"] | losses}, {}, "t")


def losses_of(config: Config) -> tuple[torch.Tensor, Batch]:
    """Return the losses of a batch by a network that is always the same."""
    torch.manual_seed(0)
    table = Task(config.task).table.read_table(config)
    data = FoldData(config, table, torch.arange(len(table.image_ids)).numpy() % 2)
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes)).eval()
    batch = data.batch()
    return module.image_losses(batch).detach(), batch


def test_a_loss_of_the_users_own_is_added_by_its_weight(config: Config, file: Path) -> None:
    config = with_losses(config, dict(Task(config.task).loss.weights(config)))
    own, batch = losses_of(config)
    both, _ = losses_of(with_losses(config, {str(file): 0.5}))
    torch.testing.assert_close(both - own, (torch.arange(len(batch["image"])) + 1) / 2, rtol=0, atol=1e-5)


def test_it_may_be_the_only_loss(config: Config, file: Path) -> None:
    none = dict.fromkeys(Task(config.task).loss.weights(config), 0.0)
    alone = with_losses(config, none | {str(file): 2})
    assert alone == validate(alone.model_dump(mode="json"), {}, "again")
    losses, batch = losses_of(alone)
    assert losses.tolist() == [2 * (place + 1) for place in range(len(batch["image"]))]


BROKEN = {
    "return outputs": "returned ",
    "return outputs.nothing": "line 2: image_losses() failed: ",
    "return batch['image'].mean()": "returned a tensor (); expected a tensor (4,): one loss an image",
    "\n    return batch['nothing']": "line 3: image_losses() failed: KeyError: 'nothing'",
}


@pytest.mark.parametrize("body", BROKEN)
def test_what_is_wrong_in_a_file_is_one_line_that_names_it(body: str, config: Config, file: Path) -> None:
    broken = file.with_name(f"broken{list(BROKEN).index(body)}.py")
    broken.write_text(f"def image_losses(outputs, batch):\n    {body}\n")
    with pytest.raises(CompetitionError) as refused:
        losses_of(with_losses(config, {str(broken): 1}))
    assert str(refused.value).startswith(f"{broken}: ")
    assert BROKEN[body] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_told_before_a_run_is(words: list[str], tmp_path: Path, command: Command) -> None:
    (tmp_path / "mine.yaml").write_text(f"base: {words[0]}\nloss: {{gone.py: 1}}\n")
    make_folds(load_config([Path(words[0])], words[1:]))
    done = command("train", "mine.yaml", *words[1:])
    assert done.returncode == 1
    expected = "loss: gone.py: no such file; expected one that defines function image_losses(outputs, batch)\n"
    assert done.stderr == expected
    assert not list(tmp_path.rglob("config.yaml"))


# -- the host's metric


SAME = (
    "def score(solution, submission, row_id_column_name):\n"
    "    number = min(len(solution), len(submission))  # of rows, which may be items\n"
    "    true, found = (frame.astype(str).values[:number] for frame in (solution, submission))\n"
    "    return float((true == found).mean())\n"
)


def test_the_host_scores_every_epoch_where_it_is_monitored(words: list[str], tmp_path: Path, command: Command) -> None:
    (tmp_path / "host.py").write_text(SAME)
    make_folds(load_config([Path(words[0])], words[1:]))
    more = ("host_metric=host.py", "checkpoint.monitor=val/host_metric", "sampler.share=natural")
    done = command("train", *words, *more)
    assert done.returncode == 0, done.stderr
    (path,) = Path("outputs").rglob("metrics.csv")
    value = float(rows(path.parent)[-1]["val/host_metric"])
    assert f"host {value:.4f}" in done.stdout.splitlines()[-1]  # what the stored predictions of the fold score
    assert (path.parent / "best_score.pt").is_file()


def test_which_way_is_better_is_said_with_the_hosts_metric(config_file: Path) -> None:
    words = ["checkpoint.monitor=val/host_metric", "host_metric.file=host.py"]
    assert better_mode(load_config([config_file], words)) == "max"
    assert better_mode(load_config([config_file], [*words, "host_metric.lower_is_better=true"])) == "min"


def test_the_host_without_a_file_is_refused(words: list[str], command: Command) -> None:
    done = command("train", *words, "checkpoint.monitor=val/host_metric")
    assert done.returncode == 1
    expected = "checkpoint.monitor: found val/host_metric, but there is no host_metric: FILE to compute it\n"
    assert done.stderr == expected


# -- metrics


METRIC = """def images(answers, truths):
    assert len(answers) == len(truths)
    return len(truths)
def disagreement(answers, truths):
    return 0.25
disagreement.lower_is_better = True
def broken(answers, truths):
    return answers["nothing"]
"""


def test_a_metric_of_a_file_scores_every_epoch_the_fold_and_the_run_and_may_choose(
    words: list[str], tmp_path: Path, command: Command
) -> None:
    (tmp_path / "mine.py").write_text(METRIC)
    first = load_config([Path(words[0])], words[1:]).metrics[0]
    make_folds(load_config([Path(words[0])], words[1:]))
    more = (f"metrics=[{first}, mine.py:images, mine.py:disagreement]", "checkpoint.monitor=val/disagreement")
    done = command("train", *words, *more, "sampler.share=natural")
    assert done.returncode == 0, done.stderr
    (path,) = Path("outputs").rglob("metrics.csv")
    row = rows(path.parent)[-1]
    assert (float(row["val/images"]), float(row["val/disagreement"])) == (12, 0.25)
    assert "images 12.0000, disagreement 0.2500" in done.stdout.splitlines()[-1]  # of the stored predictions
    config = load_config([path.parent / "config.yaml"])
    assert config.metric_names == [first, "images", "disagreement"]
    assert better_mode(config) == "min"


METRICS_REFUSED = {
    "[mine.py:images]": "mine.py:images is the first, for which thresholds are tuned",
    "[{first}, mine.py:images, other.py:images]": "images stands twice",
    "[{first}, mine.py]": '"mine.py"',
}


@pytest.mark.parametrize("given", METRICS_REFUSED)
def test_a_list_of_metrics_that_cannot_be_is_one_line(given: str, config_file: Path) -> None:
    first = load_config([config_file]).metrics[0]
    with pytest.raises(CompetitionError) as refused:
        load_config([config_file], [f"metrics={given.format(first=first)}"])
    assert METRICS_REFUSED[given] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_wrong_in_a_file_of_metrics_is_one_line(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "broken_metrics.py"
    path.write_text(METRIC)
    values = config.model_dump(mode="json")
    for name, expected in {"broken": "broken failed: TypeError: ", "gone": "defines no function gone(answers"}.items():
        made = validate(values | {"metrics": [values["metrics"][0], f"{path}:{name}"]}, {}, "t")
        assert made == validate(made.model_dump(mode="json"), {}, "again")
        table = Task(config.task).table.read_table(config)
        blind = Task(config.task).score.constant_answers(table)[1]
        size = train_source(config, str(table.image_ids[0])).read_size()
        evidence = [evidence_of(made, blind, table.target(0, *size))]
        with pytest.raises(CompetitionError, match=re.escape(expected)):
            scores_of(made, evidence, len(table.classes))
