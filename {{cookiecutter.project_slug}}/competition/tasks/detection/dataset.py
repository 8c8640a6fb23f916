"""From boxes to tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from competition.task import Target
from competition.tasks.detection.mixing import mixup, mosaic
from competition.tasks.detection.settings import TaskConfig


def target_tensors(target: Target) -> dict[str, Tensor]:
    """Turn `bboxes` and `labels` into `boxes` (k, 4) float32 xyxy and `labels` (k,) int64."""
    boxes = np.asarray(target["bboxes"], dtype=np.float32).reshape(-1, 4)
    return {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(np.asarray(target["labels"], dtype=np.int64))}


def collate_targets(targets: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Keep boxes as a list, as each image has another number."""
    return {"boxes": [target["boxes"] for target in targets], "labels": [target["labels"] for target in targets]}


def mix_batch(batch: dict[str, Any], config: TaskConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Make mosaics, and mean images, of as many images as `mix:` asks for, of whatever images are in the batch."""
    number = len(batch["image"])
    # Drawn whatever the shares are, so that a change of one leaves what the other draws as it is.
    in_mosaic, in_mixup = rng.random((2, number)) < np.array([[config.mix.mosaic], [config.mix.mixup]])
    parts, others = rng.integers(number, size=(number, 4)), rng.permutation(number)
    parts[:, 0] = np.arange(number)  # so that every image is seen, in its mosaic or as it is
    parts = rng.permuted(parts, axis=1)
    if in_mosaic.any():
        batch = mosaic(batch, np.flatnonzero(in_mosaic), parts[in_mosaic])
    if in_mixup.any():
        batch = mixup(batch, np.flatnonzero(in_mixup), others[in_mixup])
    return batch
