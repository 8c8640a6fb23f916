"""From points to tensors, and training images mixed with each other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from competition.tasks.contract import Target
from competition.tasks.mixed_images import mix_images
from competition.tasks.points.settings import TaskConfig


def target_tensors(target: Target) -> dict[str, Tensor]:
    """Turn `keypoints` and `labels` into `points` (k, 2) float32 xy and `labels` (k,) int64."""
    points = np.asarray(target["keypoints"], dtype=np.float32).reshape(-1, 2)
    return {
        "points": torch.from_numpy(points),
        "labels": torch.from_numpy(np.asarray(target["labels"], dtype=np.int64)),
    }


def collate_targets(targets: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Keep points as a list, as each image has another number."""
    return {key: [target[key] for target in targets] for key in ("points", "labels")}


def mix_batch(batch: dict[str, Any], config: TaskConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Make mosaics, and mean images, of as many images as `mix:` asks for."""
    return mix_images(batch, "points", _all, (config.mix.mosaic, config.mix.mixup), rng)


def _all(points: Tensor) -> Tensor:
    return torch.ones(len(points), dtype=torch.bool, device=points.device)


def batch_targets(batch: dict[str, Any]) -> list[Target]:
    """Return the answers of a batch, mixed or not, in pixels of its images."""
    return [
        {"keypoints": points.cpu().numpy(), "labels": labels.cpu().numpy()}
        for points, labels in zip(batch["points"], batch["labels"], strict=True)
    ]
