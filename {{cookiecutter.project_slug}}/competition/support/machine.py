"""What of this machine a process may use, cores, memory and GPUs, and how trainings share them. No torch.

A process is told its share by its environment: the GPUs it sees, and how many threads and readers of images it begins.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from competition.support.errors import CompetitionError

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
CORES, THREADS = "COMPETITION_CORES", "OMP_NUM_THREADS"  # the first is this project's own
MEMORY, GROUPS, OF_GROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
SECONDS = 60.0  # for nvidia-smi, which without a running daemon wakes every GPU up


@dataclass
class Gpus:
    """GPUs by the names that CUDA_VISIBLE_DEVICES has for them: those that are free are dealt out and come back."""

    names: Sequence[str]
    free: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.free = list(self.names)

    def take(self, number: int) -> list[str]:
        """Take some of the free ones, those first on which nobody else computes."""
        used = _gigabytes_in_use()
        first = sorted(self.free, key=lambda name: used.get(name, 0))[:number]
        taken = [name for name in self.free if name in first]  # neighbours are often wired to each other
        self.free = [name for name in self.free if name not in first]
        return taken

    def give_back(self, names: Sequence[str]) -> None:
        """Put back what was taken."""
        self.free = [name for name in self.names if name in self.free or name in names]


@dataclass(frozen=True)
class Share:
    """How many trainings go on at a time, and what each has: `devices` of the `gpus`, and its part of the cores."""

    parallel: int = 1
    devices: int = 1  # processes of a training, each with its GPU where there are GPUs to deal out
    gpus: Gpus = field(default_factory=lambda: Gpus([]))

    def among(self, trainings: int) -> "Share":
        """Return the share of each where no more trainings than these are left."""
        return replace(self, parallel=max(min(self.parallel, trainings), 1))

    def take(self) -> list[str]:
        """Take the GPUs of one training; none where there is nothing to choose."""
        return self.gpus.take(self.devices) if len(self.gpus.names) > self.devices else []

    def environment(self, gpus: Sequence[str]) -> dict[str, str]:
        """Return what tells a process its GPUs and its part of the cores; threads stay as the user has set them."""
        told: dict[str, str] = {}
        if gpus:
            told[VISIBLE] = ",".join(gpus)
            if VISIBLE not in os.environ:  # numbers as nvidia-smi has them; else as who set them means them
                told[ORDER] = "PCI_BUS_ID"
        if self.parallel > 1:
            cores = max(cores_here() // self.parallel, 1)
            told[CORES] = str(cores)
            if THREADS not in os.environ:
                told[THREADS] = str(max(cores // self.devices, 1))
        return told

    def __str__(self) -> str:
        """Say it in words."""
        of_each = f", each on {self.devices} of the GPUs {', '.join(self.gpus.names)}" if self.gpus.names else ""
        return f"{self.parallel} at a time{of_each}"


def share_machine(trainer: Mapping[str, Any], parallel: int | None, trainings: int) -> Share:
    """Return how trainings by a section `trainer:` share this machine; `parallel` None: as many as fit on its GPUs.

    On one GPU, and without any, that is one. Raises CompetitionError where more are asked for than fit.
    """
    devices = trainer.get("devices", "auto")
    asked = 1 if isinstance(devices, list) else number_of_devices(devices)
    if str(trainer.get("accelerator", "auto")) not in ("auto", "gpu", "cuda") or not (names := gpus_here()):
        return Share(parallel or 1, asked or 1).among(trainings)
    if isinstance(devices, list) or (isinstance(devices, str) and "," in devices):
        if (parallel or 1) > 1:
            raise CompetitionError(
                f"--parallel {parallel}: trainer.devices: found {devices}, GPUs by number, which every training would "
                f"take; expected how many each gets: devices=1, and {VISIBLE} for those that may be used"
            )
        return Share()
    asked = asked or len(names)
    fit = len(names) // asked
    if parallel is not None and parallel > max(fit, 1):
        here = f"{len(names)} GPU{'s' * (len(names) > 1)}" + f" of {VISIBLE}" * (VISIBLE in os.environ)
        raise CompetitionError(
            f"--parallel {parallel}: found {here}, on which {fit or 'no'} training{'s' * (fit != 1)} of "
            f"trainer.devices={devices} fit{'s' * (fit == 1)}; expected --parallel {max(fit, 1)}, or leave it out"
        )
    return Share(parallel or fit or 1, asked, Gpus(names)).among(trainings)


def number_of_devices(devices: Any) -> int:
    """Return how many devices `trainer.devices` says; 0 for all."""
    if isinstance(devices, list):
        return len(devices)
    return max(int(devices), 0) if str(devices).lstrip("-").isdigit() else 0


def gpus_here() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them, or would."""
    listed = _listed()
    given = os.environ.get(VISIBLE)
    if given is None or not listed:
        return listed

    def is_known(name: str) -> bool:
        return int(name) < len(listed) if name.isdigit() else name.startswith(("GPU-", "MIG-"))

    # As CUDA reads it: from the first that is none, as -1, the rest is hidden.
    return list(dict.fromkeys(takewhile(is_known, (name.strip() for name in given.split(",")))))


def _listed() -> list[str]:
    """Return all GPUs: numbers or, where one is cut into instances (MIG), the ids of those."""
    if shutil.which("nvidia-smi") is None:
        return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]
    gpus: list[tuple[str, list[str]]] = []
    for line in _ask("-L"):
        if found := re.match(r"GPU \d+: .*\(UUID: (.*)\)", line):
            gpus.append((found[1], []))
        elif gpus and (found := re.match(r"\s+MIG .*\(UUID: (.*)\)", line)):
            gpus[-1][1].append(found[1])
    if any(instances for _, instances in gpus):
        return [name for gpu, instances in gpus for name in instances or [gpu]]
    return [str(number) for number in range(len(gpus))]


def _gigabytes_in_use() -> dict[str, int]:
    """Return by number and by id how much memory of a GPU is in use; a driver's few MB are none."""
    used: dict[str, int] = {}
    for line in _ask("--query-gpu=index,uuid,memory.used", "--format=csv,noheader,nounits"):
        number, name, megabytes = (part.strip() for part in (line + ",,").split(",")[:3])
        used[number] = used[name] = int(megabytes) // 1024 if megabytes.isdigit() else 0
    return used


def _ask(*words: str) -> list[str]:
    try:
        done = subprocess.run(["nvidia-smi", *words], capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):  # there is no driver: no GPU can be used
        return []
    return done.stdout.splitlines()


def cores_here() -> int:
    """Return how many cores this process may use, which a scheduler or `run --parallel` may have limited."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get(CORES, "")
    return max(min(mine, int(share)), 1) if share.isdecimal() else mine


def memory_here() -> int:
    """Return how many bytes of memory Linux has left for this process, which a container or a scheduler may have
    limited."""
    found = re.search(r"^MemAvailable: +(\d+) kB", MEMORY.read_text(), re.MULTILINE)
    left = [int(found[1]) * 1024] if found else [0]
    for folder, most, used in _limits():
        with suppress(OSError, ValueError):  # it has no limit
            counted = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            # Pages of files that were read are given up where something else needs memory.
            given_up = int(counted.get("total_inactive_file", counted.get("inactive_file", 0)))
            left.append(int((folder / most).read_text()) - int((folder / used).read_text()) + given_up)
    return max(min(left), 0)


def _limits() -> Iterator[tuple[Path, str, str]]:
    """Yield each group that counts this process's memory, and the files that say how much it may have and has.

    A limit of a job is some groups above those of its steps and processes.
    """
    for line in GROUPS.read_text().splitlines() if GROUPS.is_file() else ():
        _, kinds, name = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        root = OF_GROUPS / "memory" if kinds else OF_GROUPS
        files = ("memory.limit_in_bytes", "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
        place = Path(name.lstrip("/"))
        for part in (place, *place.parents):
            yield root / part, *files
