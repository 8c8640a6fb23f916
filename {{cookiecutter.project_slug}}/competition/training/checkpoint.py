"""`latest.pt` after every epoch and `best_loss.pt` (or `best_score.pt`) whenever the monitored value improves.

With `checkpoint.keep` the weights of the best epochs besides, `epoch3.pt`, for a soup.
"""

import hashlib
import math
import os
import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from competition.config.settings import Checkpoint as CheckpointSettings
from competition.config.settings import Mode
from competition.networks.lora import has_adapters, merged
from competition.runs.folder import LATEST, best_name, is_of_all, weights_name
from competition.support.atomic_files import replacing
from competition.support.errors import CompetitionError
from competition.support.freshness import compare_checksums

CHECKSUM = "sha256"  # of the exported weights, in the metadata of their file


def weights_to_use(folder: Path, settings: CheckpointSettings) -> Path:
    """Return the checkpoint that prediction uses; raise CompetitionError if training has not made it yet."""
    path = folder / weights_name(folder, settings)
    if not path.is_file():
        raise CompetitionError(f"{path}: no such checkpoint; train this fold first")
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values; raise CompetitionError if it is damaged.

    It is a zip archive, whose checksums torch does not compare: weights with a flipped bit would predict all the same.
    """
    try:
        compare_checksums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
            raise ValueError("it has no state_dict")
    except Exception as error:  # zip, pickle and torch each have errors of their own
        reason = " ".join(str(error).split())[:100]
        raise CompetitionError(
            f"{path}: not a whole checkpoint ({reason}); delete {path.parent} and train this fold again"
        ) from None
    return checkpoint


@contextmanager
def explaining_other_network(path: Path) -> Generator[None]:
    """Raise CompetitionError where the weights of a checkpoint are of another network than the code builds now."""
    try:
        yield
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise other_network(path, error) from None


def other_network(path: Path, error: Exception) -> CompetitionError:
    """Return what is said of a checkpoint whose weights are of another network than the code builds now."""
    reason = " ".join(str(error).split())[:200]
    return CompetitionError(
        f"{path}: no longer fits the network that its config builds: {reason}; put back the code that it was "
        "trained by, or train again under another name"
    )


def network_state(checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint as those of the network that predicts, adapters merged into them."""
    state = checkpoint["state_dict"]
    return merged(state, checkpoint["hyper_parameters"]["config"]["model"]["lora"]) if has_adapters(state) else state


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, syncs and renames it: a crash leaves the previous file whole.

    Lightning's own goes through the system's temporary folder, and from another file system a move is a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        """Save to `path`; raise CompetitionError if it cannot be written."""
        path = Path(path)
        before = "the one before it is whole: make room and go on with --resume"
        way_on = before if path.is_file() else "there is none before it: make room and train again"
        try:
            with replacing(path, way_on) as temporary:
                torch.save(checkpoint, temporary)
        except RuntimeError as error:  # as torch reports a full disk, of its zip writer
            reason, free = " ".join(str(error).split())[:100], shutil.disk_usage(path.parent).free / 2**20
            raise CompetitionError(f"{path}: cannot be saved ({reason}; {free:.0f} MB free); {way_on}") from None


class LatestAndBest(Checkpoint):
    """Keeps `latest.pt`, the state after the last epoch, better or worse, and the state with the best value.

    As long as no epoch has a value the last one counts as the best, so that a training can be used whatever its
    validation did.

    Lightning calls it after all other callbacks, so that their state and this epoch's row are in what it saves.
    """

    def __init__(self, folder: Path, settings: CheckpointSettings, mode: Mode) -> None:
        self.folder, self.settings, self.mode = folder, settings, mode
        self.best_value: float | None = None
        self.best_epoch: int | None = None
        self.is_best = False  # is what latest.pt holds
        self.kept: dict[int, float] = {}  # the best epochs and their values
        self.is_kept = False  # whether latest.pt holds one of them
        self._validated = False
        self._last_saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Keep the best value over a resume."""
        best = {"best_value": self.best_value, "best_epoch": self.best_epoch, "is_best": self.is_best}
        return best if self.settings.keep is None else best | {"kept": dict(self.kept), "is_kept": self.is_kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best value so far."""
        self.best_value, self.best_epoch = state_dict["best_value"], state_dict["best_epoch"]
        self.is_best = state_dict["is_best"]
        self.kept, self.is_kept = state_dict.get("kept", {}), state_dict.get("is_kept", False)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the best once more: the last run may have been killed after it saved that and before it linked it."""
        self._keep_if_best(trainer)
        self._keep_epoch(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the monitored value is of this epoch; without validation it would be an old one."""
        self._validated = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save in mid-epoch where asked for; the epoch's last batch is followed by its end anyway."""
        if not trainer.is_last_batch and is_step_done(trainer, batch_idx) and self._is_due(trainer):
            self.save_latest(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch, and keep it as best if it is."""
        self.is_best = self._improves(trainer)
        self.is_kept = self._is_among_best(trainer)
        self._validated = False
        self.save_latest(trainer)
        self._keep_if_best(trainer)
        self._keep_epoch(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say which weights are the best where no epoch could be compared with another; wait for what is written."""
        trainer.strategy.barrier()
        if self.best_value is None and not is_of_all(self.folder) and trainer.is_global_zero:
            print(f"{self.settings.monitor} was not computed or never a number: the last epoch is the best", flush=True)

    def save_latest(self, trainer: pl.Trainer) -> None:
        """Save the whole state; call it on every rank. Raises CompetitionError if it cannot be written."""
        self._last_saved = time.monotonic()
        trainer.save_checkpoint(self.folder / LATEST)

    def _keep_if_best(self, trainer: pl.Trainer) -> None:
        if self.is_best and trainer.is_global_zero:
            link_or_copy(self.folder / LATEST, self.folder / best_name(self.settings))
        self.is_best = False  # what is saved in the middle of the next epoch is not

    def _is_among_best(self, trainer: pl.Trainer) -> bool:
        """Note the epoch's value if it is one of the best, of equal ones the earlier, and forget the worst."""
        value = self._value(trainer)
        if self.settings.keep is None or not math.isfinite(value):
            return False
        self.kept[trainer.current_epoch] = value
        sign = 1 if self.mode == "min" else -1
        best = sorted(self.kept, key=lambda epoch: (sign * self.kept[epoch], epoch))[: self.settings.keep]
        self.kept = {epoch: self.kept[epoch] for epoch in best}
        return trainer.current_epoch in self.kept

    def _keep_epoch(self, trainer: pl.Trainer) -> None:
        """Write the weights of latest.pt as those of its epoch, then delete what is no more among the best.

        In this order, and after latest.pt, which names them: a kill at any moment loses none that it names.
        """
        if self.is_kept and trainer.is_global_zero:
            state = load_checkpoint(self.folder / LATEST)
            epoch = state["epoch"]
            kept = {name: state[name] for name in ("state_dict", "hyper_parameters", "epoch")}
            AtomicCheckpointIO().save_checkpoint(kept | {"value": self.kept[epoch]}, epoch_path(self.folder, epoch))
        self.is_kept = False
        if self.settings.keep is not None and trainer.is_global_zero:
            for path in epoch_paths(self.folder):
                if int(path.stem.removeprefix("epoch")) not in self.kept:
                    path.unlink()

    def _value(self, trainer: pl.Trainer) -> float:
        return float(trainer.callback_metrics[self.settings.monitor]) if self._validated else math.nan

    def _improves(self, trainer: pl.Trainer) -> bool:
        value = self._value(trainer)
        best, is_lower_better = self.best_value, self.mode == "min"
        if not math.isfinite(value):
            return best is None and not is_of_all(self.folder)
        if best is not None and (value >= best if is_lower_better else value <= best):
            return False
        self.best_value, self.best_epoch = value, trainer.current_epoch
        return True

    def _is_due(self, trainer: pl.Trainer) -> bool:
        steps, minutes = self.settings.every_steps, self.settings.every_minutes
        if steps and trainer.global_step % steps == 0:
            return True
        if not minutes:
            return False
        # Clocks of ranks differ, and all must save together.
        return trainer.strategy.reduce_boolean_decision(time.monotonic() - self._last_saved > 60 * minutes, all=False)


def is_step_done(trainer: pl.Trainer, batch_index: int) -> bool:
    """Return whether the optimizer has stepped after a batch; an epoch's last one, of which it always does, aside.

    Between two steps there are gradients that no checkpoint holds.
    """
    return (batch_index + 1) % trainer.accumulate_grad_batches == 0


def epoch_path(folder: Path, epoch: int) -> Path:
    """Return where the weights of an epoch are kept for a soup."""
    return folder / f"epoch{epoch}.pt"


def epoch_paths(folder: Path) -> list[Path]:
    """Return the epochs whose weights are kept."""
    return sorted(path for path in folder.glob("epoch*.pt") if path.stem.removeprefix("epoch").isdigit())


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source` is now: a hard link where the file system has them, else a copy."""
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
        os.replace(temporary, target)
        temporary.unlink(missing_ok=True)  # renaming one name of a file to another of the same file does nothing
    except OSError:
        with replacing(target) as copy:
            shutil.copyfile(source, copy)


def exported_path(checkpoint: Path) -> Path:
    """Return where a checkpoint's weights are exported to."""
    return checkpoint.with_suffix(".safetensors")


def exported_weights(checkpoint: Path) -> Path:
    """Return the weights that were exported from a checkpoint; where somebody deleted them, they are written again."""
    path = exported_path(checkpoint)
    if not path.is_file():
        export_weights(checkpoint)
        shutil.copystat(checkpoint, path)  # no newer than what they are of
        return path
    try:
        with safe_open(path, "pt") as file:
            known = (file.metadata() or {}).get(CHECKSUM)  # earlier versions did not write it
            names = file.keys()
            if known is not None and known != _checksum({name: file.get_tensor(name) for name in names}):
                raise ValueError("the weights have another checksum than when they were written")
    except (SafetensorError, OSError, ValueError) as error:
        raise CompetitionError(
            f"{path}: damaged ({' '.join(str(error).split())[:100]}); delete it: it is written again from {checkpoint}"
        ) from None
    return path


def export_weights(path: Path, checkpoint: Mapping[str, Any] | None = None) -> None:
    """Write the network's weights beside a checkpoint as safetensors, by plain names, to load without Lightning.

    Who has read the checkpoint already hands it over.
    """
    state = network_state(load_checkpoint(path) if checkpoint is None else checkpoint)
    prefix = "network."
    named = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    seen, plain = set[int](), dict[str, torch.Tensor]()
    for name, value in named.items():
        # safetensors refuses two names of one tensor, as networks with tied heads have.
        is_tied = value.data_ptr() in seen
        plain[name] = value.clone(memory_format=torch.contiguous_format) if is_tied else value.contiguous()
        seen.add(value.data_ptr())
    with replacing(exported_path(path)) as temporary:
        # Its `save_file` writes beside the file by a random name, which a killed process leaves for ever.
        temporary.write_bytes(save(plain, {CHECKSUM: _checksum(plain)}))


def _checksum(weights: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of weights with their names, types and shapes, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
