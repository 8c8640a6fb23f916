"""The losses, by name, added up with their weights in `loss:`."""

from typing import Any

import torch
from segmentation_models_pytorch.losses import LovaszLoss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy, kl_div

from competition.support.errors import CompetitionError
from competition.tasks.focal import binary_focal_losses
from competition.tasks.segmentation.model import Outputs, outputs_of
from competition.tasks.segmentation.settings import SegmentationLoss, TaskConfig

SMOOTH = 1.0  # in numerator and denominator: an empty mask predicted empty costs nothing


def image_losses(network: nn.Module, outputs: Any, batch: dict[str, Any], config: TaskConfig) -> Tensor:
    """Return (B,) losses of logits (B, classes, H, W) against `mask` of the same shape; pixels that `ignored`
    (B, 1, H, W) marks are left out. What another run says of the pixels, `teacher` (B, classes, H, W) where there is
    one, is learnt, too; not where it says nothing, NaN.

    See `outputs_of` for what a network may say beside these logits.
    """
    settings, mask = config.loss, batch["mask"].float()
    logits, labels, log_shares = outputs_of(outputs)
    keep = None
    if "ignored" in batch:
        keep = (batch["ignored"] == 0).float()
        mask = mask * keep  # of a mixed image's other half, too
    total = mask_losses(logits.float(), mask, settings, keep)
    if log_shares is not None:
        shares = cross_entropy_losses(log_shares, mask, settings.label_smoothing, keep)
        total = total + settings.cross_entropy * shares
    if labels is not None and settings.auxiliary:
        has_class = mask.amax(dim=(2, 3))  # of mixed masks the larger share
        auxiliary = binary_cross_entropy_with_logits(labels.float(), has_class, reduction="none").mean(dim=1)
        total = total + settings.auxiliary * auxiliary
    if settings.distil is not None and "teacher" in batch:
        towards = _towards_teacher(outputs_of(outputs), batch["teacher"], settings.distil.temperature, keep)
        total = total + settings.distil.weight * towards
    return total


LEAST, MOST = 2.0**-24, 1 - 2.0**-12  # of stored probabilities, in half precision: 1 is what is nearer to it


def _towards_teacher(outputs: Outputs, said: Tensor, temperature: float, keep: Tensor | None) -> Tensor:
    """Return (B,) mean divergences of pixels from probabilities (B, classes, H, W), both flattened by a temperature;
    times its square, by which gradients are flatter."""
    known = (~said.isnan().any(dim=1, keepdim=True)).float()
    said = said.nan_to_num().clamp(LEAST, MOST)
    if outputs.log_shares is not None:
        rest = (1 - said.sum(dim=1, keepdim=True)).clamp(min=LEAST)  # none of the classes
        true = (torch.cat([rest, said], dim=1).log() / temperature).softmax(dim=1)
        found = (outputs.log_shares / temperature).log_softmax(dim=1)
        losses = kl_div(found, true, reduction="none").sum(dim=1, keepdim=True)
    else:
        true = (said.logit() / temperature).sigmoid()
        crossed = binary_cross_entropy_with_logits(outputs.logits.float() / temperature, true, reduction="none")
        losses = crossed - binary_cross_entropy(true, true, reduction="none")
    return temperature**2 * _mean_of_pixels(losses, known if keep is None else known * keep)


NOTHING = -30.0  # the logit of a pixel that adds nothing to a loss of regions, where its mask is empty


def mask_losses(logits: Tensor, mask: Tensor, settings: SegmentationLoss, keep: Tensor | None = None) -> Tensor:
    """Return (B,) the weighted sum of the losses of logits against masks, both (B, classes, H, W), of the pixels that
    `keep` (B, 1, H, W) has, all without it."""
    total = logits.new_zeros(len(logits))
    if keep is not None:
        logits = logits.masked_fill(keep == 0, NOTHING)
    if settings.bce:
        total = total + settings.bce * bce_losses(logits, mask, settings.pos_weight, keep)
    if settings.dice:
        total = total + settings.dice * dice_losses(logits, mask)
    if settings.jaccard:
        total = total + settings.jaccard * tversky_losses(logits, mask, 1.0, 1.0)
    if settings.focal:
        total = total + settings.focal * focal_losses(logits, mask, settings.focal_gamma, settings.focal_alpha, keep)
    if settings.tversky:
        alpha, beta = settings.tversky_alpha, settings.tversky_beta
        total = total + settings.tversky * tversky_losses(logits, mask, alpha, beta)
    if settings.lovasz:
        total = total + settings.lovasz * lovasz_losses(logits, mask)
    return total


def _mean_of_pixels(losses: Tensor, keep: Tensor | None) -> Tensor:
    """Return (B,) the mean of losses (B, classes, H, W) of the pixels that are kept; 0 where none is."""
    if keep is None:
        return losses.mean(dim=(1, 2, 3))
    return (losses.mean(dim=1, keepdim=True) * keep).sum(dim=(1, 2, 3)) / keep.sum(dim=(1, 2, 3)).clamp(min=1)


def bce_losses(
    logits: Tensor, mask: Tensor, pos_weight: float | list[float] | None = None, keep: Tensor | None = None
) -> Tensor:
    """Return (B,) the mean binary cross entropy of pixels and classes."""
    weight = None
    if pos_weight is not None:
        values = pos_weight if isinstance(pos_weight, list) else [pos_weight] * logits.shape[1]
        if len(values) != logits.shape[1]:
            raise CompetitionError(
                f"loss.pos_weight: found {len(values)} values; expected one, or one a class of {logits.shape[1]}"
            )
        weight = logits.new_tensor(values)[:, None, None]
    losses = binary_cross_entropy_with_logits(logits, mask, pos_weight=weight, reduction="none")
    return _mean_of_pixels(losses, keep)


def cross_entropy_losses(
    log_shares: Tensor, mask: Tensor, smoothing: float = 0.0, keep: Tensor | None = None
) -> Tensor:
    """Return (B,) the mean cross entropy of pixels from log-softmax (B, 1 + classes, H, W), none of the classes first.

    A pixel of several masks counts to each by halves, thirds, ...
    """
    shares = mask / mask.sum(dim=1, keepdim=True).clamp(min=1)
    truth = torch.cat([1 - shares.sum(dim=1, keepdim=True), shares], dim=1)
    losses = cross_entropy(log_shares, truth, label_smoothing=smoothing, reduction="none")
    return _mean_of_pixels(losses[:, None], keep)


def dice_losses(logits: Tensor, mask: Tensor) -> Tensor:
    """Return (B,): 1 - soft Dice per image and class, averaged over classes (V-Net, Milletari et al. 2016).

    Dice is Tversky's index with halves. Unlike in segmentation-models-pytorch a class without a pixel counts, too.
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * mask).sum(dim=(2, 3))
    total = probabilities.sum(dim=(2, 3)) + mask.sum(dim=(2, 3))
    return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean(dim=1)


def tversky_losses(logits: Tensor, mask: Tensor, alpha: float, beta: float) -> Tensor:
    """Return (B,): 1 - overlap / (overlap + alpha false + beta missed) per image and class, averaged over classes.

    Source: Salehi et al. 2017. With alpha = beta = 1 it is the Jaccard index.
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * mask).sum(dim=(2, 3))
    false = (probabilities * (1 - mask)).sum(dim=(2, 3))
    missed = ((1 - probabilities) * mask).sum(dim=(2, 3))
    return (1 - (overlap + SMOOTH) / (overlap + alpha * false + beta * missed + SMOOTH)).mean(dim=1)


def focal_losses(logits: Tensor, mask: Tensor, gamma: float, alpha: float | None, keep: Tensor | None = None) -> Tensor:
    """Return (B,) the mean focal loss of pixels and classes (Lin et al. 2017)."""
    return _mean_of_pixels(binary_focal_losses(logits, mask, gamma, alpha), keep)


def lovasz_losses(logits: Tensor, mask: Tensor) -> Tensor:
    """Return (B,) the Lovász hinge loss per image and class, averaged over classes (Berman et al. 2018)."""
    lovasz = LovaszLoss("binary", per_image=True)
    each = [
        torch.stack([lovasz(logits[i : i + 1, k], mask[i : i + 1, k]) for k in range(logits.shape[1])])
        for i in range(len(logits))
    ]
    return torch.stack([one.mean() for one in each])


def weights(config: TaskConfig) -> dict[str, float]:
    """Return the weights of the losses; what stands in `loss:` up to `auxiliary` is one."""
    return config.loss.weights
