"""`--slurm`: jobs of a run or a sweep, by submitit; which wait, run, or failed.

A run is an array of trainings and a job that waits for them; a sweep an array of jobs that share its trials. Which jobs
there are is noted in the folder of either, where they write what they say, too. When they run is SLURM's affair.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from competition.clusters.job import SlurmJob
from competition.config.loading import known_keys
from competition.config.settings import Config
from competition.runs.folder import DONE, JOURNAL, LATEST, OOF, SUBMISSION, SWEEPS, TEST, is_finished
from competition.support.atomic_files import read_own_text, replacing
from competition.support.errors import CompetitionError
from competition.support.machine import number_of_devices
from competition.support.paths import here
from competition.support.processes import Job, last_line

FOLDER, JOBS = "slurm", "jobs.json"
HOW_TO_LOOK = "`competition runs` shows what waits and runs; scancel ends a job, and the same line goes on where it was"
SIGNAL = "USR1"  # which a training listens to; NCCL leaves it alone
# What submitit does, for which sbatch has no option, or that it would say twice.
OF_SUBMITIT = ("setup", "array_parallelism", "signal_delay_s", "srun_args", "job_name", "wckey")


def sbatch_words(words: Sequence[str]) -> list[str]:
    """Return words of `run --slurm` with `slurm.` before those that are for sbatch, as `partition=gpu`.

    Their values stay text: an account 007 is no number 7.
    """
    known = known_keys()

    def spell_out(word: str) -> str:
        key, equals, value = word.partition("=")
        is_ours = not equals or "." in key or key in known
        return word if is_ours else f"slurm.{key}={value if value in ('true', 'false') else json.dumps(value)}"

    return [spell_out(word) for word in words]


def hand_over(config: Config, jobs: Sequence[Job], last: Job) -> list[str]:
    """Hand trainings to SLURM as an array, and what is to follow as a job that waits for all of them to end well.

    Returns lines that say which jobs they are. Raises CompetitionError where SLURM refuses, or jobs of the same run
    wait or run.
    """
    noted = _noted(config.run_folder)
    trained = [_as_slurm_job(config, job, job.log.parent / LATEST) for job in jobs]
    ids = _submit(config, config.run_folder, trained)
    arrays = sorted({job.partition("_")[0] for job in ids})
    follow = {"dependency": f"afterok:{':'.join(arrays)}", "kill-on-invalid-dep": "yes"} if arrays else {}
    found = dict(zip([job.name for job in jobs], ids, strict=True))
    _note(noted, found)
    of_last = SlurmJob(last.name, last.words, last.log, last.log.parent / TEST)
    [its_id] = _submit(config, config.run_folder, [of_last], follow)
    _note(noted, found | {last.name: its_id})
    told = _in_words(jobs, ids)
    return [
        *told,
        f"tune, predict, submit: job {its_id}, which writes to {last.log}"
        + (", once all of these are done" if told else ""),
        HOW_TO_LOOK,
    ]


def hand_over_sweep(config: Config, folder: Path, words: Sequence[str], number: int) -> list[str]:
    """Hand jobs to SLURM that all go on with the sweep of a folder, by the words of its verb; say which they are.

    Errors as of `hand_over`. One that is stopped goes on later, with the trials that it or others left.
    """
    noted = _noted(folder)
    jobs = [SlurmJob(f"sweep{at}", list(words), folder / f"sweep{at}.log", folder / JOURNAL) for at in range(number)]
    ids = _submit(config, folder, jobs, {})
    _note(noted, dict(zip([job.name for job in jobs], ids, strict=True)))
    return [*_in_words(jobs, ids), HOW_TO_LOOK]


def _noted(folder: Path) -> Path:
    """Return where the jobs of a run or a sweep are noted; raise CompetitionError while some of them wait or run."""
    noted = folder / FOLDER / JOBS
    queue = _queue() if noted.is_file() else {}
    if queue is None:
        raise CompetitionError(
            "--slurm: squeue does not answer, so that nobody knows what runs already; try again later"
        )
    if there := [f"{name} (job {job})" for name, job in _read(noted).items() if job in queue]:
        raise CompetitionError(
            f"{folder}: waits or runs already: {', '.join(there)}; see `competition runs`, or end them with scancel"
        )
    return noted


def _in_words(jobs: Sequence[Job | SlurmJob], ids: Sequence[str]) -> list[str]:
    return [f"{one.name}: job {job}, which writes to {one.log}" for one, job in zip(jobs, ids, strict=True)]


def _as_slurm_job(config: Config, job: Job, saved: Path) -> SlurmJob:
    return SlurmJob(job.name, job.words, job.log, saved, on_many=_num_nodes(config) > 1)


def _submit(config: Config, of: Path, jobs: Sequence[SlurmJob], follow: Mapping[str, str] | None = None) -> list[str]:
    """Submit jobs of the folder of a run or a sweep, several as an array; return their ids."""
    if not jobs:
        return []
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = SIGNAL  # which it reads when it is imported
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    folder = of.absolute() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    try:
        executor = SlurmExecutor(folder)
        executor.update_parameters(**parameters(config, follow))
        with redirect_stderr(StringIO()), executor.batch():  # submitit would say, too, what is raised
            submitted = [executor.submit(job) for job in jobs]
        return [job.job_id for job in submitted]
    except (FailedJobError, FailedSubmissionError, OSError, subprocess.SubprocessError) as error:
        said = re.findall(r"sbatch: (?:error: )?(.+)", str(error))
        reason = "; ".join(said) or " ".join(str(error).split())[:300]
        raise CompetitionError(
            f"--slurm: sbatch refuses it ({reason}); its options are `slurm:` of the config, or behind --slurm, as "
            "partition=gpu"
        ) from None


def parameters(config: Config, follow: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what submitit is told of a job: the options of sbatch that the config has, and what the Trainer asks for.

    `follow` are options of a job that starts its trainings itself or has none, and is one process on one machine.
    """
    given = {key.replace("_", "-"): value for key, value in config.slurm.items() if value not in (None, False)}
    own: dict[str, Any] = {
        key: given.pop(key.replace("_", "-")) for key in OF_SUBMITIT if key.replace("_", "-") in given
    }
    setup = own.get("setup", [])
    own["setup"] = [*(setup if isinstance(setup, list) else [setup]), f"export SUBMITIT_PREEMPT_SIGNAL={SIGNAL}"]
    options: dict[str, Any] = {} if "requeue" in config.slurm else {"requeue": True}
    if (gpus := _num_gpus(config)) and not any(key.startswith(("gpus", "gres")) for key in given):
        options["gpus-per-node"] = gpus
    nodes, tasks = 1, 1
    if _num_nodes(config) > 1 and follow is None:
        nodes, tasks = _num_nodes(config), _processes_a_node(config)
    # Where it is told nothing, submitit has a time of five minutes; none is what the partition gives.
    ours = {"job_name": config.name, "time": None, "wckey": None, "nodes": nodes, "ntasks_per_node": tasks}
    return {**ours, **own, "additional_parameters": options | given | dict(follow or {})}


def _num_nodes(config: Config) -> int:
    return int(config.trainer.get("num_nodes", 1))


def _num_gpus(config: Config) -> int:
    """Return how many GPUs of a machine `trainer:` asks for; 0 where it leaves that open."""
    if str(config.trainer.get("accelerator", "auto")) not in ("gpu", "cuda"):
        return 0
    return number_of_devices(config.trainer.get("devices", "auto"))


def _processes_a_node(config: Config) -> int:
    devices = config.trainer.get("devices", "auto")
    if not str(devices).isdigit() or not int(devices):
        raise CompetitionError(
            f"trainer.devices: found {devices!r}; expected a number with --slurm and trainer.num_nodes="
            f"{_num_nodes(config)}: SLURM starts as many processes on each machine"
        )
    return int(devices)


def refuse_without_engine() -> None:
    """Raise CompetitionError where SLURM, or the package that speaks to it, is not there."""
    if find_spec("submitit") is None:
        raise CompetitionError("--slurm: needs submitit, which is not installed; `uv sync --extra slurm` installs it")
    if shutil.which("srun") is None or shutil.which("sbatch") is None:
        raise CompetitionError(
            "--slurm: there is no sbatch here; start this on a machine of the cluster that has it, or without --slurm"
        )


@dataclass(frozen=True)
class Queued:
    """A job in SLURM's queue: its state, how long it runs, why it waits."""

    state: str
    time: str
    reason: str

    def in_words(self) -> str:
        """Return `running for 1:30`, or `pending (Dependency)`."""
        return f"running for {self.time}" if self.state == "RUNNING" else f"{self.state.lower()} ({self.reason})"


def jobs_in_words() -> list[str]:
    """Return a line for each job of the runs and sweeps here that waits or runs, and one for each of which one did not
    end."""
    noted = {
        path: _read(path)
        for of in ("*", f"{SWEEPS}/*")
        for path in sorted(here().outputs.glob(f"{of}/{FOLDER}/{JOBS}"))
    }
    queue = _queue() if noted else None
    if queue is None:
        return []
    waiting = [
        f"  {path.parents[1].name} {name}: job {job} {queue[job].in_words()}"
        for path, jobs in noted.items()
        for name, job in jobs.items()
        if job in queue
    ]
    lost = [line for path, jobs in noted.items() for line in _lost(path.parents[1], jobs, queue)]
    return [*(["in SLURM's queue:", *waiting] if waiting else []), *lost]


def _lost(run: Path, jobs: Mapping[str, str], queue: Mapping[str, Queued]) -> list[str]:
    """Return a line where jobs of a run are gone that did not end well; the first says why."""
    gone = [name for name, job in jobs.items() if job not in queue and not _is_done(run, name, job)]
    if not gone:
        return []
    folder = run / gone[0]
    log = folder / "train.log" if folder.is_dir() else run / f"{gone[0]}.log"
    reason = f" ({log}: {last_line(log)})" if log.is_file() else ""
    verb = "sweep" if run.parent.name == SWEEPS else "run"
    return [f"{run.name}: {', '.join(gone)} did not end{reason}; the same `competition {verb} --slurm` goes on"]


def _is_done(run: Path, name: str, job: str) -> bool:
    """Return whether a job came to its end, for which submitit writes a result, or its work was done without it."""
    made = (run / name / OOF, run / name / DONE) if (run / name).is_dir() else (run / SUBMISSION,)
    is_unfinished = (run / name).is_dir() and not is_finished(run / name)
    handed_over = (run / FOLDER / JOBS).stat().st_mtime_ns
    is_made = not is_unfinished and any(one.is_file() and one.stat().st_mtime_ns > handed_over for one in made)
    return is_made or (run / FOLDER / f"{job}_0_result.pkl").is_file()


def _queue() -> dict[str, Queued] | None:
    """Return this user's jobs in the queue by id; None where there is no SLURM, or it does not answer."""
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%T|%M|%r"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.strip().split("|", 3) for line in done.stdout.splitlines() if line.count("|") >= 3]
    return {job: Queued(*rest) for job, *rest in rows}


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    way_on = "delete it: what SLURM runs is shown by squeue"
    try:
        jobs = json.loads(read_own_text(path, way_on))
    except json.JSONDecodeError as error:
        raise CompetitionError(f"{path}: damaged ({error}); {way_on}") from None
    return {str(name): str(job) for name, job in jobs.items()} if isinstance(jobs, dict) else {}


def _note(path: Path, jobs: Mapping[str, str]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(jobs, indent=1) + "\n", encoding="utf-8")
