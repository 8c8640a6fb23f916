"""The smallest training there is, as words of a command line; where the project lies."""

from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[1]
# A network of 0.5 million weights on small images: an epoch takes a second.
TINY = (
    "model.encoder=test_resnet",
    "data.image_size=64",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
)


def bundled(module: str) -> Any:
    """Return a module of the room of bundles; the test is skipped where that was taken out."""
    return pytest.importorskip(f"competition.bundle.{module}", reason="the room of bundles was taken out")
