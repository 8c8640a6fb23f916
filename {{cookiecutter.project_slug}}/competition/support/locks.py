"""A folder that one training, or one prediction, at a time writes to."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from competition.support.atomic_files import LEFTOVERS, delete_leftovers
from competition.support.errors import CompetitionError


@contextmanager
def holding(folder: Path, work: str, leftovers: Iterable[str] = LEFTOVERS) -> Generator[None]:
    """Hold a folder, and delete what killed processes left there.

    The first of several processes does, for all. The system lets go of the folder when it ends, however it ends. What
    was made for work that was then refused is taken away again. Raises CompetitionError where another process does the
    same `work`.
    """
    if getattr(rank_zero_only, "rank", 0):
        yield
        return
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise CompetitionError(f"{folder}: another {work} is writing here; wait for it or stop it") from None
    try:
        delete_leftovers(folder, leftovers)
        yield
    finally:
        _take_away_empty(new, Path(lock.lock_file))
        lock.release()


def _take_away_empty(folders: Iterable[Path], lock: Path) -> None:
    """Take folders away, the lowest first, that hold nothing but the lock."""
    with suppress(OSError):  # one that holds more; Windows, too, keeps a file that is held
        for folder in folders:
            if [*folder.iterdir()] == [lock]:
                lock.unlink()
            folder.rmdir()
