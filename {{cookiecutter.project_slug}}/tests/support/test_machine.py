"""What trainings that go on at the same time see of a machine: GPUs of their own, their part of the cores.

A program of the name nvidia-smi tells of GPUs that are not there; the processes are real and write down what they see.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from competition.support import machine as machine_module
from competition.support.errors import CompetitionError, StoppedError
from competition.support.machine import (
    CORES,
    ORDER,
    THREADS,
    VISIBLE,
    Share,
    cores_here,
    gpus_here,
    memory_here,
    share_machine,
)
from competition.support.processes import Crew, Job, run_jobs

GPU = {"accelerator": "gpu", "devices": 1}
Machine = Callable[..., None]

SEES = f"""
import json, os, sys, time
from pathlib import Path
seen = {{name: os.environ.get(name) for name in {(VISIBLE, ORDER, CORES, THREADS)!r}}}
Path(sys.argv[1]).write_text(json.dumps(seen | {{"began": time.time()}}))
for rest in sys.argv[2:]:
    time.sleep(float(rest))
Path(sys.argv[1]).write_text(json.dumps(seen | {{"began": json.loads(Path(sys.argv[1]).read_text())["began"],
                                                 "ended": time.time()}}))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder where `python -m competition NAME` writes down what it sees."""
    (tmp_path / "competition.py").write_text(SEES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name in (VISIBLE, ORDER, CORES, THREADS):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a function that says which GPUs the machine has: megabytes in use of each, lines of instances of it."""

    def has(*used: int, instances: dict[int, list[str]] | None = None) -> None:
        lines = []
        for gpu in range(len(used)):
            lines.append(f"GPU {gpu}: Some Card (UUID: GPU-{gpu}a)")
            lines += [f"  MIG 1g.5gb     Device  0: (UUID: {name})" for name in (instances or {}).get(gpu, [])]
        of_each = [f"{gpu}, GPU-{gpu}a, {one}" for gpu, one in enumerate(used)]
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        listed, asked = "\n".join(lines), "\n".join(of_each)
        program.write_text(f'#!/bin/sh\nif [ "$1" = -L ]; then echo "{listed}"; else echo "{asked}"; fi\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    return has


def jobs(*names: str, seconds: float = 0.5) -> list[Job]:
    return [Job(name, [f"{name}.json", str(seconds)], Path(f"{name}.log")) for name in names]


def seen(name: str) -> dict[str, str]:
    return json.loads(Path(f"{name}.json").read_text())


def test_each_training_sees_gpus_of_its_own_and_waits_for_free_ones(machine: Machine) -> None:
    machine(0, 0, 0, 0)
    share = share_machine(GPU | {"devices": 2}, None, 3)
    assert (share.parallel, str(share)) == (2, "2 at a time, each on 2 of the GPUs 0, 1, 2, 3")
    run_jobs(jobs("a", "b", "c"), share=share)
    a, b, c = map(seen, "abc")
    assert (a[VISIBLE], b[VISIBLE]) == ("0,1", "2,3")
    assert float(b["began"]) < float(a["ended"])
    before = [one for one in (a, b) if one[VISIBLE] == c[VISIBLE]]
    assert [float(one["ended"]) < float(c["began"]) for one in before] == [True]
    assert a[ORDER] == "PCI_BUS_ID"


def test_gpus_on_which_nobody_computes_are_dealt_out_first(machine: Machine) -> None:
    machine(40_000, 4, 12_000, 7)
    run_jobs(jobs("a"), share=share_machine(GPU, 1, 1))
    assert seen("a")[VISIBLE] == "1"
    taken = share_machine(GPU | {"devices": "3"}, None, 1).take()
    assert taken == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("2,3", ["2", "3"]), ("GPU-1a", ["GPU-1a"]), ("0,-1,2", ["0"]), ("0,9,1", ["0"]), ("", []), ("-1", []),
     ("NoDevFiles", []), ("1,1", ["1"])],
)  # fmt: skip
def test_only_the_users_own_gpus_are_dealt_out(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, given: str, expected: list[str]
) -> None:
    machine(0, 0, 0, 0)
    monkeypatch.setenv(VISIBLE, given)
    assert gpus_here() == expected
    share = share_machine(GPU, None, 9)
    assert share.parallel == max(len(expected), 1)
    told = share.environment(share.take())
    assert told.get(VISIBLE) == (expected[0] if len(expected) > 1 else None)
    assert ORDER not in told  # numbers stay as the user means them


def test_instances_of_a_gpu_are_dealt_out_by_their_ids(machine: Machine) -> None:
    machine(0, 0, instances={1: ["MIG-x", "MIG-y"]})
    assert gpus_here() == ["GPU-0a", "MIG-x", "MIG-y"]


@pytest.mark.parametrize(
    ("devices", "gpus", "expected"),
    [(1, 4, 4), (2, 5, 2), ("2", 4, 2), (-1, 4, 1), ("auto", 4, 1), (4, 2, 1), (1, 1, 1), (1, 0, 1), ([1], 4, 1)],
)
def test_as_many_trainings_go_on_as_fit(machine: Machine, devices: object, gpus: int, expected: int) -> None:
    machine(*[0] * gpus)
    assert share_machine(GPU | {"devices": devices}, None, 9).parallel == expected
    assert share_machine(GPU | {"devices": devices}, None, 1).parallel == 1
    assert share_machine({"accelerator": "cpu", "devices": devices}, None, 9).parallel == 1
    assert share_machine({"accelerator": "cpu", "devices": devices}, 3, 9).parallel == 3


@pytest.mark.parametrize(
    ("devices", "gpus", "parallel", "message"),
    [
        (1, 2, 3, "--parallel 3: found 2 GPUs, on which 2 trainings of trainer.devices=1 fit; expected --parallel 2"),
        (2, 3, 2, "--parallel 2: found 3 GPUs, on which 1 training of trainer.devices=2 fits; expected --parallel 1"),
        (1, 1, 2, "--parallel 2: found 1 GPU, on which 1 training"),
        ("auto", 2, 2, "1 training of trainer.devices=auto fits"),
        (3, 2, 2, "no trainings of trainer.devices=3 fit"),
        ([1], 2, 2, "trainer.devices: found [1], GPUs by number"),
        ("0,1", 2, 2, "trainer.devices: found 0,1, GPUs by number"),
    ],
)
def test_more_than_fit_are_refused_in_a_line(
    machine: Machine, devices: object, gpus: int, parallel: int, message: str
) -> None:
    machine(*[0] * gpus)
    with pytest.raises(CompetitionError) as refused:
        share_machine(GPU | {"devices": devices}, parallel, 9)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_training_that_is_killed_frees_its_gpu(machine: Machine) -> None:
    machine(0, 0)
    crew = Crew(share_machine(GPU, None, 9))
    first, _ = (crew.start(job, to_log=True) for job in jobs("a", "b", seconds=30))
    assert (first.gpus, crew.share.gpus.free, crew.has_room()) == (["0"], [], False)
    first.process.send_signal(signal.SIGKILL)
    assert [one.job.name for one in crew.wait()] == ["a"]
    assert crew.has_room()
    last = crew.start(jobs("c", seconds=0)[0], to_log=True)
    assert last.gpus == ["0"]
    last.process.wait()
    assert seen("c")[VISIBLE] == "0"


def test_trainings_share_cores_as_threads_and_readers_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    run_jobs(jobs("a", "b", seconds=0), share=Share(2))
    assert [seen(name)[CORES] for name in "ab"] == ["4", "4"]
    assert [seen(name)[THREADS] for name in "ab"] == ["4", "4"]
    assert Share(2, devices=2).environment([])[THREADS] == "2"  # two processes of 2 threads each
    assert Share(20).environment([])[CORES] == "1"
    assert Share(1).environment([]) == {}  # as without --parallel
    monkeypatch.setenv(THREADS, "3")
    assert THREADS not in Share(2).environment([])
    monkeypatch.setenv(CORES, "4")
    assert cores_here() == 4
    assert Share(2).environment([])[CORES] == "2"


def test_a_signal_is_passed_on_and_nothing_new_begins(folder: Path) -> None:
    (folder / "competition.py").write_text(
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "Path(sys.argv[1]).touch()\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(30)\n"
    )
    began = time.monotonic()
    with pytest.raises(StoppedError) as stopped:
        run_jobs(jobs("a", "b", "c"), share=Share(2))
    assert stopped.value.status == 128 + signal.SIGTERM
    assert time.monotonic() - began < 20
    assert not Path("c.json").exists()


def test_what_is_asked_to_stop_as_a_training_ends_well_goes_on_to_nothing(folder: Path) -> None:
    """Else what waits would be left out without a word, and the next stage begin."""
    (folder / "competition.py").write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(sys.argv[1], 'w').close()\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
    )
    for waiting in (("a", "b"), ("c",)):
        with pytest.raises(StoppedError) as stopped:
            run_jobs(jobs(*waiting))
        assert stopped.value.status == 128 + signal.SIGTERM
    assert [Path(f"{name}.json").exists() for name in "abc"] == [True, False, True]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_begins_as_somebody_asks_to_stop_is_stopped(number: signal.Signals) -> None:
    def ask() -> list[str]:
        os.kill(os.getpid(), number)
        return []

    job = Job("a", ["a.json", "30"], Path("a.log"), ask)
    began = time.monotonic()
    with pytest.raises(StoppedError):
        run_jobs([job])
    assert time.monotonic() - began < 25


@pytest.mark.parametrize(
    ("groups", "folder", "files"),
    [
        (
            "0::/system.slice/scope/job_7/step_0/task_0\n",
            "system.slice/scope/job_7",
            {"memory.max": "10000", "memory.current": "4000", "memory.stat": "file 3000\ninactive_file 1000\n"},
        ),
        (  # a container that sees its own group as the root
            "9:name=systemd:/docker/a\n4:cpu,memory:/docker/a\n",
            "memory",
            {
                "memory.limit_in_bytes": "10000",
                "memory.usage_in_bytes": "4000",
                "memory.stat": "inactive_file 7\ntotal_inactive_file 1000\n",
            },
        ),
    ],
)
def test_memory_is_what_a_job_or_a_container_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, folder: str, files: dict[str, str]
) -> None:
    assert memory_here() > 1 << 20
    (tmp_path / "groups").write_text(groups)
    (tmp_path / "cgroup" / folder).mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "cgroup" / folder / name).write_text(text)
    monkeypatch.setattr(machine_module, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine_module, "OF_GROUPS", tmp_path / "cgroup")
    assert memory_here() == 7000
