"""From an answer to tensors, and images mixed in pairs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from competition.networks.columns import mixed_columns
from competition.tasks.classification.kinds.find import kind_in
from competition.tasks.classification.kinds.heads import head_by_head
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.contract import Target


@head_by_head
def target_tensors(target: Target) -> dict[str, Tensor]:
    """Turn `label` into an int64 tensor, `labels` (classes,) or `value` (columns,) into a float32 one, in which NaN
    stands for a label that is not `known`; probabilities, `soft` (classes,), stand for labels."""
    soft = {"soft": torch.tensor(target["soft"], dtype=torch.float32)} if "soft" in target else {}
    is_known = {key: torch.tensor(bool(target[key])) for key in ("is_known",) if key in target}
    key = kind_in(target).truth
    if key == "label":
        return {key: torch.tensor(target[key]), **soft, **is_known}
    values = soft.get("soft", torch.tensor(target[key], dtype=torch.float32))
    if "known" in target:  # mixed with another image's, too, it stays unknown
        values[~torch.tensor(target["known"])] = torch.nan
    return {key: values, **is_known}


@head_by_head
def collate_targets(targets: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Stack to `label` (B,), `labels` (B, classes) or `value` (B, columns); `label` to `soft` (B, classes), too, where
    some are."""
    keys = [kind_in(targets[0]).truth, *(["is_known"] if "is_known" in targets[0] else [])]
    batch = {key: torch.stack([target[key] for target in targets]) for key in keys}
    sizes = [len(target["soft"]) for target in targets if "soft" in target]
    if sizes and "label" in batch:
        sure = functional.one_hot(batch["label"], sizes[0]).float()
        batch["soft"] = torch.stack([target.get("soft", one) for target, one in zip(targets, sure, strict=True)])
    return batch


def mix_batch(batch: dict[str, Any], config: TaskConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Mix each image with another of the batch, by mixup or cutmix of `mix:`.

    `labels`, `value` and what a `teacher` says become the mixed ones. To `label` (B,) come `partner` (B,) and `share`
    (), that of the image itself: the loss, which knows how many classes there are, makes them soft targets
    (B, classes).
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
    beside = mixed_columns(batch, order, share) | _mean(batch, ("weight", "teacher"), order, share)
    return {**batch, "image": mixed, **beside, **_mixed_targets(batch, order, share)}


@head_by_head
def _mixed_targets(batch: dict[str, Any], order: Tensor, share: float) -> dict[str, Tensor]:
    mixed = _mean(batch, ("soft", "labels", "value"), order, share)
    mixed |= {key: batch[key] & batch[key][order] for key in ("is_known",) if key in batch}
    if "label" in batch and "soft" not in batch:
        mixed |= {"partner": batch["label"][order], "share": torch.tensor(share, device=order.device)}
    return mixed


def _mean(batch: dict[str, Any], keys: Sequence[str], order: Tensor, share: float) -> dict[str, Tensor]:
    return {key: batch[key] * share + batch[key][order] * (1 - share) for key in keys if key in batch}


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
    found = _targets(batch)
    if "is_known" not in batch:
        return found
    return [one | {"is_known": known} for one, known in zip(found, batch["is_known"].tolist(), strict=True)]


def _targets(batch: dict[str, Any]) -> list[Target]:
    if "soft" in batch:
        return [{"probabilities": row} for row in batch["soft"].cpu().numpy()]
    if "share" in batch:
        labels = batch["label"].cpu().numpy(), batch["partner"].cpu().numpy()
        soft = np.zeros((len(labels[0]), max(map(np.max, labels)) + 1))
        for numbers, share in zip(labels, (float(batch["share"]), 1 - float(batch["share"])), strict=True):
            soft[np.arange(len(soft)), numbers] += share
        return [{"probabilities": row} for row in soft]
    key = kind_in(batch).truth
    values = np.nan_to_num(batch[key].cpu().numpy())
    return [{key: int(value) if key == "label" else value} for value in values]
