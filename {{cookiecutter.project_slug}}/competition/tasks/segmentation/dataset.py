"""From a mask to tensors, and training images mixed with each other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from competition.tasks.contract import Target
from competition.tasks.segmentation.settings import TaskConfig


def target_tensors(target: Target) -> dict[str, Tensor]:
    """Turn `mask` (H, W, classes) into a uint8 tensor (classes, H, W), and `ignored` (H, W), if any, into (1, H, W);
    `teacher` (H, W, classes), what another run says, if anything, into a float32 one (classes, H, W)."""
    tensors = {"mask": torch.from_numpy(np.ascontiguousarray(target["mask"].transpose(2, 0, 1)))}
    if "ignored" in target:
        tensors["ignored"] = torch.from_numpy(np.ascontiguousarray(target["ignored"][None]))
    if "teacher" in target:
        tensors["teacher"] = torch.from_numpy(np.ascontiguousarray(target["teacher"].transpose(2, 0, 1)))
    return tensors


def collate_targets(targets: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Stack to `mask` (B, classes, H, W), and where a target has them `ignored` (B, 1, H, W) and `teacher` (B, classes,
    H, W), NaN of an image of which nothing is said."""
    batch = {"mask": torch.stack([target["mask"] for target in targets])}
    if any("ignored" in target for target in targets):  # pseudo-labels have none
        nothing = torch.zeros_like(batch["mask"][0, :1])
        batch["ignored"] = torch.stack([target.get("ignored", nothing) for target in targets])
    if any("teacher" in target for target in targets):
        nothing = torch.full_like(batch["mask"][0], torch.nan, dtype=torch.float32)
        batch["teacher"] = torch.stack([target.get("teacher", nothing) for target in targets])
    return batch


def mix_batch(batch: dict[str, Any], config: TaskConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Mix each image, its mask and what a teacher says, with another of the batch: mixup or CutMix as `mix:` has it.

    Mixup (Zhang et al. 2018) adds up the two by shares, so that masks become numbers between 0 and 1; CutMix (Yun et
    al. 2019) pastes a rectangle. The batch that came in stays as it is.
    """
    mix = config.mix
    ways = [way for way, strength in ((mixup, mix.mixup), (cutmix, mix.cutmix)) if strength]
    if not ways or len(batch["image"]) < 2 or rng.random() >= mix.probability:
        return batch
    way = ways[rng.integers(len(ways))]
    alpha = mix.mixup if way is mixup else mix.cutmix
    share = float(rng.beta(alpha, alpha))
    others = torch.from_numpy(rng.permutation(len(batch["image"])))
    corner = rng.random(2)
    # What is ignored in either is more than 0, of what a teacher says nothing in either is NaN.
    keys = [key for key in ("image", "mask", "ignored", "teacher") if key in batch]
    mixed = {key: way(batch[key], batch[key][others], share, corner) for key in keys}
    if "weight" in batch:
        mixed["weight"] = share * batch["weight"] + (1 - share) * batch["weight"][others]
    return {**batch, **mixed}


def mixup(own: Tensor, other: Tensor, share: float, corner: np.ndarray) -> Tensor:
    """Return `share` of the one and the rest of the other."""
    return share * own.float() + (1 - share) * other.float()


def cutmix(own: Tensor, other: Tensor, share: float, corner: np.ndarray) -> Tensor:
    """Return tensors (B, channels, H, W) in which a rectangle of area 1 - `share` is the other's.

    `corner` (2,) says where in the image it lies, 0 at the top and left, 1 at the bottom and right.
    """
    sides = [round(side * (1 - share) ** 0.5) for side in own.shape[-2:]]
    (top, height), (left, width) = (
        (round(float(at) * (side - length)), length)
        for at, side, length in zip(corner, own.shape[-2:], sides, strict=True)
    )
    mixed = own.clone()
    inside = (..., slice(top, top + height), slice(left, left + width))
    mixed[inside] = other[inside]
    return mixed


def batch_targets(batch: dict[str, Any]) -> list[Target]:
    """Return the answers of a batch, mixed or not, in pixels of its images: by mixup, the masks of both images."""
    masks = (batch["mask"] > 0).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [{"mask": mask} for mask in masks]
