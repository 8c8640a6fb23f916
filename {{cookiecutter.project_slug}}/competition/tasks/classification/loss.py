"""The losses of `loss:`, added up by their weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from competition.support.errors import CompetitionError
from competition.tasks.classification.kinds.find import kind_of
from competition.tasks.classification.kinds.heads import head_config, of_head
from competition.tasks.classification.metric_head import metric_head
from competition.tasks.classification.prediction import Heads
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.settings.loss import ClassificationLoss
from competition.tasks.focal import binary_focal_losses, easing


def image_losses(network: nn.Module, outputs: Tensor, batch: dict[str, Any], config: TaskConfig) -> Tensor:
    """Return (B,) losses of logits (B, classes) against `label` (B,) or `labels` (B, classes), or of numbers
    (B, columns) against `value`; those of mixed images against soft targets. A label that is NaN is left out.

    What another run says of the images, `teacher` (B, n) where there is one, is learnt, too; not of those of which it
    says nothing, NaN.
    """
    if config.format.targets:
        return _of_heads(network, outputs, batch, config)
    losses = _own_losses(network, outputs.float(), batch, config)
    return losses if "teacher" not in batch else losses + _of_teacher(outputs.float(), batch["teacher"], config)


def _own_losses(network: nn.Module, outputs: Tensor, batch: dict[str, Any], config: TaskConfig) -> Tensor:
    target = config.format.target
    if target == "regression":
        return _of_numbers(outputs, batch["value"], weights(config), config.format.bounds)
    _check_class_weights(config.loss, outputs.shape[1])
    truth = soft_labels(batch, outputs.shape[1]) if target == "single" else batch["labels"]
    if config.model.head != "linear" and (head := metric_head(network)) is not None:
        outputs = head.logits(outputs, truth)
    losses = {"cross_entropy": _cross_entropy, "bce": _bce, "focal": _focal if target == "single" else _binary_focal}
    each = [weight * losses[name](outputs, truth, config.loss) for name, weight in weights(config).items()]
    return torch.stack(each).sum(dim=0) if each else outputs.new_zeros(len(outputs))


def _of_heads(network: nn.Module, outputs: Tensor, batch: dict[str, Any], config: TaskConfig) -> Tensor:
    """Return (B,) sums over the targets, by their weights; 0 for one that is not known of an image."""
    heads = network.get_submodule("activation_of_answers")
    assert isinstance(heads, Heads)
    total = outputs.new_zeros(len(outputs), dtype=torch.float32)
    for name, part in heads.parts(outputs).items():
        own = of_head(batch, name)
        losses = image_losses(network, part, own, head_config(config, name))
        losses = torch.where(own["is_known"], losses, 0.0) if "is_known" in own else losses
        total = total + config.format.targets[name].loss_weight * losses
    return total


def weights(config: TaskConfig) -> dict[str, float]:
    """Return the losses that are set with their weights; without any, nor a file, the usual one of the target."""
    if targets := config.format.targets:
        each = {name: weights(head_config(config, name)) for name in targets}
        return {
            f"{name}/{loss}": targets[name].loss_weight * weight
            for name, losses in each.items()
            for loss, weight in losses.items()
        }
    return config.loss.weights or ({} if config.loss.files else {kind_of(config).usual_loss: 1.0})


def _of_teacher(outputs: Tensor, said: Tensor, config: TaskConfig) -> Tensor:
    """Return (B,) weighted losses towards what another run says; 0 of an image of which it says nothing."""
    distil = config.loss.distil
    assert distil is not None
    towards = _towards_teacher(outputs, said.nan_to_num(), config, distil.temperature)
    return distil.weight * towards * ~said.isnan().any(dim=1)


def _towards_teacher(outputs: Tensor, said: Tensor, config: TaskConfig, temperature: float) -> Tensor:
    """Return (B,) divergences from what another run says: its probabilities (B, classes), or numbers (B, columns).

    Times the square of the temperature, by which gradients are flatter.
    """
    target, least = config.format.target, torch.finfo(torch.float32).eps
    if target == "regression":
        return _of_numbers(outputs, said, {"mse": 1.0}, config.format.bounds)
    if target == "single":
        known = (said.clamp(min=least).log() / temperature).softmax(dim=1)
        found = (outputs / temperature).log_softmax(dim=1)
        losses = functional.kl_div(found, known, reduction="none").sum(dim=1)
    else:
        known = (said.logit(eps=least) / temperature).sigmoid()
        entropy = functional.binary_cross_entropy(known, known, reduction="none")
        crossed = functional.binary_cross_entropy_with_logits(outputs / temperature, known, reduction="none")
        losses = (crossed - entropy).mean(dim=1)
    return losses * temperature**2


def soft_labels(batch: dict[str, Any], num_classes: int) -> Tensor:
    """Return targets (B, classes) float32 that sum to 1: `soft`, or `label`, and of mixed images `partner`, by their
    `share`."""
    if "soft" in batch:
        return batch["soft"]
    labels = functional.one_hot(batch["label"], num_classes).float()
    if "partner" not in batch:
        return labels
    partners = functional.one_hot(batch["partner"], num_classes).float()
    return labels * batch["share"] + partners * (1 - batch["share"])


def _cross_entropy(logits: Tensor, truth: Tensor, settings: ClassificationLoss) -> Tensor:
    weight = _class_weights(logits, settings)
    return functional.cross_entropy(
        logits, truth, weight=weight, label_smoothing=settings.label_smoothing, reduction="none"
    )


def _bce(logits: Tensor, truth: Tensor, settings: ClassificationLoss) -> Tensor:
    known = ~truth.isnan()
    smoothed = _smoothed(truth.nan_to_num(), settings, 2)
    losses = functional.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
    return _mean_over_classes(losses, settings, known)


def _focal(logits: Tensor, truth: Tensor, settings: ClassificationLoss) -> Tensor:
    """Cross entropy with each class's term times (1 - p)^gamma."""
    logs = logits.log_softmax(dim=1)
    terms = -_smoothed(truth, settings, truth.shape[1]) * easing(-logs.expm1(), settings.focal_gamma) * logs
    weight = _class_weights(logits, settings)
    return (terms if weight is None else terms * weight).sum(dim=1)


def _binary_focal(logits: Tensor, truth: Tensor, settings: ClassificationLoss) -> Tensor:
    losses = binary_focal_losses(logits, _smoothed(truth.nan_to_num(), settings, 2), settings.focal_gamma)
    return _mean_over_classes(losses, settings, ~truth.isnan())


def _smoothed(truth: Tensor, settings: ClassificationLoss, num_choices: int) -> Tensor:
    return truth * (1 - settings.label_smoothing) + settings.label_smoothing / num_choices


def _mean_over_classes(losses: Tensor, settings: ClassificationLoss, known: Tensor) -> Tensor:
    """Return (B,) means over the classes that are `known` (B, classes); 0 for an image of which nothing is."""
    weight = _class_weights(losses, settings)
    weights = known.to(losses.dtype) * (1.0 if weight is None else weight)
    return (losses * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=torch.finfo(losses.dtype).tiny)


def _class_weights(like: Tensor, settings: ClassificationLoss) -> Tensor | None:
    return None if settings.class_weights is None else like.new_tensor(settings.class_weights)


def _check_class_weights(settings: ClassificationLoss, num_classes: int) -> None:
    given = settings.class_weights
    if given is not None and len(given) != num_classes:
        raise CompetitionError(
            f"loss.class_weights: found {len(given)} values for {num_classes} classes; expected one a class"
        )


NUMBER_LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "smooth_l1": functional.smooth_l1_loss,
}


def _of_numbers(
    outputs: Tensor, values: Tensor, weights: dict[str, float], bounds: tuple[float, float] | None
) -> Tensor:
    """Return (B,) means over the columns; within bounds both sides are brought to 0 to 1."""
    said = outputs
    if bounds is not None:
        low, high = bounds
        said, values = outputs.sigmoid(), (values - low) / (high - low)
    total = outputs.new_zeros(len(outputs))
    for name, weight in weights.items():
        if name == "bce":
            losses = functional.binary_cross_entropy_with_logits(outputs, values, reduction="none")
        else:
            losses = NUMBER_LOSSES[name](said, values, reduction="none")
        total = total + weight * losses.mean(dim=1)
    return total
