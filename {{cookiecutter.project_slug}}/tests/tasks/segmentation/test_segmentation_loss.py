"""The losses of masks: equal to published ones, finite, an image's own whatever batch it is in."""

from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from competition.support.errors import CompetitionError
from competition.tasks.segmentation.loss import image_losses, mask_losses
from competition.tasks.segmentation.model import ExclusiveClasses, build_network
from competition.tasks.segmentation.prediction import predictions
from competition.tasks.segmentation.settings import SegmentationLoss, SegmentationModel, TaskConfig

NAMES = ("bce", "dice", "jaccard", "focal", "tversky", "lovasz")


def only(name: str, weight: float = 1.0, **settings: Any) -> SegmentationLoss:
    return SegmentationLoss.model_validate(dict.fromkeys(NAMES, 0.0) | {name: weight} | settings)


def some(num_images: int = 1, num_classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits and masks (B, classes, 9, 7), no class of an image empty."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_images, num_classes, 9, 7, generator=rng) * 2
    masks = (torch.rand(num_images, num_classes, 9, 7, generator=rng) < 0.3).float()
    masks[:, :, 0, 0] = 1
    return logits, masks


@pytest.mark.parametrize(
    ("settings", "published"),
    [
        (only("bce"), smp.losses.SoftBCEWithLogitsLoss()),
        (only("bce", pos_weight=3.0), nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))),
        (
            only("bce", pos_weight=[1.0, 2.0, 5.0]),
            nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 5.0])[:, None, None]),
        ),
        (only("dice"), smp.losses.DiceLoss("multilabel", smooth=0.5)),  # it halves the sum, so what it adds, too
        (only("jaccard"), smp.losses.JaccardLoss("multilabel", smooth=1.0)),
        (only("focal"), smp.losses.FocalLoss("multilabel")),
        (
            only("focal", focal_gamma=3.0, focal_alpha=0.25),
            smp.losses.FocalLoss("multilabel", gamma=3.0, alpha=0.25),
        ),
        (only("tversky"), smp.losses.TverskyLoss("multilabel", smooth=1.0, alpha=0.3, beta=0.7)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_loss_of_one_image_is_the_published_one(settings: SegmentationLoss, published: nn.Module) -> None:
    logits, masks = some()
    torch.testing.assert_close(mask_losses(logits, masks, settings), published(logits, masks)[None])


def test_lovasz_is_the_mean_over_classes_of_the_published_one() -> None:
    logits, masks = some()
    lovasz = smp.losses.LovaszLoss("binary", per_image=True)
    expected = torch.stack([lovasz(logits[:, k], masks[:, k]) for k in range(3)]).mean()
    torch.testing.assert_close(mask_losses(logits, masks, only("lovasz")), expected[None])


@pytest.mark.parametrize("name", NAMES)
def test_an_image_has_the_same_loss_in_any_batch(name: str) -> None:
    logits, masks = some(5)
    masks[1] = 0
    together = mask_losses(logits, masks, only(name))
    alone = [mask_losses(logits[i : i + 1], masks[i : i + 1], only(name)) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone))
    torch.testing.assert_close(mask_losses(logits, masks, only(name, 2.5)), 2.5 * together)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 200.0])
def test_gradients_are_finite_for_empty_and_full_masks(name: str, value: float, scale: float) -> None:
    logits = (torch.randn(2, 2, 6, 5, generator=torch.Generator().manual_seed(1)) * scale).requires_grad_()
    losses = mask_losses(logits, torch.full((2, 2, 6, 5), value), only(name))
    losses.sum().backward()
    assert losses.shape == (2,)
    assert losses.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_right_answer_costs_nothing_and_a_wrong_one_something(name: str) -> None:
    _, masks = some(2)
    masks[1] = 0
    sure = (masks - 0.5) * 100
    assert mask_losses(sure, masks, only(name)).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert (mask_losses(-sure, masks, only(name)) > 0.5).all()


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_the_focal_loss_has_a_slope_however_sure_the_network_is(gamma: float, alpha: float | None) -> None:
    logits = torch.tensor([-200.0, -40, -17, -3, 0, 3, 17, 40, 200]).repeat(2)[None, None, None].requires_grad_()
    masks = torch.arange(2.0).repeat_interleave(9)[None, None, None]
    loss = mask_losses(logits, masks, only("focal", focal_gamma=gamma, focal_alpha=alpha))
    exact = logits.detach().double().requires_grad_()
    missed = torch.where(masks > 0, -exact, exact).sigmoid()
    weight = 1 if alpha is None else torch.where(masks > 0, alpha, 1 - alpha)
    (weight * missed**gamma * torch.nn.functional.softplus(torch.where(masks > 0, -exact, exact))).mean().backward()
    loss.sum().backward()
    assert logits.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-4, atol=1e-8)


def test_losses_add_up() -> None:
    logits, masks = some(3)
    weights = {name: float(i + 1) for i, name in enumerate(NAMES)}
    expected = sum(mask_losses(logits, masks, only(name, weight)) for name, weight in weights.items())
    torch.testing.assert_close(mask_losses(logits, masks, SegmentationLoss.model_validate(weights)), expected)


def test_weights_of_other_classes_are_refused() -> None:
    with pytest.raises(CompetitionError, match=r"loss\.pos_weight: found 2 values; expected one, or one a class of 3"):
        mask_losses(*some(), only("bce", pos_weight=[1.0, 2.0]))


@pytest.mark.parametrize("architecture", ["unet", "fpn", "segformer"])
def test_a_second_head_learns_which_classes_an_image_has(architecture: str) -> None:
    torch.manual_seed(0)
    settings = SegmentationLoss(auxiliary=0.5)
    model = SegmentationModel.model_validate({"encoder": "test_resnet", "architecture": architecture})
    config = TaskConfig(name="t", task="segmentation", loss=settings, model=model)
    network = build_network(config, 3)
    images, (_, masks) = torch.randn(4, 3, 64, 64), some(4)
    masks = nn.functional.interpolate(masks, (64, 64))
    masks[2] = 0
    outputs = network(images)
    assert [tuple(each.shape) for each in outputs] == [(4, 3, 64, 64), (4, 3)]
    total = image_losses(network, outputs, {"mask": masks}, config)
    labels = masks.amax(dim=(2, 3))
    auxiliary = nn.functional.binary_cross_entropy_with_logits(outputs[1], labels, reduction="none").mean(1)
    torch.testing.assert_close(total, mask_losses(outputs[0], masks, settings) + 0.5 * auxiliary)
    with torch.no_grad():
        assert len(predictions(network, outputs, {})) == 4
        assert predictions(network, outputs, {})[0]["probabilities"].shape == (3, 64, 64)


@torch.no_grad()
def test_cross_entropy_is_that_of_torch_over_the_classes_and_none() -> None:
    torch.manual_seed(0)
    config = TaskConfig(
        name="t",
        task="segmentation",
        model=SegmentationModel(encoder="test_resnet"),
        loss=SegmentationLoss(bce=0, dice=0, cross_entropy=2.0, label_smoothing=0.1),
    )
    network = build_network(config, 3)
    assert isinstance(network, ExclusiveClasses)
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(0, 4, (2, 64, 64))
    masks = nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2)[:, 1:]
    logits = torch.cat([torch.zeros(2, 1, 64, 64), network.network(images)], dim=1)
    expected = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none").mean((1, 2))
    outputs = network(images)
    torch.testing.assert_close(image_losses(network, outputs, {"mask": masks}, config), 2 * expected)
    probabilities = [torch.from_numpy(one["probabilities"]) for one in predictions(network, outputs, {})]
    torch.testing.assert_close(torch.stack(probabilities).float(), logits.softmax(1)[:, 1:], rtol=0, atol=1e-3)


@pytest.mark.parametrize("scale", [0.0, 1.0, 200.0])
def test_gradients_of_exclusive_classes_are_finite(scale: float) -> None:
    raw = (torch.randn(2, 2, 6, 5, generator=torch.Generator().manual_seed(1)) * scale).requires_grad_()
    outputs = ExclusiveClasses(nn.Identity())(raw)
    settings = SegmentationLoss.model_validate(dict.fromkeys(NAMES, 1.0) | {"cross_entropy": 1.0})
    config = TaskConfig(name="t", task="segmentation", loss=settings)
    for mask in (torch.zeros(2, 2, 6, 5), torch.ones(2, 2, 6, 5)):
        image_losses(nn.Identity(), outputs, {"mask": mask}, config).sum().backward(retain_graph=True)
        assert raw.grad is not None
        assert raw.grad.isfinite().all()


def test_losses_without_any_weight_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing teaches masks"):
        SegmentationLoss(bce=0, dice=0, auxiliary=1)


# -- what another run says of the pixels


def taught_losses(logits: Tensor, said: Tensor | None, *, exclusive: bool = False, **more: Tensor) -> Tensor:
    """Return (B,) what learning from another run adds to the losses, at weight 0.5 and temperature 2."""
    loss = {"bce": 0, "dice": 0, "distil": {"run": "big", "weight": 0.5, "temperature": 2}}
    config = TaskConfig.model_validate({"name": "t", "task": "segmentation", "loss": loss})
    outputs: Any = ExclusiveClasses(nn.Identity())(logits) if exclusive else logits
    batch = {"mask": torch.zeros_like(logits)} | more | ({} if said is None else {"teacher": said})
    return image_losses(nn.Identity(), outputs, batch, config)


def divergence(true: Tensor, found: Tensor) -> Tensor:
    """Return (B, ...) of distributions (B, classes, ...) whose logarithms are halved, as by a temperature of 2."""
    known, said = (one.double().sqrt() / one.double().sqrt().sum(dim=1, keepdim=True) for one in (true, found))
    return (known * (known / said).log()).sum(dim=1)


@pytest.mark.parametrize("exclusive", [False, True])
def test_towards_another_run_it_is_the_divergence_of_flattened_probabilities(exclusive: bool) -> None:
    logits, other = some(num_images=2)[0], some(num_images=2, seed=1)[0]
    if exclusive:
        said, found = (nn.functional.pad(one, (0, 0, 0, 0, 1, 0)).softmax(dim=1) for one in (other, logits))
        each = divergence(said, found)
        said = said[:, 1:]  # none of the classes first
    else:
        said, found = other.sigmoid(), logits.sigmoid()
        each = divergence(*(torch.stack([one, 1 - one], dim=1) for one in (said, found)))
    expected = 0.5 * 4 * each.flatten(1).mean(dim=1)
    torch.testing.assert_close(
        taught_losses(logits, said, exclusive=exclusive).double(), expected, rtol=1e-4, atol=1e-6
    )


def test_pixels_that_are_ignored_or_of_which_nothing_is_said_teach_nothing() -> None:
    logits, said = some(num_images=2)[0], some(num_images=2, seed=1)[0].sigmoid()
    part = said.clone()
    part[0, :, 4:] = torch.nan
    part[1] = torch.nan
    found = taught_losses(logits.requires_grad_(), part)
    torch.testing.assert_close(found[:1], taught_losses(logits[:1, :, :4], said[:1, :, :4]))
    assert not found[1].any()
    (slopes,) = torch.autograd.grad(found.sum(), logits)
    assert slopes.isfinite().all()
    assert not slopes[0, :, 4:].any()
    ignored = torch.zeros(2, 1, 9, 7)
    ignored[:, :, 4:] = 1
    torch.testing.assert_close(taught_losses(logits, said, ignored=ignored)[0], found[0])


def test_probabilities_that_half_precision_rounds_to_0_and_1_teach_finite_losses() -> None:
    said = torch.tensor([0.0, 1.0]).repeat(1, 3, 9, 1)
    for exclusive in (False, True):
        assert taught_losses(torch.zeros_like(said), said, exclusive=exclusive).isfinite().all()
