"""From boxes to tensors, and training images mixed with each other: mosaic and mixup."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from competition.tasks.contract import Target
from competition.tasks.detection.settings import TaskConfig

LEAST_SIDE = 2.0  # pixels the network sees; what a mosaic makes thinner is left out


def mosaic(batch: dict[str, Any], chosen: np.ndarray, parts: np.ndarray) -> dict[str, Any]:
    """Replace images by four images at half scale, side by side.

    chosen: (k,) numbers of the images that are replaced. parts: (k, 4) numbers of those that are seen in them: above
    left and right, below left and right.
    """
    images: Tensor = batch["image"]
    height, width = images.shape[-2:]
    rows, columns = ((0, height // 2, height), (0, width // 2, width))
    mixed, boxes, labels = images.clone(), list(batch["boxes"]), list(batch["labels"])
    placed: list[list[tuple[Tensor, Tensor]]] = [[] for _ in chosen]
    at = torch.from_numpy(chosen).to(images.device)
    for quarter in range(4):
        top, bottom = rows[quarter // 2], rows[quarter // 2 + 1]
        left, right = columns[quarter % 2], columns[quarter % 2 + 1]
        size = (bottom - top, right - left)
        source = images[torch.from_numpy(parts[:, quarter]).to(images.device)]
        mixed[at, :, top:bottom, left:right] = interpolate(source, size, mode="bilinear", antialias=True)
        for place, part in enumerate(parts[:, quarter].tolist()):
            seen = batch["boxes"][part]
            scale = seen.new_tensor([size[1] / width, size[0] / height] * 2)
            moved = seen * scale + seen.new_tensor([left, top] * 2)
            inside = torch.minimum(
                torch.maximum(moved, seen.new_tensor([left, top] * 2)), seen.new_tensor([right, bottom] * 2)
            )
            large = (inside[:, 2:] - inside[:, :2] >= LEAST_SIDE).all(dim=1)
            placed[place].append((inside[large], batch["labels"][part][large]))
    for image, quarters in zip(chosen.tolist(), placed, strict=True):
        boxes[image] = torch.cat([each for each, _ in quarters])
        labels[image] = torch.cat([each for _, each in quarters])
    return {**batch, "image": mixed, "boxes": boxes, "labels": labels, **_weights(batch, chosen, parts)}


def mixup(batch: dict[str, Any], chosen: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    """Replace images (k,) by the mean of themselves and `others` (k,), with the boxes of both, as YOLOX does."""
    images: Tensor = batch["image"]
    at, other = (torch.from_numpy(numbers).to(images.device) for numbers in (chosen, others))
    mixed, boxes, labels = images.clone(), list(batch["boxes"]), list(batch["labels"])
    mixed[at] = (images[at] + images[other]) / 2
    for one, two in zip(chosen.tolist(), others.tolist(), strict=True):
        if one != two:
            boxes[one] = torch.cat([batch["boxes"][one], batch["boxes"][two]])
            labels[one] = torch.cat([batch["labels"][one], batch["labels"][two]])
    both = np.stack([chosen, others], axis=1)
    return {**batch, "image": mixed, "boxes": boxes, "labels": labels, **_weights(batch, chosen, both)}


def _weights(batch: dict[str, Any], chosen: np.ndarray, parts: np.ndarray) -> dict[str, Tensor]:
    """Return what images count in the loss, where that differs: `chosen` (k,) the mean of their `parts` (k, number)."""
    if "weight" not in batch:
        return {}
    weights: Tensor = batch["weight"].clone()
    at, of = (torch.from_numpy(numbers).to(weights.device) for numbers in (chosen, parts))
    weights[at] = batch["weight"][of].mean(dim=1)
    return {"weight": weights}


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


def batch_targets(batch: dict[str, Any]) -> list[Target]:
    """Return the answers of a batch, mixed or not, in pixels of its images."""
    return [
        {"bboxes": boxes.cpu().numpy(), "labels": labels.cpu().numpy()}
        for boxes, labels in zip(batch["boxes"], batch["labels"], strict=True)
    ]
