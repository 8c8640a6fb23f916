"""From a mask to tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from competition.task import Target
from competition.tasks.segmentation.settings import TaskConfig


def target_tensors(target: Target) -> dict[str, Tensor]:
    """Turn `mask` (H, W, classes) into a uint8 tensor (classes, H, W)."""
    return {"mask": torch.from_numpy(np.ascontiguousarray(target["mask"].transpose(2, 0, 1)))}


def collate_targets(targets: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Stack to `mask` (B, classes, H, W)."""
    return {"mask": torch.stack([target["mask"] for target in targets])}


def mix_batch(batch: dict[str, Any], config: TaskConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Return the batch as it is."""
    return batch
