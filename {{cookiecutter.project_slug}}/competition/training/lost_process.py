"""When one of several processes dies: the others end with one line, neither in a hang nor with a traceback."""

import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Literal

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import LightningEnvironment
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
WATCH = "lost-process"


@contextmanager
def explaining_lost_process(work: Work) -> Generator[None]:
    """Turn what is thrown when another process is gone, of the group or one that reads images, into one line."""
    try:
        with explaining_lost_reader():
            yield
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


def _message(work: Work) -> str:
    return (
        f"process {getattr(rank_zero_only, 'rank', 0)}: another process of this {work} has ended; what it said stands "
        f"above, or the system killed it (out of memory?); {WAYS_ON[work]}"
    )
