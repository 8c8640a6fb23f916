"""Losses of the user's own: files that define `image_losses(outputs, batch)`, named in `loss:` with their weights."""

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import OutOfMemoryError, Tensor

from competition.support.errors import CompetitionError
from competition.support.user_file import defined_in


def load_loss(file: str) -> Callable[[Any, dict[str, Any]], Tensor]:
    """Return the function of a file; raise CompetitionError where there is none."""
    return defined_in(Path(file), "image_losses", "loss", "function image_losses(outputs, batch)")


def add_losses(own: Tensor, files: Mapping[str, float], outputs: Any, batch: dict[str, Any]) -> Tensor:
    """Return (B,) the task's own losses with those of files added to them by their weights.

    A file gets what the network says, in float32 where that is one tensor, and the batch, whose images may be mixed.
    Of a detection transformer, `outputs.said` are its `logits` and `boxes`, of which the last `queries` are no guesses
    at true boxes that it was shown with noise.
    Raises CompetitionError with what is wrong in it.
    """
    outputs = outputs.float() if isinstance(outputs, Tensor) else outputs
    for file, weight in files.items():
        if not weight:
            continue
        try:
            losses = load_loss(file)(outputs, batch)
        except (CompetitionError, OutOfMemoryError):
            raise
        except Exception as error:  # the file is the user's: it may raise anything
            place, frames = Path(file).resolve(), traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == place]
            reason = " ".join(str(error).split())[:300]
            raise CompetitionError(
                f"{file}: line {lines[-1] if lines else 1}: image_losses() failed: {type(error).__name__}: {reason}"
            ) from None
        if not isinstance(losses, Tensor) or losses.shape != own.shape:
            found = f"a tensor {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            raise CompetitionError(
                f"{file}: image_losses() returned {found}; expected a tensor {tuple(own.shape)}: one loss an image"
            )
        own = own + weight * losses
    return own
