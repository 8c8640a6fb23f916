"""A part of a network that remembers training images, and goes by them in evaluation mode. It is no parameter."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

EMBEDDINGS, LABELS = "remembered", "remembered_labels"


class Memory(nn.Module):
    """Remembers an embedding and a label of every training image; both are part of its state once they are there.

    They are no buffers: those are averaged (`ema`) and sent to all processes with every step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embeddings: Tensor | None = None  # (n, size) float16
        self.labels: Tensor | None = None  # (n,) int64
        self._noted: list[Tensor] | None = None

    def note(self, embedded: Tensor) -> Tensor:
        """Return embeddings as they are; between `begin` and `end` they are those of the images to remember."""
        if self._noted is not None:
            self._noted.append(embedded.detach().half())
        return embedded

    def begin(self) -> None:
        """Forget all, and note what comes."""
        self.forget()
        self._noted = []

    def end(self) -> Tensor:
        """Return what came since `begin`, (n, size) float16, and note no more."""
        noted, self._noted = self._noted, None
        assert noted
        return torch.cat(noted)

    def remember(self, embeddings: Tensor, labels: Tensor) -> None:
        """Go by these images from now on."""
        self.embeddings, self.labels = embeddings, labels

    def forget(self) -> None:
        """Go by none."""
        self.embeddings = self.labels = None

    def remembered(self) -> dict[str, Tensor]:
        """Return what is saved of it, by name; nothing where it remembers nothing."""
        if self.embeddings is None or self.labels is None:
            return {}
        return {EMBEDDINGS: self.embeddings, LABELS: self.labels}

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Any:
        if self.embeddings is not None and self.labels is not None:
            self.embeddings, self.labels = fn(self.embeddings), fn(self.labels)
        return super()._apply(fn, *args, **kwargs)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: value for name, value in self.remembered().items()})

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        found = [state_dict.pop(prefix + name, None) for name in (EMBEDDINGS, LABELS)]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.embeddings, self.labels = found
