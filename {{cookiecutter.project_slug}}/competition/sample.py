"""`competition sample`: write a small made-up competition, to see the whole path before the real data is there."""

import os
import shutil
from pathlib import Path

from competition.errors import CompetitionError
from competition.task import Task


def write_sample(task: str, folder: Path, size: int, seed: int = 0) -> None:
    """Write a competition of `size` training and a quarter as many test images into an empty or new folder.

    Nothing is left behind if it is interrupted.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CompetitionError(f"{folder}: is not empty; move it away, or name another folder with --dir")
    if size < 20:
        raise CompetitionError(f"--size: found {size}; expected 20 or more images, or some classes would be missing")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        Task(task).made_up.make_competition(temporary, num_train=size, num_test=max(size // 4, 5), seed=seed)
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
