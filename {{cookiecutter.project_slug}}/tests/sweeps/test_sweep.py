"""Sweeps: what may be searched, who shares the trials, which are stopped, and how one goes on after `kill -9`.

Trainings are real processes that write metrics.csv as a training does, without learning anything; the last ones learn.
"""

import base64
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tiny import PROJECT, tiny_words
from warm import warm_python

from competition.config.loading import load_config, task_names
from competition.runs.ledger import ledger_path, read_ledger
from competition.support.errors import CompetitionError
from competition.sweeps.space import range_of, split_ranges
from competition.sweeps.sweep import with_usual
from competition.tasks.made_up_images import write_sample

pytest.importorskip("optuna")

Command = Callable[..., CompletedProcess[str]]
TASK = task_names()[0]
LR = "optimizer.lr=log(1e-4, 1e-1)"

# A training whose score grows by epoch to what its learning rate is worth; it goes on where it was stopped.
TRAINING = """
import csv, math, os, signal, sys, time
from pathlib import Path
from filelock import FileLock

words = dict(word.split("=", 1) for word in sys.argv if "=" in word)
folder = Path("outputs", words["name"], "fold" + words["fold"])
folder.mkdir(parents=True, exist_ok=True)
lock = FileLock(folder / ".lock")
lock.acquire(timeout=0)
with Path("seen.txt").open("a") as seen:
    seen.write(f"{words['name']} {os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getpid()} {words['optimizer.lr']}\\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
lr, path = float(words["optimizer.lr"]), folder / "metrics.csv"
if lr > float(os.environ.get("FAILS_ABOVE", "inf")):
    sys.exit("no such luck")
rows = max(len(path.read_text().splitlines()) - 1, 0) if path.is_file() else 0  # it may be empty
worth = 1 - abs(math.log10(lr) + 2.5) / 2
for epoch in range(rows + 1, 6):
    with path.open("a") as file:
        if epoch == 1:
            time.sleep(0.05)  # it is empty, and is looked at
            file.write("epoch,seconds,val/loss,val/METRIC\\n")
        file.write(f"{epoch},60,{1 - worth * epoch / 5},{worth * epoch / 5}\\n")
    time.sleep(float(os.environ.get("EPOCH", "0.02")))
(folder / "oof.npz").touch()
print("done")
"""

PROGRAM = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); from competition.__main__ import main; main()"


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Work in a folder with data, where `python -m competition train` only pretends; return the words of a sweep."""
    config = tmp_path / "configs" / f"{TASK}.yaml"
    config.parent.mkdir()
    shipped = PROJECT / "configs" / f"{TASK}.yaml"
    config.write_text(f"base: {os.path.relpath(shipped, config.parent)}\n")
    metric = load_config([shipped]).metrics[0]
    (tmp_path / "competition.py").write_text(TRAINING.replace("METRIC", metric))
    write_sample(TASK, tmp_path / "data", size=20)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("competition.sweeps.sweep.SECONDS", 0.02)
    return [f"configs/{TASK}.yaml", "name=s", "trainer.accelerator=cpu", "trainer.max_epochs=5", LR]


def start(words: list[str], **environment: str) -> subprocess.Popen[str]:
    """Begin a sweep in a process of its own."""
    command = [warm_python(), "-c", PROGRAM, "sweep", *words]
    return subprocess.Popen(
        command, env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def begun() -> list[list[str]]:
    """Return name, GPU, process and learning rate of each training that has begun, in order."""
    path = Path("seen.txt")
    return [line.split() for line in path.read_text().splitlines()] if path.is_file() else []


def states(name: str = "s") -> dict[int, str]:
    """Return by its number how each trial is, as the journal itself has it."""
    names = {0: "running", 1: "complete", 2: "pruned", 3: "failed"}
    found: dict[int, str] = {}
    for line in Path(f"outputs/sweeps/{name}/journal.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["op_code"] == 4:
            found[len(found)] = "running"
        elif entry["op_code"] == 6:
            found[entry["trial_id"]] = names[entry["state"]]
    return found


# -- what may be searched


def test_ranges_are_told_from_values() -> None:
    ranges, values = split_ranges(
        [LR, "a.b=int(2, 8)", "c=[64, x, null, [1, 2]]", "name=t", "fold=[0, 1]", "optimizer.lr=uniform(0, 1)"]
    )
    assert [(one.key, str(one)) for one in ranges] == [
        ("optimizer.lr", "uniform(0.0, 1.0)"),
        ("a.b", "int(2, 8)"),
        ("c", "[64, x, null, [1, 2]]"),
    ]
    assert values == ["name=t", "fold=[0, 1]"]
    found = range_of("d=['1', 'a b']")
    assert found
    assert found.ends() == ['d="1"', "d=a b"]  # a text stays one


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimizer.lr=log(0, 1)", "found 0 in log(a, b); expected numbers above 0"),
        ("optimizer.lr=log(1, .1)", "expected two numbers, the smaller first"),
        ("optimizer.lr=log(1)", "expected two numbers"),
        ("optimizer.lr=uniform(a, b)", "expected two numbers"),
        ("optimizer.lr=uniform(0, .inf)", "expected two numbers"),
        ("data.batch_size=int(1, 2.5)", "expected two whole numbers"),
        ("model.encoder=[]", "found no value to try"),
        ("model.encoder=[a", "not a YAML value"),
        ("name=[a, b]", "name has to be the same for all trials"),
        ("seed=int(0, 9)", "seed has to be the same for all trials"),
    ],
)
def test_a_range_that_cannot_be_is_one_line(word: str, message: str) -> None:
    with pytest.raises(CompetitionError) as refused:
        range_of(word)
    assert message in str(refused.value)
    assert str(refused.value).startswith(word)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["optimizer.lr=log(1e-3, 1)", "scheduler.name=[cosine, cosin]"], "(scheduler.name=cosin): scheduler.name"),
        (["ema.decay=uniform(0.5, 2)"], "(ema.decay=2.0): ema.decay"),
        (["optimizer.lr=1e-3"], "found no range to search"),
        (["optimizer.lr=lg(1, 2)"], "found no range to search"),
        (["fold=all"], "expected folds by number"),
        (["data.dir=nowhere"], "no data there"),
    ],
)
def test_what_no_trial_could_train_is_refused_before_the_first(
    words: list[str], command: Command, more: list[str], message: str
) -> None:
    done = command("sweep", *words, *more)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not Path("outputs").exists()


def test_without_optuna_a_line_says_what_to_install(
    words: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("competition.sweeps.s", "optuna"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = command("sweep", *words)
    assert done.returncode == 1
    assert done.stderr.startswith("sweep: the package optuna is not installed; install it (`uv sync --extra sweep`")
    assert command("folds", *words[:-1]).returncode == 0


# -- trials


@pytest.mark.slow
def test_a_sweep_finds_a_good_value_stops_hopeless_trials_and_writes_the_best_as_a_config(
    words: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCH", "0.1")
    Path("configs/more.yaml").write_text("optimizer: {weight_decay: 0.5}\n")
    done = command("sweep", words[0], "configs/more.yaml", *words[1:], "--trials", 10)
    assert done.returncode == 0, done.stderr
    found = states()
    assert len(found) == 10
    assert set(found.values()) == {"complete", "pruned"}
    assert list(found.values())[:5] == ["complete"] * 5
    folders = {number: Path(f"outputs/s_t{number}/fold0") for number in found}
    assert {number for number, folder in folders.items() if (folder / "oof.npz").exists()} == {
        number for number, state in found.items() if state == "complete"
    }
    assert min(len((folder / "metrics.csv").read_text().splitlines()) for folder in folders.values()) < 6
    best = load_config([Path("outputs/sweeps/s/best.yaml")])
    rates = {name: float(rate) for name, _, _, rate in begun()}
    assert best.optimizer.lr == min(rates.values(), key=lambda rate: abs(rate - 10**-2.5))
    assert (best.name, best.optimizer.weight_decay, best.trainer["max_epochs"], best.folds) == ("s_best", 0.5, 5, None)
    assert Path("outputs/sweeps/s/best.yaml").read_text().startswith(f"base: ../../../configs/{TASK}.yaml\n")
    assert len(set(rates.values())) == 10
    page = Path("outputs/sweep.html").read_text()
    assert all(f">s_t{number}<" in page for number in found)
    assert "stopped: hopeless" in page
    again = command("sweep", words[0], "configs/more.yaml", *words[1:], "--trials", 10, plot=True)
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    assert len(begun()) == 10
    plots = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", Path("outputs/sweep.html").read_text())
    assert plots
    assert all(b"<path" in base64.b64decode(plot) for plot in plots)
    other = command("sweep", words[0], *words[1:], "model.encoder=[a, b]")
    assert "this sweep was begun otherwise (ranges.model.encoder: None -> [a, b]" in other.stderr
    assert "optimizer.weight_decay: 0.5 -> 0.01" in other.stderr
    assert len(other.stderr.splitlines()) == 1
    metrics = load_config([Path(words[0])]).metrics[::-1]
    other = command("sweep", words[0], "configs/more.yaml", *words[1:], f"metrics={list(metrics)}")
    assert other.returncode == 1
    assert "begun otherwise (metrics: " in other.stderr  # scores of two kinds cannot be compared


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_with_the_trials_it_had(words: list[str], command: Command) -> None:
    words = [*words, "--parallel", "2", "--trials", "5"]
    first = start(words, EPOCH="0.3")
    wait_for(lambda: len(begun()) >= 2)
    first.kill()
    first.communicate()
    orphan = begun()[0]  # its training goes on without it; the other one is killed, too
    os.kill(int(begun()[1][2]), signal.SIGKILL)
    second = command("sweep", *words)
    assert second.returncode == 0, second.stderr
    assert states() == dict.fromkeys(range(5), "complete")
    names = [name for name, *_ in begun()]
    assert names.count(orphan[0]) == 1
    assert names.count(begun()[1][0]) == 2
    assert {rate for name, *_, rate in begun() if name == begun()[1][0]} == {begun()[1][3]}
    for number in range(5):
        with Path(f"outputs/s_t{number}/fold0/metrics.csv").open(newline="") as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5"]


def test_a_training_that_ends_while_it_is_looked_at_is_not_begun_again(
    words: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends_meanwhile(folder: Path) -> bool:
        folder.mkdir(parents=True)
        metric = load_config([Path(words[0])]).metrics[0]
        (folder / "metrics.csv").write_text(f"epoch,seconds,val/loss,val/{metric}\n1,60,0.5,0.5\n")
        (folder / "oof.npz").touch()
        return False

    monkeypatch.setattr("competition.sweeps.sweep._goes_on_elsewhere", ends_meanwhile)
    done = command("sweep", *words, "--trials", 1)
    assert done.returncode == 0, done.stderr
    assert states() == {0: "complete"}
    assert begun() == []


@pytest.mark.slow
def test_processes_share_a_sweep_and_end_with_as_many_trials_as_asked_for(words: list[str]) -> None:
    both = [start([*words, "--trials", "6"]) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(states()) == 6
    names, rates = [name for name, *_ in begun()], {rate for *_, rate in begun()}
    assert sorted(names) == [f"s_t{number}" for number in range(6)]
    assert len(rates) == 6
    assert all("trial " in out for out, _ in said)  # each had some


@pytest.mark.slow
def test_a_sweep_that_is_stopped_says_so_and_goes_on(words: list[str], command: Command) -> None:
    words = [*words, "--trials", "2"]
    for number in (signal.SIGTERM, signal.SIGINT):
        before = len(begun())
        process = start(words, EPOCH="1")
        wait_for(lambda before=before: len(begun()) > before)
        if number == signal.SIGINT:  # a terminal sends it to all
            os.kill(int(begun()[-1][2]), signal.SIGTERM)
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 128 + number, errors
        assert errors.splitlines() == ["stopped, with 0 of 2 trials ended; the same line goes on where it was"]
        assert states() == {0: "running"}
    done = command("sweep", *words)
    assert done.returncode == 0, done.stderr
    assert states() == {0: "complete", 1: "complete"}
    assert [name for name, *_ in begun()] == ["s_t0", "s_t0", "s_t0", "s_t1"]


@pytest.mark.slow
def test_trials_side_by_side_have_gpus_of_their_own(
    words: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Path("bin/nvidia-smi")
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "GPU 0: A (UUID: GPU-a)\\nGPU 1: A (UUID: GPU-b)\\n"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent.resolve()}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("EPOCH", "0.2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    done = command("sweep", *words, "trainer.accelerator=gpu", "--trials", 4)
    assert done.returncode == 0, done.stderr
    of_trial = {name: gpu for name, gpu, *_ in begun()}
    assert (of_trial["s_t0"], of_trial["s_t1"]) == ("0", "1")
    assert set(of_trial.values()) == {"0", "1"}
    assert command("sweep", *words, "trainer.accelerator=gpu", "--parallel", 3).returncode == 1


def test_a_trial_that_fails_is_no_end_but_a_start_where_all_fail_is(
    words: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS_ABOVE", "1e-2")
    done = command("sweep", *words, "--trials", 6)
    assert done.returncode == 0, done.stderr
    rates = {name: float(rate) for name, _, _, rate in begun()}
    assert {number for number, state in states().items() if state == "failed"} == {
        int(name.removeprefix("s_t")) for name, rate in rates.items() if rate > 1e-2
    }
    assert "exit 1: no such luck; see outputs/s_t" in Path("outputs/sweep.html").read_text()
    monkeypatch.setenv("FAILS_ABOVE", "0")
    done = command("sweep", *words, "name=f", "--trials", 6)
    assert done.returncode == 1
    assert done.stderr.startswith("the first 3 trials have all failed, the last one: exit 1: no such luck; see outputs")
    assert len(states("f")) == 3


def test_values_that_are_good_only_each_by_itself_fail_their_trial(words: list[str], command: Command) -> None:
    together = ["tta=[[], [scale1.5]]", "data.image_size=[[64, 64], [8192, 8192]]"]
    done = command("sweep", *words, *together, "--trials", 6)
    assert done.returncode == 0, done.stderr
    assert "has more than 67,108,864 pixels" in done.stdout
    assert set(states().values()) == {"complete", "failed"}


def test_a_value_that_changes_nothing_beside_the_others_fails_no_trial(words: list[str]) -> None:
    path, (_, *others) = Path(words[0]), words[:-1]
    asked = [*others, "scheduler.name=poly", "scheduler.hold=0.5", "scheduler.milestones=[0.1]", "scheduler.power=2"]
    assert set(load_config([path], asked).unused()) == {"scheduler.hold", "scheduler.milestones"}
    trained = load_config([path], with_usual([path], asked))
    assert not trained.unused()
    assert (trained.scheduler.power, trained.scheduler.hold) == (2, 0.7)


def test_a_torn_end_of_the_journal_is_cut_off_and_any_other_damage_told(words: list[str], command: Command) -> None:
    assert command("sweep", *words, "--trials", 1).returncode == 0
    journal = Path("outputs/sweeps/s/journal.jsonl")
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole.splitlines()[-1][:20])
    assert command("sweep", *words, "--trials", 2).returncode == 0
    assert states() == {0: "complete", 1: "complete"}
    journal.write_bytes(whole[:100] + whole[120:])
    done = command("sweep", *words, "--trials", 3)
    assert done.returncode == 1
    assert done.stderr.startswith("outputs/sweeps/s/journal.jsonl: damaged (")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_trials_that_train_are_runs_in_the_ledger(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", warm_python())
    write_sample(TASK, tmp_path / "data", size=20)
    words = [str(PROJECT / "configs" / f"{TASK}.yaml"), *tiny_words(TASK), "data.image_size=32", "name=s", LR]
    done = command("sweep", *words, "--trials", 2)
    assert done.returncode == 0, done.stderr
    lines = read_ledger(ledger_path())
    assert list(lines) == ["s_t0", "s_t1"]
    means = {run: float(line.mean) for run, line in lines.items()}
    [(best, score)] = re.findall(r"^1\. (\w+): \w+ ([\d.]+) ", done.stdout, re.MULTILINE)
    assert means[best] == pytest.approx(float(score), abs=1e-4)
    better = max if lines[best].better == "higher" else min
    assert means[best] == better(means.values())
    assert lines["s_t1"].parent == "s_t0"
    assert re.fullmatch(r"optimizer\.lr: \S+ -> \S+", lines["s_t1"].difference)
    assert load_config([Path("outputs/sweeps/s/best.yaml")]).data.image_size == (32, 32)
