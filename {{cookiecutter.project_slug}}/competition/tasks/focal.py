"""The focal loss of all tasks, with a gradient wherever torchvision's has one and where it has none."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

SMALLEST = 1e-12  # share missed; the slope of a power under 1 has no bound at 0


def easing(missed: Tensor, gamma: float) -> Tensor:
    """Return by what a loss counts less where little is missed: `missed` (0 to 1) to the power of gamma."""
    return missed.clamp(min=SMALLEST) ** gamma


def binary_focal_losses(logits: Tensor, truth: Tensor, gamma: float, alpha: float | None = None) -> Tensor:
    """Return the losses of logits against truths of 0 to 1 (Lin et al. 2017), of the same shape.

    `alpha` is the weight of what is true against 1 - alpha of what is not.
    """
    # Not 1 minus the probability: in float32 nothing would be left of it from a logit of 17 on.
    missed = logits.sigmoid() * (1 - truth) + (-logits).sigmoid() * truth
    losses = binary_cross_entropy_with_logits(logits, truth, reduction="none") * easing(missed, gamma)
    return losses if alpha is None else losses * (alpha * truth + (1 - alpha) * (1 - truth))


def soft_focal_losses(logits: Tensor, truth: Tensor, gamma: float) -> Tensor:
    """Return the quality focal losses (Li et al. 2020) of logits against truths that are any share from 0 to 1."""
    apart = (logits.sigmoid() - truth).abs()
    return binary_cross_entropy_with_logits(logits, truth, reduction="none") * easing(apart, gamma)
