"""When one of several processes dies: the others end with one line, neither in a hang nor with a traceback."""

import os
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from competition.errors import CompetitionError

SECONDS = 10.0  # between two looks at the parent


@contextmanager
def explaining_lost_process() -> Generator[None]:
    """Turn what the process group throws when another process is gone into one line."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in ("gloo", "nccl", "by peer", "tcpstore")):
            raise
        raise CompetitionError(_message()) from None


def watch_parent(trainer: pl.Trainer) -> None:
    """End this process, started by Lightning beside the first one, some seconds after that one has gone.

    The first one looks after those it started; they would wait for it as long as the group's time limit lets them.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if isinstance(environment, LightningEnvironment) and environment.local_rank() > 0:
        threading.Thread(target=_outlive_briefly, args=(os.getppid(), _message()), daemon=True).start()


def _outlive_briefly(parent: int, message: str) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS)
    time.sleep(SECONDS)  # time to end well, or to say more of what went wrong
    print(message, file=sys.stderr, flush=True)
    os._exit(1)


def _message() -> str:
    return (
        f"process {getattr(rank_zero_only, 'rank', 0)}: another process of this training has ended; what it said "
        "stands above, or the system killed it (out of memory?); the last latest.pt is whole: go on with --resume"
    )
