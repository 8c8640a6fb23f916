"""A SLURM of one controller and two nodes of one core each on this machine, in a folder of its own, on loopback."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
SEARCHED = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
# A node's processes are a family of their own: with slurmd all end, though those of its steps leave no trace of the
# tests that began them.
ALL_END = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ports[0]}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=60
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=debug Nodes=node1,node2 Default=YES MaxTime=INFINITE
"""


def missing() -> list[str]:
    """Return which of SLURM's and munge's programs are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]


@contextmanager
def small_cluster(folder: Path) -> Generator[None]:
    """Run a SLURM that commands find by SLURM_CONF; end it, and what it runs, whatever happens."""
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(
            host=socket.gethostname().partition(".")[0],
            user=pwd.getpwuid(os.getuid()).pw_name,
            folder=folder,
            ports=free_ports(3),
        )
    )
    for name in ("state", "spool.node1", "spool.node2"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    at = {name: f"{folder}/munge.{name}" for name in ("socket", "pid", "log", "seed")}
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={at['socket']}"]
    munged += [f"--pid-file={at['pid']}", f"--log-file={at['log']}", f"--seed-file={at['seed']}"]
    with ExitStack() as started:
        started.enter_context(running(munged, folder))
        wait_for(lambda: Path(at["socket"]).exists(), "munged")
        started.enter_context(running(["slurmctld", "-D", "-f", str(config)], folder))
        # Only root may do that, and not in every container.
        is_allowed = subprocess.run([*ALL_END, "true"], capture_output=True, check=False).returncode == 0
        slurmd = [*(ALL_END if is_allowed else []), "slurmd", "-D", "-f", str(config)]
        for node in ("node1", "node2"):
            started.enter_context(running([*slurmd, "-N", node], folder))
        os.environ["SLURM_CONF"] = str(config)
        try:
            wait_for(lambda: said("sinfo", "--noheader", "--format=%D %t").strip() == "2 idle", "nodes")
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                end_all_jobs()
            del os.environ["SLURM_CONF"]


@contextmanager
def running(command: list[str], folder: Path) -> Generator[None]:
    """Run a daemon in the foreground; end it, by force where it takes its time."""
    environment = os.environ | {"PATH": SEARCHED}
    with (folder / f"{command[0]}.out").open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(2 if command[0] == "unshare" else 20)  # which waits for its child
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def program(name: str) -> str:
    """Return a program's path."""
    path = shutil.which(name, path=SEARCHED)
    assert path is not None, name
    return path


def end_all_jobs() -> None:
    """Cancel all jobs and wait for their end; raise TimeoutError where they do not."""
    said("scancel", f"--user={os.getuid()}")
    wait_for(lambda: queue() == "", "the end of all jobs")


def queue() -> str | None:
    """Return a line for each job that waits or runs; None where a busy SLURM does not answer."""
    command = [program("squeue"), "--noheader", "--array"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout if done.returncode == 0 else None


def said(name: str, *words: str) -> str:
    """Return what one of SLURM's commands says; an empty text where it fails."""
    done = subprocess.run([program(name), *words], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout


def free_ports(number: int) -> list[int]:
    """Return ports of loopback that nobody listens at."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [one.getsockname()[1] for one in sockets]


def wait_for(is_so: Callable[[], object], what: str, seconds: float = 300, pause: float = 0.5) -> None:
    """Wait until something is so, asking after each pause; raise TimeoutError where it does not become so."""
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(pause)
