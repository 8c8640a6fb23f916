"""`competition runs` as it is shown: order, comparison, the plot, and which two to hand in."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from competition.comparison.compare import correlation
from competition.config.loading import task_names
from competition.data.dataset import ImageDataset
from competition.prediction.predict import predict_images
from competition.runs.folder import POSTPROCESS, SUBMISSION, TEST, Run
from competition.runs.ledger import Line, change_ledger, ledger_path
from competition.scoring.tune import OWN
from competition.tasks.contract import Task

Command = Callable[..., CompletedProcess[str]]


def enter(*lines: Line) -> None:
    """Write lines into the ledger."""
    change_ledger(ledger_path(), lambda known: known.update({line.run: line for line in lines}))


def scored(run: str, *scores: float, **more: str) -> Line:
    words = " ".join(f"{fold}={score}" for fold, score in enumerate(scores))
    known = {"metric": "dice", "better": "higher", "folds_csv": "f", "thresholds": "cross-fitted"}
    mean, std = f"{np.mean(scores):.6f}", f"{np.std(scores, ddof=min(1, len(scores) - 1)):.6f}"
    return replace(Line(run), **{**known, "scores": words, "mean": mean, "std": std, **more})


def order(shown: str, *names: str) -> list[str]:
    """Return names in the order in which they begin a row."""
    rows = [line.split()[0] for line in shown.splitlines() if line.strip()]
    return [row for row in rows if row in names]


def test_the_best_run_comes_first_whatever_is_better(command: Command) -> None:
    enter(
        scored("a", 0.7, 0.8), scored("b", 0.8, 0.9), Line("c", metric="dice", better="higher"), scored("d", 0.1, 0.2)
    )
    enter(*(scored(run, one, one, metric="loss", better="lower") for run, one in (("x", 0.5), ("y", 0.4))))
    done = command("runs")
    assert done.returncode == 0, done.stderr
    assert order(done.stdout, *"abcdxy") == [*"badc", *"yx"]
    assert "0.8500 ± 0.0707" in done.stdout
    assert not Path("outputs/cv_public.png").exists()


def test_no_run_is_no_fault_and_too_many_are(command: Command) -> None:
    assert command("runs").stdout == "no run yet; outputs/runs.csv begins with the first training\n"
    enter(scored("a", 0.7, 0.8))
    for words in (["a", "a", "a"], ["--public", "1"], ["a", "--pick"]):
        done = command("runs", *words)
        assert done.returncode == 1
        assert done.stderr.startswith("runs: found ")
    assert command("runs", "b", "a").stderr == "outputs/runs.csv: has no run 'b'; runs there: a\n"


def test_two_runs_are_compared_fold_by_fold(command: Command) -> None:
    enter(
        scored("a", 0.80, 0.82, 0.78, 0.81, 0.79, difference="seed: 0 -> 1"), scored("b", 0.82, 0.85, 0.79, 0.84, 0.81)
    )
    shown = command("runs", "a", "b").stdout
    assert "a: the shipped config but for seed: 0 -> 1" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["0", "0.8000", "0.8200", "+0.0200"] in rows
    assert ["1", "0.8200", "0.8500", "+0.0300"] in rows
    assert "b is better than a by 0.0220 dice (standard error 0.0037), on 5 of 5 folds: larger than fold noise" in shown


def test_tuned_thresholds_are_no_difference_of_configs(
    untrained: Path, command: Command, tmp_path: Path, other_decode: dict[str, Any]
) -> None:
    for run in "ab":
        shutil.copytree(untrained / "t", tmp_path / "outputs" / run)
    (tmp_path / "outputs/b" / POSTPROCESS).write_text(yaml.safe_dump({"decode": other_decode}))
    enter(scored("a", 0.80, 0.82), scored("b", 0.82, 0.85))
    assert command("runs", "a", "b").stdout.startswith("config of a -> b:\n  the same config\n")


def test_the_score_of_thresholds_that_tuning_rejected_is_not_shown(command: Command) -> None:
    enter(
        scored("kept", 0.7, 0.8, cross_fitted="0.7654"),
        scored("rejected", 0.7, 0.8, cross_fitted="0.6543", thresholds=OWN),
        scored("single", 0.7, tuned="0.5432", thresholds=OWN),
    )
    shown = command("runs").stdout
    assert "0.7654" in shown
    assert "0.6543" not in shown
    assert "0.5432" not in shown


def test_two_public_scores_are_drawn(command: Command) -> None:
    enter(scored("a$_b$", 0.7, 0.8, public_score="0.7"))
    assert "cv_public" not in command("runs").stdout
    enter(scored("b", 0.8, 0.9, public_score="0.75"), scored("c", 0.5, 0.6, metric="iou", public_score="0.6"))
    assert "out of fold against public: outputs/cv_public.png" in command("runs").stdout
    assert Path("outputs/cv_public.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def runs(untrained: Path, command: Command, tmp_path: Path) -> Path:
    """Make runs a, b like it, and c and d of another network, with test predictions and a submission each."""
    outputs = tmp_path / "outputs"
    for run in "abcd":
        shutil.copytree(untrained / "t", outputs / run)
        (outputs / run / SUBMISSION).touch()
    opened = Run.open("a")
    task = Task(opened.config.task)
    classes = task.table.read_table(opened.config).classes
    ids = task.submission.read_test_ids(opened.config, classes)
    for seed, run in enumerate("ac"):
        torch.manual_seed(seed)
        network = task.model.build_network(opened.config, len(classes)).eval()
        predict_images(opened.config, [network], ImageDataset(opened.config, ids), outputs / run / TEST, classes)
    shutil.copy(outputs / "a" / TEST, outputs / "b" / TEST)
    shutil.copy(outputs / "c" / TEST, outputs / "d" / TEST)
    return outputs


@pytest.mark.slow
def test_the_best_and_the_least_alike_of_the_good_are_picked(runs: Path, command: Command) -> None:
    enter(
        scored("a", 0.80, 0.82, 0.78),
        scored("b", 0.79, 0.82, 0.77),
        scored("c", 0.78, 0.83, 0.77),
        scored("d", 0.50, 0.52, 0.48),
        scored("e", 0.90, 0.90, 0.90),
        scored("f", 0.97, 0.98, 0.96, folds_csv="g"),
    )
    assert correlation("a", "b") == pytest.approx(1)
    alike = correlation("a", "c")
    assert alike is not None
    assert alike < 0.999
    enter(scored("luck", 0.99))
    for run in ("f", "luck"):
        shutil.copytree(runs / "b", runs / run)
    done = command("runs", "--pick")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "1. a: the best out of fold (dice 0.8000 ± 0.0200, cross-fitted)"
    assert lines[2].startswith("2. c: as good but for fold noise (-0.0067, standard error 0.0088, 3 folds)")
    assert f"correlate {alike:.3f} with those of a" in lines[2]
    assert lines[4] == "  also good, but more alike: b 1.000"
    assert lines[5] == "  not d: worse than a by 0.3000, which is more than fold noise"
    assert lines[6] == "  not e: its folder was deleted"
    assert lines[7].startswith("  not f: they were trained with different folds.csv")
    assert lines[8].startswith("  not luck: they have 1 fold in common")


@pytest.mark.slow
def test_with_two_folds_the_next_best_is_picked_and_not_the_least_alike(runs: Path, command: Command) -> None:
    enter(scored("a", 0.80, 0.82), scored("b", 0.79, 0.82), scored("c", 0.50, 0.62))
    lines = command("runs", "--pick").stdout.splitlines()
    told = (
        "2. b: the next best out of fold (-0.0050); 2 folds are too few to tell which are as good but for fold noise."
    )
    assert lines[2].startswith(told)
    assert lines[4] == "  not so good: c -0.2500"
    enter(scored("a", 0.80, 0.82, 0.78), scored("c", 0.79, 0.83, 0.77))  # more folds tell more of c than two of b
    lines = command("runs", "--pick").stdout.splitlines()
    assert lines[2].startswith("2. c: as good but for fold noise")
    assert "  not b: 2 folds in common are too few" in lines


def test_where_nothing_can_be_handed_in_it_is_said_what_is_missing(command: Command) -> None:
    enter(scored("a", 0.8, 0.9), Line("b"), scored("c~1", 0.8, 0.9))
    for run in "ab":
        Path("outputs", run).mkdir()
    done = command("runs", "--pick")
    assert (done.returncode, done.stderr) == (
        1,
        "no run can be picked yet (a: has no test.npz; `competition predict a`; b: has no cross-validated score; "
        "`competition tune b`)\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", task_names()[:1], indirect=True)  # the same for all
def test_runs_are_shown_without_torch(runs: Path, project: Path, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom competition.comparison.runs_table import runs\n"
        "runs([], public=None, pick_two=False)\nruns(['a', 'b'], public=None, pick_two=False)\n"
        "assert not {'torch', 'pytorch_lightning'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(project)}
    call = [sys.executable, "-c", script]
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert order(done.stdout, *"abcd") == [*"abcd"]  # runs that were trained before there was a ledger
