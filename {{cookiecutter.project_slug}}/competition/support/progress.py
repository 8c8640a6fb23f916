"""Progress bars: one kind, on standard error, for whatever takes longer than two seconds."""

import os
import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

QUIET = "COMPETITION_QUIET"  # set by `--quiet`; a variable of the environment reaches the processes of `run`, too
SECONDS = 2.0  # what is done sooner gets no bar
Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
    """Return the items, with a bar that says how far they are; without one where there is no terminal (CI, a log)."""
    return tqdm(items, what, total, delay=SECONDS, leave=False, disable=not has_bars())


def has_bars() -> bool:
    """Return whether bars are drawn: there is somebody to see them, who has not asked for quiet."""
    return sys.stderr.isatty() and not os.environ.get(QUIET)
