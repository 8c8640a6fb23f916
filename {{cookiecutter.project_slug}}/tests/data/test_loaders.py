"""When the processes that read images are started."""

import threading
from typing import Any

import pytest
from torch.utils.data import Dataset

from competition.data import loaders
from competition.data.loaders import ImageLoader


class WhetherSet(Dataset[dict[str, Any]]):
    """Tells what was true when the process that reads it was started."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"was set": self.event.is_set()}


def test_threads_come_to_rest_before_workers_are_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker hangs else: of 2000 forks just behind threads that had read images 1 did, and before Python 3.11.10 of
    1000 beside 8 threads that begin and end 8."""
    assert loaders.REST > 0
    monkeypatch.setattr(loaders, "REST", 0.5)
    at_work = threading.Event()
    threading.Timer(0.05, at_work.set).start()
    loader = ImageLoader(WhetherSet(at_work), num_workers=1, multiprocessing_context="fork")
    assert [said["was set"].item() for said in loader] == [True]
