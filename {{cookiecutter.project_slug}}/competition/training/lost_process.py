"""When one of several processes dies, or a machine is cut off: the others end with one line, neither in a hang nor with
a traceback."""

import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Literal, NoReturn

import pytorch_lightning as pl
import torch.distributed
from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment
from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from competition.data.loaders import explaining_lost_reader
from competition.support.errors import CompetitionError

Work = Literal["training", "prediction"]
WAYS_ON: dict[Work, str] = {
    "training": "the last latest.pt is whole: go on with --resume",
    "prediction": "what was there before is whole: start `competition predict` again",
}
SECONDS = 10.0  # in which a process may end by itself, or say more of what went wrong
WATCH, MACHINES = "lost-process", "lost-machine"
# Machines tell each other that they are there, whatever their processes compute or wait for. Silence is counted in
# looks, not seconds: a job that was suspended, and its machines with it, goes on.
BEAT, MOST_SILENT = 2.0, 15  # seconds from one look to the next; looks
LEFT = 1 << 40  # of a machine's beats: it has ended well


@contextmanager
def explaining_lost_process(work: Work) -> Generator[None]:
    """Turn what is thrown when another process is gone, of the group or one that reads images, into one line."""
    try:
        with explaining_lost_reader():
            yield
        Machines.leave()
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in ("gloo", "nccl", "by peer", "tcpstore")):
            raise
        reason = (str(error).splitlines() or [""])[0][:200]
        raise CompetitionError(f"{_message(work)} ({reason})") from None


def watch_processes(trainer: pl.Trainer, work: Work) -> None:
    """End this process some seconds after one that Lightning started it beside has gone.

    A process that waits for another one in the group would do so as long as the group's time limit lets it; one that
    computes by itself would not even know. Whatever Trainers follow, a process watches once.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is not None and trainer.num_nodes > 1 and Machines.watched is None:
        Machines.watched = Machines(trainer, environment, work)
    if not isinstance(environment, LightningEnvironment) or any(t.name == WATCH for t in threading.enumerate()):
        return
    parent, launcher = os.getppid(), trainer.strategy.launcher

    def first_has_gone() -> bool:
        return os.getppid() != parent

    def other_has_failed() -> bool:
        _disarm_observer()
        return any(process.poll() for process in getattr(launcher, "procs", []))

    is_lost = first_has_gone if environment.local_rank() > 0 else other_has_failed
    threading.Thread(target=_outlive_briefly, args=(is_lost, _message(work)), name=WATCH, daemon=True).start()


def _disarm_observer() -> None:
    """Leave Lightning's own watch nothing to look at: it would kill this process before it can say why.

    This is the one place that uses private names of Lightning, which has no public way to turn its watch off.
    """
    for thread in threading.enumerate():
        if isinstance(thread, _ChildProcessObserver):
            thread._child_processes = []


def _outlive_briefly(is_lost: Callable[[], Any], message: str) -> None:
    while not is_lost():
        time.sleep(1)
    time.sleep(SECONDS)
    print(message, file=sys.stderr, flush=True)
    os._exit(1)


class Machines:
    """Ends this process some time after another machine has gone silent.

    Without it a process would wait in the midst of a step as long as the group's time limit lets it, half an hour by
    gloo, as a cut network closes no connection.
    """

    watched: ClassVar["Machines | None"] = None

    def __init__(self, trainer: pl.Trainer, environment: ClusterEnvironment, work: Work) -> None:
        self._environment, self._work = environment, work
        self._here, self._is_first = trainer.node_rank, environment.local_rank() == 0
        # For how many looks; none that was not heard of yet, or has ended well, is missed.
        self._silent = dict.fromkeys(set(range(trainer.num_nodes)) - {self._here}, -LEFT)
        self._has_left = threading.Event()
        self._threads = [threading.Thread(target=one, name=MACHINES, daemon=True) for one in (self._beat, self._look)]
        for thread in self._threads:
            thread.start()

    @classmethod
    def leave(cls) -> None:
        """Tell the other machines that this one's work is done."""
        if cls.watched is not None:
            cls.watched._has_left.set()
            for thread in cls.watched._threads:
                thread.join(5 * BEAT)  # the network may be gone by now
            cls.watched = None

    def _beat(self) -> None:
        """Say that this machine is there, and note which others have said so; in vain where the network is cut."""
        with suppress(RuntimeError):  # the machine of the first process is gone, and with it what is said
            if self._wait_for_group():
                self._beat_until_left()

    def _beat_until_left(self) -> None:
        store, heard = self._connect(), dict.fromkeys(self._silent, 0)
        while not self._has_left.wait(BEAT):
            if self._is_first:
                store.add(_beats_of(self._here), 1)
            for machine in self._silent:
                beats = store.add(_beats_of(machine), 0)
                if beats >= LEFT:
                    self._silent[machine] = -LEFT
                elif beats != heard[machine]:
                    heard[machine], self._silent[machine] = beats, 0
        if self._is_first:
            store.add(_beats_of(self._here), LEFT)

    def _wait_for_group(self) -> bool:
        while not torch.distributed.is_initialized():
            if self._has_left.wait(BEAT):
                return False
        return True

    def _connect(self) -> torch.distributed.TCPStore:
        """Return a connection of this thread's own to the store by which the processes found each other."""
        address, port = self._environment.main_address, self._environment.main_port
        return torch.distributed.TCPStore(address, port, is_master=False, wait_for_workers=False)

    def _look(self) -> None:
        if not self._wait_for_group():
            return
        while not self._has_left.wait(BEAT):
            for machine in self._silent:
                self._silent[machine] += 1
                if self._silent[machine] > MOST_SILENT:
                    self._end(machine)

    def _end(self, machine: int) -> NoReturn:
        print(
            f"process {getattr(rank_zero_only, 'rank', 0)}: nothing was heard of machine {machine} for "
            f"{MOST_SILENT * BEAT:g} seconds: it has ended, or the network to it is cut; {WAYS_ON[self._work]}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)


def _beats_of(machine: int) -> str:
    return f"competition/beats of machine {machine}"


def _message(work: Work) -> str:
    return (
        f"process {getattr(rank_zero_only, 'rank', 0)}: another process of this {work} has ended; what it said stands "
        f"above, or the system killed it (out of memory?); {WAYS_ON[work]}"
    )
