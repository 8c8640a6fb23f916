"""`latest.pt` after every epoch and `best_loss.pt` (or `best_score.pt`) whenever the monitored value improves."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from competition.errors import CompetitionError
from competition.files import replacing
from competition.settings import Checkpoint

LATEST = "latest.pt"


def best_name(settings: Checkpoint) -> str:
    """Return the file name of the best weights: a monitored loss gives best_loss.pt, a score best_score.pt."""
    return "best_loss.pt" if settings.monitor.endswith("loss") else "best_score.pt"


def weights_to_use(folder: Path, settings: Checkpoint) -> Path:
    """Return the checkpoint that prediction uses; raise CompetitionError if training has not made it yet."""
    path = folder / (LATEST if settings.predict_with == "latest" else best_name(settings))
    if not path.is_file():
        raise CompetitionError(f"{path}: no such checkpoint; train this fold first")
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values; raise CompetitionError if it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each have errors of their own
        reason = " ".join(str(error).split())[:100]
        raise CompetitionError(f"{path}: not a whole checkpoint ({reason}); delete it and train again") from None


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, syncs and renames it: a crash leaves the previous file whole.

    Lightning's own goes through the system's temporary folder, and from another file system a move is a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        """Save to `path`."""
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


class _FixedName(ModelCheckpoint):
    """A ModelCheckpoint that keeps one file under a name of ours."""

    FILE_EXTENSION = ".pt"

    def __init__(self, folder: Path, name: str, **arguments: Any) -> None:
        self.name = name
        super().__init__(
            dirpath=folder,
            filename=name.removesuffix(self.FILE_EXTENSION),
            save_top_k=1,
            auto_insert_metric_name=False,
            enable_version_counter=False,
            **arguments,
        )

    @property
    def state_key(self) -> str:
        """Name the file: Lightning tells callbacks of one class apart by it."""
        return f"{type(self).__name__}({self.name})"


class Latest(_FixedName):
    """Keeps the state after the last epoch, better or worse. Written after Best, so it knows the current score."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, LATEST, monitor=None, save_on_train_epoch_end=True)


class Best(_FixedName):
    """Keeps the state with the best monitored value."""

    def __init__(self, folder: Path, settings: Checkpoint) -> None:
        super().__init__(
            folder, best_name(settings), monitor=settings.monitor, mode=settings.mode, save_on_train_epoch_end=False
        )
