"""The smallest training there is, as words of a command line; where the project lies."""

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from task_facts import facts_of

PROJECT = Path(__file__).resolve().parents[1]
# A network of 0.5 million weights on small images: an epoch takes a second.
TINY = (
    "model.encoder=test_resnet",
    "data.image_size=32",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
)


def tiny_words(task: str) -> tuple[str, ...]:
    """Return the words of the smallest training of a task: not only the encoder is small."""
    return (*TINY, *small_words(task))


def small_words(task: str) -> tuple[str, ...]:
    """Return the words by which all of a network but its encoder is small."""
    return tuple(f"model.{key}={value}" for key, value in facts_of(task).small.items())


def draw_no_plots(patch: pytest.MonkeyPatch) -> None:
    """Leave the plots of pages blank, which take longer than most of what they show."""
    from matplotlib.figure import Figure

    def draw(figure: Figure, file: Any, **settings: Any) -> None:
        if settings.get("format") == "svg":
            file.write(b"<svg/>")
        else:
            drawn(figure, file, **settings)

    drawn = Figure.savefig
    patch.setattr(Figure, "savefig", draw)
    patch.setattr(Figure, "add_axes", MagicMock())  # which only they call, and that take whatever is drawn


def bundled(module: str) -> Any:
    """Return a module of the room of bundles; the test is skipped where that was taken out."""
    return pytest.importorskip(f"competition.bundle.{module}", reason="the room of bundles was taken out")
