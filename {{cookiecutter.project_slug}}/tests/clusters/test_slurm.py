"""`run --slurm` on a real SLURM: what its jobs do, what becomes of those that are stopped, what `runs` says of them."""

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from small_cluster import end_all_jobs, queue, said, wait_for
from tiny import PROJECT, TINY
from trainings import assert_ended_like
from warm import warm_python

from competition.clusters.job import TOLD, SlurmJob
from competition.clusters.slurm import jobs_in_words, parameters, sbatch_words
from competition.config.loading import load_config, task_names
from competition.support.errors import CompetitionError
from competition.support.optional_rooms import has_room
from competition.tasks.made_up_images import write_sample
from competition.training.checkpoint import load_checkpoint

Command = Callable[..., CompletedProcess[str]]

TASK = task_names()[0]
CONFIG = PROJECT / "configs" / f"{TASK}.yaml"
LONG = 1200  # seconds, on a busy machine


def of_config(*words: str) -> dict[str, Any]:
    return parameters(load_config([CONFIG], [*words]))


def test_what_sbatch_is_to_know_stands_behind_slurm_and_its_values_are_text() -> None:
    words = sbatch_words(["a.yaml", "fold=0", "trainer.devices=2", "partition=on", "time=4:00:00", "account=007"])
    assert words[:3] == ["a.yaml", "fold=0", "trainer.devices=2"]
    assert load_config([CONFIG], words[3:]).slurm == {"partition": "on", "time": "4:00:00", "account": "007"}


def test_a_time_in_a_config_is_no_number_to_the_base_of_60(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("slurm: {time: 4:00:00, begin: 16:00}\n")
    assert load_config([CONFIG, preset]).slurm == {"time": "4:00:00", "begin": "16:00"}


def test_a_job_asks_for_the_gpus_and_machines_that_the_trainer_has() -> None:
    gpus = ("trainer.accelerator=gpu", "trainer.devices=4")
    assert of_config(*gpus)["additional_parameters"] == {"requeue": True, "gpus-per-node": 4}
    assert of_config(*gpus, "slurm.gres=gpu:a100:4")["additional_parameters"] == {"requeue": True, "gres": "gpu:a100:4"}
    assert of_config("trainer.accelerator=cpu", "slurm.account=null")["additional_parameters"] == {"requeue": True}
    one, two = of_config(*gpus), of_config(*gpus, "trainer.num_nodes=2", "slurm.setup=[module load cuda]")
    assert (one["nodes"], one["ntasks_per_node"]) == (1, 1)
    assert (two["nodes"], two["ntasks_per_node"]) == (2, 4)
    assert two["setup"] == ["module load cuda", *one["setup"]]
    with pytest.raises(CompetitionError, match=r"trainer\.devices: found 'auto'; expected a number with --slurm"):
        of_config("trainer.devices=auto", "trainer.num_nodes=2")


def test_a_job_may_be_told_not_to_be_requeued() -> None:
    assert of_config("trainer.accelerator=cpu", "slurm.requeue=false")["additional_parameters"] == {}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that makes a program of SLURM's, which a machine without one lacks, and work in a folder."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return make


def test_what_was_done_without_its_job_is_not_missed(program: Callable[[str, str], None]) -> None:
    program("squeue", "exit 0")
    for name in ("fold0", "fold1", "slurm"):
        (Path("outputs/t") / name).mkdir(parents=True)
    Path("outputs/t/fold0/oof.npz").touch()
    os.utime("outputs/t/fold0/oof.npz", (0, 0))  # trained before, and for more epochs now
    Path("outputs/t/slurm/jobs.json").write_text('{"fold0": "1_0", "fold1": "1_1", "run": "2"}\n')
    assert [line.partition(" did not")[0] for line in jobs_in_words()] == ["t: fold0, fold1, run"]
    for made in ("fold0/oof.npz", "fold1/oof.npz"):
        Path("outputs/t", made).write_text("made by `competition run`, later")
        os.utime(Path("outputs/t", made), (2**32, 2**32))
    assert [line.partition(" did not")[0] for line in jobs_in_words()] == ["t: run"]
    Path("outputs/t/submission.csv").touch()
    os.utime("outputs/t/submission.csv", (2**32, 2**32))
    assert jobs_in_words() == []


def test_a_job_that_slurm_does_not_requeue_says_so_in_one_line(
    program: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program("scontrol", "echo 'Requested operation is presently disabled' >&2; exit 1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "competition.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    kept = {number: signal.getsignal(number) for number in (*TOLD, signal.SIGCONT)}
    try:
        with pytest.raises(SystemExit, match=r"fold0: stopped \(exit 3\) .*job 7 cannot wait again \(Requested oper"):
            SlurmJob("fold0", ["train"], tmp_path / "log", tmp_path / "latest.pt")()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def test_with_parallel_it_is_refused_in_one_line(command: Command) -> None:
    assert command("run", CONFIG, "--slurm", "--parallel", 2).stderr.startswith("--parallel 2: SLURM says how many")


def test_without_slurm_it_is_refused_in_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = command("run", CONFIG, "--slurm")
    assert done.returncode == 1
    assert done.stderr == (
        "--slurm: there is no sbatch here; start this on a machine of the cluster that has it, or without --slurm\n"
    )


class Project:
    """A folder with a competition, whose runs go to a SLURM."""

    def __init__(self, folder: Path, command: Command) -> None:
        self.folder, self.command = folder, command
        write_sample(TASK, folder / 'my "data"', size=20)
        self.words = [str(CONFIG), *TINY, "data.image_size=32", 'data.dir=my "data"', "trainer.max_epochs=12"]
        self.words += ["checkpoint.every_steps=1", "name=t", "fold=[0, 1]", "seed=[0, 1]"]

    def submit(self, *words: str) -> list[str]:
        """Hand the run to SLURM; return the ids of its jobs, that which follows the others last."""
        done = self.command("run", *self.words, *words, "--slurm", "partition=debug", "time=1:00:00")
        assert done.returncode == 0, done.stderr
        return re.findall(r"^.*: job (\d+(?:_\d+)?), which writes to", done.stdout, re.MULTILINE)

    def told(self) -> list[str]:
        """Return what `runs` says of jobs."""
        lines = self.command("runs").stdout.splitlines()
        return [line for line in lines if re.match(r"  [ts] \w+: job|[ts]: ", line)]

    def log(self, name: str) -> str:
        """Return what a training has said."""
        path = self.folder / "outputs" / "t" / name / "train.log"
        return path.read_text() if path.is_file() else ""

    def freeze(self, after: dict[str, int]) -> dict[str, int]:
        """Stop trainings in their midst, each as soon as it has saved a later step than that of `after`.

        Returns their processes, by name. Where SLURM ends a job, it lets its processes go on first.
        """
        frozen: dict[str, int] = {}

        def freeze_one() -> bool:
            for name, step in after.items():
                if name not in frozen and self.step(name) > step:
                    os.kill(self.process(name), signal.SIGTSTP)
                    wait_for(lambda name=name: self.stopped(name), "a stop", LONG, pause=0.02)
                    frozen[name] = self.stopped(name)[0]
            return len(frozen) == len(after)

        wait_for(freeze_one, "steps of trainings", LONG, pause=0.02)
        return frozen

    def stopped(self, name: str) -> list[int]:
        """Return the process of a training, which writes to its log, once it is stopped."""
        log, found = self.folder / "outputs" / "t" / name / "train.log", []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended
                if (process / "fd" / "1").readlink() == log and "\nState:\tT" in (process / "status").read_text():
                    found.append(int(process.name))
        return found

    def process(self, name: str) -> int:
        """Return the process of a training that SLURM knows, which stands for it."""
        fold, _, seed = name.removeprefix("fold").partition("_seed")
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_text().split("\0")
                is_here = (path.parent / "cwd").readlink() == self.folder
            except (OSError, UnicodeDecodeError):
                continue
            if is_here and "--resume" in words and f"fold={fold}" in words and f"seed={seed or 0}" in words:
                return int(path.parent.name)
        raise AssertionError(f"{name} does not run: {self.log(name)}")

    def step(self, name: str) -> int:
        """Return after how many steps a training was saved last."""
        path = self.folder / "outputs" / "t" / name / "latest.pt"
        return int(load_checkpoint(path)["global_step"]) if path.is_file() else 0

    def wait(self) -> None:
        """Wait until no job is left."""
        wait_for(lambda: queue() == "", "the end of all jobs", LONG)


def has_ended(trials: int, folder: Path) -> bool:
    """Return whether a sweep has so many trials, all with a score."""
    from competition.sweeps.study import State, Study

    states = [one.state for one in Study(folder, [], False, 0, 1).trials()]
    return states == [State.COMPLETE] * trials


def has_signal(process: int) -> bool:
    """Return whether a signal waits for a frozen process to go on."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return any(line.startswith("ShdPnd:") and int(line.split()[1], 16) for line in lines)


@pytest.fixture
def project_on_slurm(
    slurm: None, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    folder = tmp_path / "it's here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    # What a job starts is a fork of what has imported torch; the job itself is as SLURM starts it.
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n\nsys.executable = {warm_python()!r}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, PROJECT))))
    yield Project(folder, command)
    end_all_jobs()


def train_here(project: Project, fold: int) -> Path:
    """Train a fold without a break and without SLURM."""
    done = project.command("train", *project.words, "name=unbroken", f"fold={fold}", "seed=0")
    assert done.returncode == 0, done.stderr
    return project.folder / "outputs" / "unbroken" / f"fold{fold}"


@pytest.mark.slow
@pytest.mark.waits
def test_trainings_that_were_cancelled_requeued_or_out_of_time_end_as_unbroken_ones(project_on_slurm: Project) -> None:
    project = project_on_slurm
    jobs = project.submit()
    assert len(jobs) == 5
    project.freeze({"fold0": 0, "fold1": 0})
    assert project.told()[0].startswith(f"  t fold0: job {jobs[0]} running for ")
    assert project.told()[-1] == f"  t run: job {jobs[-1]} pending (Dependency)"
    again = project.command("run", *project.words, "--slurm")
    assert again.returncode == 1
    assert again.stderr.startswith("outputs/t: waits or runs already: fold0 (job "), again.stderr
    said("scontrol", "requeue", jobs[0])
    said("scancel", *jobs[1:4])  # one that runs and two that wait
    project.wait()
    for name in ("fold0", "fold1"):
        assert f"(SIGTERM); saved in outputs/t/{name}/latest.pt; go on with --resume" in project.log(name)
    [told] = project.told()
    assert told.startswith("t: fold1, fold0_seed1, fold1_seed1, run did not end (outputs/t/fold1/train.log: stopped")
    assert told.endswith("; the same `competition run --slurm` goes on")

    jobs = project.submit("seed=0")
    assert len(jobs) == 2
    frozen = project.freeze({"fold1": project.step("fold1")})
    said("scancel", "--signal=USR1", jobs[0])
    wait_for(lambda: has_signal(frozen["fold1"]), "SIGUSR1", LONG)
    os.kill(frozen["fold1"], signal.SIGCONT)
    submission = project.folder / "outputs/t/submission.csv"
    wait_for(lambda: submission.is_file() or queue() == "", "the submission", LONG)
    assert submission.is_file(), project.told()
    assert not any(line.startswith("t: ") for line in project.told())  # it makes a bundle and a report now
    assert "(SIGUSR1); saved in" in project.log("fold1")
    assert "fold0 is done already" in (project.folder / "outputs/t/run.log").read_text()
    for fold in (0, 1):
        assert_ended_like(project.folder / "outputs" / "t" / f"fold{fold}", train_here(project, fold))


@pytest.mark.slow
def test_a_training_that_fails_stops_what_was_to_follow_and_is_told_in_one_line(project_on_slurm: Project) -> None:
    project = project_on_slurm
    latest = project.folder / "outputs/t/fold1/latest.pt"
    latest.parent.mkdir(parents=True)
    latest.write_bytes(b"cut")
    jobs = project.submit("fold=1", "seed=0")
    assert len(jobs) == 2
    project.wait()
    assert not (project.folder / "outputs/t/run.log").exists()
    [told] = project.told()
    assert told.startswith(
        "t: fold1, run did not end (outputs/t/fold1/train.log: outputs/t/fold1/latest.pt: not a whole"
    )
    errors = (project.folder / f"outputs/t/slurm/{jobs[0]}_0_log.err").read_text()
    assert "Traceback" not in errors
    assert "what was to follow it is stopped" in errors


@pytest.mark.slow
def test_what_sbatch_refuses_is_told_in_one_line(project_on_slurm: Project) -> None:
    project = project_on_slurm
    shutil.rmtree(project.folder / "outputs", ignore_errors=True)
    done = project.command("run", *project.words, "--slurm", "partition=nowhere")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("--slurm: sbatch refuses it (")
    assert "invalid partition specified: nowhere" in line


@pytest.mark.slow
@pytest.mark.skipif(not has_room("sweeps"), reason="the room of sweeps was taken out")
def test_jobs_share_a_sweep_and_one_that_is_out_of_time_goes_on_with_its_trial(project_on_slurm: Project) -> None:
    pytest.importorskip("optuna")
    project, words = project_on_slurm, ["name=s", "fold=0", "seed=0", "trainer.max_epochs=3"]
    line = ["sweep", *project.words, *words, "optimizer.lr=log(1e-4, 1e-2)", "--trials", "3", "--parallel", "2"]
    done = project.command(*line, "--slurm", "partition=debug", "time=1:00:00")
    assert done.returncode == 0, done.stderr
    jobs = re.findall(
        r"^sweep\d: job (\d+_\d), which writes to outputs/sweeps/s/sweep\d\.log$", done.stdout, re.MULTILINE
    )
    assert len(jobs) == 2
    wait_for(lambda: any(project.folder.glob("outputs/s_t*/fold0/latest.pt")), "a training", LONG)
    assert any(line.startswith(f"  s sweep0: job {jobs[0]} ") for line in project.told())
    again = project.command(*line, "--slurm")
    assert again.stderr.startswith("outputs/sweeps/s: waits or runs already: sweep0 (job "), again.stderr
    said("scancel", "--signal=USR1", *jobs)
    project.wait()
    logs = [(project.folder / f"outputs/sweeps/s/sweep{at}.log").read_text() for at in (0, 1)]
    assert any("trials ended; the same line goes on where it was" in log for log in logs), logs
    assert has_ended(3, project.folder / "outputs/sweeps/s"), logs
    assert project.told() == []
    assert (project.folder / "outputs/sweeps/s/best.yaml").is_file()
