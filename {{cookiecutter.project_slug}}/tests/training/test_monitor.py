"""What is monitored: which way is better, and that a name nobody computes is refused before a training begins."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from competition.config.loading import load_config
from competition.tasks.contract import Task
from competition.training.monitor import better_mode

Command = Callable[..., CompletedProcess[str]]


def test_of_a_loss_the_lower_and_of_a_score_what_its_metric_says_is_better(config_file: Path) -> None:
    assert better_mode(load_config([config_file])) == "min"
    score = Task(load_config([config_file]).task).score
    for name in load_config([config_file]).metrics:
        monitored = load_config([config_file], [f"checkpoint.monitor=val/{name}"])
        assert better_mode(monitored) == ("min" if score.lower_is_better(name) else "max")
    assert better_mode(load_config([config_file], ["checkpoint.mode=max"])) == "max"


@pytest.mark.parametrize("verb", ["train", "check"])
def test_a_misspelt_monitor_is_refused_before_anything_is_trained(
    verb: str, words: list[str], command: Command
) -> None:
    done = command(verb, *words, "checkpoint.monitor=val/lose")
    assert done.returncode == 1
    assert done.stderr.startswith('checkpoint.monitor: found "val/lose"; expected val/loss or val/ and one of ')
    assert done.stderr.endswith("; did you mean val/loss?\n")
    assert not list(Path().rglob("fold0"))
