"""`predict --estimate`: how long hidden images will take by every network and view, and what to leave out of them."""

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from competition.config.loading import task_names
from competition.prediction.stored import TOLERANCE, Predictions
from competition.runs.folder import Run
from competition.scoring.timed_trial import Trial
from competition.tasks.contract import Task

Command = Callable[..., CompletedProcess[str]]
pytestmark = pytest.mark.slow  # all need runs with networks and predictions
one_task = pytest.mark.parametrize("task", task_names()[:1], indirect=True)  # the same for all


def test_every_network_and_view_is_timed_and_what_does_not_fit_is_told(
    runs: Path, command: Command, tmp_path: Path
) -> None:
    assert command("tune", "t").returncode == 0
    done = command("predict", "t", "--estimate", "inference.hidden_images=100000", "inference.limit_hours=0.001")
    assert done.returncode == 0, done.stderr
    assert "100000 images" in done.stdout
    assert "does not fit into inference.limit_hours: 0.001" in done.stdout
    assert re.search(r"view hflip: .* x 2 networks = .* h, worth [+-]0\.\d+", done.stdout)
    assert "drop the view hflip first" in done.stdout
    assert re.search(r"a training less saves \S+ h\n", done.stdout)  # no fold is named: each has images of its own
    host, undefined = tmp_path / "host.py", tmp_path / "undefined.py"
    host.write_text("def score(solution, submission, row_id_column_name):\n    return 0.25\n")
    done = command("predict", "t", "--estimate", f"host_metric={host}")
    assert "fits into" in done.stdout
    assert "host of these images: 0.2500" in done.stdout
    assert re.search(r"view hflip: .* worth \+0\.0000", done.stdout)
    undefined.write_text("def score(solution, submission, row_id_column_name):\n    raise ValueError('one class')\n")
    done = command("predict", "t", "--estimate", f"host_metric={undefined}")
    assert "no score of these images: " in done.stdout
    assert "fits into" in done.stdout


@one_task
def test_only_what_is_not_on_is_advised_to_compute_faster(runs: Path, command: Command) -> None:
    half, last = "inference.precision=bf16-mixed", "inference.channels_last=true"
    slow = ("predict", "t", "--estimate", "inference.hidden_images=100000", "inference.limit_hours=0.001")
    advice = [
        command(*slow, *on).stdout.partition("or compute faster: ")[2] for on in ([], [half], [last], [half, last])
    ]
    assert advice == [f"{half} (if this CPU has bf16), {last}\n", f"{last}\n", f"{half} (if this CPU has bf16)\n", ""]


def test_a_blend_takes_the_time_of_all_its_runs_and_each_is_worth_something(
    runs: Path, command: Command, task: str
) -> None:
    assert command("submit", "t", "u", "--weights", "3,1", "--name", "both").returncode == 0
    words = ["inference.hidden_images=1000000", "inference.limit_hours=0.001"]
    in_half = task == task_names()[0]  # which takes half a minute for masks where the CPU has no bf16
    words += ["inference.precision=bf16-mixed"] if in_half else []
    done = command("predict", "both", "--estimate", *words)
    assert done.returncode == 0, done.stderr
    each = [float(hours) for hours in re.findall(r"run [tu]: (\S+) h, worth [+-]", done.stdout)]
    views = [float(hours) for hours in re.findall(r"view \w+ of [tu]: .* x 2 networks = (\S+) h,", done.stdout)]
    whole = re.search(r"1000000 images: (\S+) h; does not fit", done.stdout)
    assert whole is not None
    assert (len(each), len(views)) == (2, 4)
    assert sum(views) < sum(each) < float(whole[1])
    assert re.search(r"drop the (view hflip of [tu]|run [tu]) first: it saves \S+ h", done.stdout)
    assert ("in precision 32, " in done.stdout) == in_half  # overrides hold for the runs, too


def test_half_precision_is_compared_with_that_of_training_also_when_the_run_was_predicted_in_it(
    runs: Path, command: Command, tmp_path: Path
) -> None:
    before = re.search(r"of these images: (\S+)\n", command("predict", "t", "--estimate").stdout)
    assert before is not None
    assert command("predict", "t", "inference.precision=bf16-mixed", "inference.channels_last=true").returncode == 0
    done = command("predict", "t", "--estimate")
    assert re.search(
        rf"of these images: {before[1]} in precision 32, \S+ in precision bf16-mixed, channels_last\n", done.stdout
    )
    run = Run.open("t")
    [tried] = Trial(run, [run], Task(run.config.task).table.read_table(run.config), tmp_path / "trial", 2).tried
    exact, now = (Predictions(each["fold0"][0] / "plain.npz")[0] for each in (tried.exact, tried.folders))
    assert 0 < Task(run.config.task).decode.difference(now, exact) < TOLERANCE
