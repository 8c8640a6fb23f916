"""From boxes to tensors; which of them a mosaic keeps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from competition.tasks.contract import Target
from competition.tasks.detection.settings import TaskConfig
from competition.tasks.mixed_images import mix_images

LEAST_SIDE = 2.0  # pixels the network sees; what a mosaic makes thinner is left out


def target_tensors(target: Target) -> dict[str, Tensor]:
    """Turn `bboxes` and `labels` into `boxes` (k, 4) float32 xyxy and `labels` (k,) int64."""
    boxes = np.asarray(target["bboxes"], dtype=np.float32).reshape(-1, 4)
    return {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(np.asarray(target["labels"], dtype=np.int64))}


def collate_targets(targets: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Keep boxes as a list, as each image has another number."""
    return {"boxes": [target["boxes"] for target in targets], "labels": [target["labels"] for target in targets]}


def mix_batch(batch: dict[str, Any], config: TaskConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Make mosaics, and mean images, of as many images as `mix:` asks for."""
    return mix_images(batch, "boxes", is_large, (config.mix.mosaic, config.mix.mixup), rng)


def is_large(boxes: Tensor) -> Tensor:
    """Return (k,) bool: which boxes (k, 4) a mosaic leaves large enough to be learnt."""
    return (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(dim=1)


def batch_targets(batch: dict[str, Any]) -> list[Target]:
    """Return the answers of a batch, mixed or not, in pixels of its images."""
    return [
        {"bboxes": boxes.cpu().numpy(), "labels": labels.cpu().numpy()}
        for boxes, labels in zip(batch["boxes"], batch["labels"], strict=True)
    ]
