"""Training images mixed with each other, mosaic and mixup, with what lies on them: boxes or points and their labels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

Keeps = Callable[[Tensor], Tensor]  # of places (k, 2 or 4) in an image which are worth keeping, (k,) bool


def mix_images(
    batch: dict[str, Any], places: str, keeps: Keeps, shares: tuple[float, float], rng: np.random.Generator
) -> dict[str, Any]:
    """Make mosaics, and mean images, of these shares of a batch, of whatever images are in it.

    `places` is the key of what lies on the images: boxes xyxy or points xy, in pixels; `labels` are theirs.
    """
    number = len(batch["image"])
    # Drawn whatever the shares are, so that a change of one leaves what the other draws as it is.
    in_mosaic, in_mixup = rng.random((2, number)) < np.array(shares)[:, None]
    parts, others = rng.integers(number, size=(number, 4)), rng.permutation(number)
    parts[:, 0] = np.arange(number)  # so that every image is seen, in its mosaic or as it is
    parts = rng.permuted(parts, axis=1)
    if in_mosaic.any():
        batch = mosaic(batch, places, keeps, np.flatnonzero(in_mosaic), parts[in_mosaic])
    if in_mixup.any():
        batch = mixup(batch, places, np.flatnonzero(in_mixup), others[in_mixup])
    return batch


def mosaic(batch: dict[str, Any], places: str, keeps: Keeps, chosen: np.ndarray, parts: np.ndarray) -> dict[str, Any]:
    """Replace images by four images at half scale, side by side.

    chosen: (k,) numbers of the images that are replaced. parts: (k, 4) numbers of those that are seen in them: above
    left and right, below left and right.
    """
    images: Tensor = batch["image"]
    height, width = images.shape[-2:]
    rows, columns = ((0, height // 2, height), (0, width // 2, width))
    mixed, where, labels = images.clone(), list(batch[places]), list(batch["labels"])
    placed: list[list[tuple[Tensor, Tensor]]] = [[] for _ in chosen]
    at = torch.from_numpy(chosen).to(images.device)
    for quarter in range(4):
        top, bottom = rows[quarter // 2], rows[quarter // 2 + 1]
        left, right = columns[quarter % 2], columns[quarter % 2 + 1]
        size = (bottom - top, right - left)
        source = images[torch.from_numpy(parts[:, quarter]).to(images.device)]
        mixed[at, :, top:bottom, left:right] = interpolate(source, size, mode="bilinear", antialias=True)
        for place, part in enumerate(parts[:, quarter].tolist()):
            seen = batch[places][part]
            corners = seen.shape[1] // 2
            first, last = seen.new_tensor([left, top] * corners), seen.new_tensor([right, bottom] * corners)
            moved = seen * seen.new_tensor([size[1] / width, size[0] / height] * corners) + first
            inside = torch.minimum(torch.maximum(moved, first), last)
            kept = keeps(inside)
            placed[place].append((inside[kept], batch["labels"][part][kept]))
    for image, quarters in zip(chosen.tolist(), placed, strict=True):
        where[image] = torch.cat([each for each, _ in quarters])
        labels[image] = torch.cat([each for _, each in quarters])
    return {**batch, "image": mixed, places: where, "labels": labels, **_weights(batch, chosen, parts)}


def mixup(batch: dict[str, Any], places: str, chosen: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    """Replace images (k,) by the mean of themselves and `others` (k,), with what lies on both, as YOLOX does."""
    images: Tensor = batch["image"]
    at, other = (torch.from_numpy(numbers).to(images.device) for numbers in (chosen, others))
    mixed, where, labels = images.clone(), list(batch[places]), list(batch["labels"])
    mixed[at] = (images[at] + images[other]) / 2
    for one, two in zip(chosen.tolist(), others.tolist(), strict=True):
        if one != two:
            where[one] = torch.cat([batch[places][one], batch[places][two]])
            labels[one] = torch.cat([batch["labels"][one], batch["labels"][two]])
    both = np.stack([chosen, others], axis=1)
    return {**batch, "image": mixed, places: where, "labels": labels, **_weights(batch, chosen, both)}


def _weights(batch: dict[str, Any], chosen: np.ndarray, parts: np.ndarray) -> dict[str, Tensor]:
    """Return what images count in the loss, where that differs: `chosen` (k,) the mean of their `parts` (k, number)."""
    if "weight" not in batch:
        return {}
    weights: Tensor = batch["weight"].clone()
    at, of = (torch.from_numpy(numbers).to(weights.device) for numbers in (chosen, parts))
    weights[at] = batch["weight"][of].mean(dim=1)
    return {"weight": weights}
