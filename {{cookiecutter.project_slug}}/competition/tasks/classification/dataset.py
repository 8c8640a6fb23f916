"""From a label to tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from competition.task import Target
from competition.tasks.classification.settings import TaskConfig


def target_tensors(target: Target) -> dict[str, Tensor]:
    """Turn `label` into an int64 tensor."""
    return {"label": torch.tensor(target["label"])}


def collate_targets(targets: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Stack to `label` (B,)."""
    return {"label": torch.stack([target["label"] for target in targets])}


def mix_batch(batch: dict[str, Any], config: TaskConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Return the batch as it is."""
    return batch
