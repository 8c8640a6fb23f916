"""From boxes to tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from competition.task import Target
from competition.tasks.detection.settings import TaskConfig


def target_tensors(target: Target) -> dict[str, Tensor]:
    """Turn `bboxes` and `labels` into `boxes` (k, 4) float32 xyxy and `labels` (k,) int64."""
    boxes = np.asarray(target["bboxes"], dtype=np.float32).reshape(-1, 4)
    return {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(np.asarray(target["labels"], dtype=np.int64))}


def collate_targets(targets: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Keep boxes as a list, as each image has another number."""
    return {"boxes": [target["boxes"] for target in targets], "labels": [target["labels"] for target in targets]}


def mix_batch(batch: dict[str, Any], config: TaskConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Return the batch as it is."""
    return batch
