"""From an answer to tensors, and images mixed in pairs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from competition.tasks.classification.heads import head_by_head
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.contract import Target


@head_by_head
def target_tensors(target: Target) -> dict[str, Tensor]:
    """Turn `label` into an int64 tensor, `labels` (classes,) or `value` (columns,) into a float32 one, in which NaN
    stands for a label that is not `known`."""
    is_known = {key: torch.tensor(bool(target[key])) for key in ("is_known",) if key in target}
    if "label" in target:
        return {"label": torch.tensor(target["label"]), **is_known}
    key = "labels" if "labels" in target else "value"
    values = torch.tensor(target[key], dtype=torch.float32)
    if "known" in target:  # mixed with another image's, too, it stays unknown
        values[~torch.tensor(target["known"])] = torch.nan
    return {key: values, **is_known}


@head_by_head
def collate_targets(targets: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Stack to `label` (B,), `labels` (B, classes) or `value` (B, columns)."""
    keys = [key for key in ("label", "labels", "value", "is_known") if key in targets[0]]
    return {key: torch.stack([target[key] for target in targets]) for key in keys}


def mix_batch(batch: dict[str, Any], config: TaskConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Mix each image with another of the batch, by mixup or cutmix of `mix:`.

    `labels` and `value` become the mixed ones. To `label` (B,) come `partner` (B,) and `share` (), that of the image
    itself: the loss, which knows how many classes there are, makes them soft targets (B, classes).
    """
    settings = config.mix
    ways = [way for way in ("mixup", "cutmix") if getattr(settings, way) is not None]
    if not ways or rng.random() >= settings.probability:
        return batch
    way = ways[rng.integers(len(ways))]
    images: Tensor = batch["image"]
    alpha = getattr(settings, way)
    share = float(rng.beta(alpha, alpha))
    order = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    if way == "mixup":
        mixed = images * share + images[order] * (1 - share)
    else:
        top, bottom, left, right = _box(images.shape[-2], images.shape[-1], 1 - share, rng)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images[order][..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (images.shape[-2] * images.shape[-1])
    return {**batch, "image": mixed, **_mixed_targets(batch, order, share)}


@head_by_head
def _mixed_targets(batch: dict[str, Any], order: Tensor, share: float) -> dict[str, Tensor]:
    is_known = {key: batch[key] & batch[key][order] for key in ("is_known",) if key in batch}
    if "label" in batch:
        return {"partner": batch["label"][order], "share": torch.tensor(share, device=order.device), **is_known}
    key = "labels" if "labels" in batch else "value"
    return {key: batch[key] * share + batch[key][order] * (1 - share), **is_known}


def _box(height: int, width: int, area: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return top, bottom, left, right of a box of the image's shape and this share of its area, around any point and
    cut off at the edges, as in the paper of cutmix."""
    half_height, half_width = (side * np.sqrt(area) / 2 for side in (height, width))
    row, column = rng.uniform(0, height), rng.uniform(0, width)
    top, bottom = np.clip([row - half_height, row + half_height], 0, height).round().astype(int)
    left, right = np.clip([column - half_width, column + half_width], 0, width).round().astype(int)
    return int(top), int(bottom), int(left), int(right)


@head_by_head
def batch_targets(batch: dict[str, Any]) -> list[Target]:
    """Return the answers of a batch; of two labels that are mixed, `probabilities` (classes up to the larger one,)."""
    if "share" in batch:
        labels = batch["label"].cpu().numpy(), batch["partner"].cpu().numpy()
        soft = np.zeros((len(labels[0]), max(map(np.max, labels)) + 1))
        for numbers, share in zip(labels, (float(batch["share"]), 1 - float(batch["share"])), strict=True):
            soft[np.arange(len(soft)), numbers] += share
        return [{"probabilities": row} for row in soft]
    key = next(key for key in ("label", "labels", "value") if key in batch)
    values = np.nan_to_num(batch[key].cpu().numpy())
    return [{key: int(value) if key == "label" else value} for value in values]
