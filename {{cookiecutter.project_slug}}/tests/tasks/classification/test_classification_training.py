"""Losses of every target and images mixed in pairs."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from tiny import PROJECT, TINY
from torch import Tensor, nn
from torch.nn import functional

from competition.config.loading import validate
from competition.support.errors import CompetitionError
from competition.tasks.classification.dataset import collate_targets, mix_batch, target_tensors
from competition.tasks.classification.loss import image_losses, soft_labels
from competition.tasks.classification.model import build_network
from competition.tasks.classification.prediction import predictions
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.made_up_images import write_sample

FORMS: dict[str, dict[str, Any]] = {
    "single": {"target": "single"},
    "multi": {"target": "multi", "train": {"layout": "columns"}},
    "regression": {"target": "regression", "train": {"layout": "columns"}},
    "bounded": {"target": "regression", "train": {"layout": "columns"}, "bounds": [1, 101]},
}
METRICS = {"single": "accuracy", "multi": "roc_auc", "regression": "rmse", "bounded": "rmse"}
TARGETS: dict[str, dict[str, Tensor]] = {
    "single": {"label": torch.tensor([0, 2, 1])},
    "multi": {"labels": torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0]])},
    "regression": {"value": torch.tensor([[1.5], [-2], [0]])},
    "bounded": {"value": torch.tensor([[1.0], [51], [101]])},
}
LOSSES = [
    ("single", "cross_entropy"),
    ("single", "focal"),
    ("multi", "bce"),
    ("multi", "focal"),
    ("regression", "mse"),
    ("regression", "l1"),
    ("regression", "smooth_l1"),
    ("bounded", "bce"),
    ("bounded", "mse"),
]


def config_of(kind: str, **sections: Any) -> TaskConfig:
    values = {"name": "t", "task": "classification", "format": FORMS[kind], "metrics": [METRICS[kind]], **sections}
    config = validate({"model": {"encoder": "test_resnet"}, **values}, {}, "test")
    assert isinstance(config, TaskConfig)
    return config


def losses(kind: str, logits: Tensor, batch: dict[str, Any], **loss: Any) -> Tensor:
    return image_losses(nn.Identity(), logits, batch, config_of(kind, loss=loss))


def logits_for(kind: str) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, TARGETS[kind].get("value", torch.zeros(3, 3)).shape[1])


@pytest.mark.parametrize(("kind", "name"), LOSSES)
def test_a_loss_is_one_an_image_and_weights_add_up(kind: str, name: str) -> None:
    logits, batch = logits_for(kind), TARGETS[kind]
    once = losses(kind, logits, batch, **{name: 1})
    assert once.shape == (3,)
    assert (once >= 0).all()
    alone = [
        losses(kind, logits[i : i + 1], {k: v[i : i + 1] for k, v in batch.items()}, **{name: 1}) for i in range(3)
    ]
    torch.testing.assert_close(once, torch.cat(alone))
    torch.testing.assert_close(losses(kind, logits, batch, **{name: 2.5}), 2.5 * once)
    for other in (other for k, other in LOSSES if k == kind and other != name):
        both = losses(kind, logits, batch, **{name: 1, other: 0.5})
        torch.testing.assert_close(both, once + losses(kind, logits, batch, **{other: 0.5}))


@pytest.mark.parametrize(
    ("kind", "usual"), [("single", "cross_entropy"), ("multi", "bce"), ("regression", "mse"), ("bounded", "mse")]
)
def test_without_a_name_the_usual_loss_is_taken(kind: str, usual: str) -> None:
    logits = logits_for(kind)
    torch.testing.assert_close(losses(kind, logits, TARGETS[kind]), losses(kind, logits, TARGETS[kind], **{usual: 1}))


def test_class_weights_and_smoothing_are_those_of_torch() -> None:
    logits, weights = logits_for("single"), [1.0, 2.0, 0.5]
    found = losses("single", logits, TARGETS["single"], class_weights=weights, label_smoothing=0.2)
    expected = functional.cross_entropy(
        logits, TARGETS["single"]["label"], torch.tensor(weights), label_smoothing=0.2, reduction="none"
    )
    torch.testing.assert_close(found, expected)
    several = losses("multi", logits, TARGETS["multi"], class_weights=weights)
    each = functional.binary_cross_entropy_with_logits(logits, TARGETS["multi"]["labels"], reduction="none")
    torch.testing.assert_close(several, (each * torch.tensor(weights)).sum(1) / 3.5)


def test_focal_by_hand_and_without_focus_the_plain_loss() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    batch = {"label": torch.tensor([0])}
    assert losses("single", logits, batch, focal=1).item() == pytest.approx(0.25 * np.log(2))
    plain = losses("single", logits, batch, cross_entropy=1)
    torch.testing.assert_close(losses("single", logits, batch, focal=1, focal_gamma=0), plain)
    binary = losses("multi", logits, {"labels": torch.ones(1, 3)}, focal=1, focal_gamma=0)
    torch.testing.assert_close(binary, losses("multi", logits, {"labels": torch.ones(1, 3)}, bce=1))


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_focal_loss_has_a_slope_however_sure_the_network_is(kind: str, gamma: float, smoothing: float) -> None:
    logits = torch.tensor([[200.0, -200, -200], [-200, 200, 200], [40, 17, 0]], requires_grad=True)
    loss = losses(kind, logits, TARGETS[kind], focal=1, focal_gamma=gamma, label_smoothing=smoothing)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.abs().max() <= 5
    assert logits.grad[1].abs().max() > 0  # wrong answers are still taught


def test_class_weights_of_another_number_are_refused() -> None:
    with pytest.raises(CompetitionError, match=r"loss\.class_weights: found 2 values for 3 classes"):
        losses("single", logits_for("single"), TARGETS["single"], class_weights=[1, 2])


def test_numbers_stay_within_their_bounds() -> None:
    network = build_network(config_of("bounded"), 1)
    rows = predictions(network, torch.tensor([[-100.0], [0.0], [100.0]]), {})
    np.testing.assert_allclose([row["values"] for row in rows], [[1], [51], [101]])
    # Sure and right costs nothing; a quarter of the way off, by the square.
    assert losses("bounded", torch.tensor([[0.0]]), {"value": torch.tensor([[26.0]])}, mse=1).item() == 0.0625
    free = build_network(config_of("regression"), 2)
    assert predictions(free, torch.tensor([[-3.5, 7]]), {})[0]["values"].tolist() == [-3.5, 7]
    several = build_network(config_of("multi"), 2)
    assert predictions(several, torch.zeros(1, 2), {})[0]["probabilities"].tolist() == [0.5, 0.5]


def test_the_activation_adds_nothing_to_the_weights() -> None:
    network = build_network(config_of("single"), 2)
    assert not [name for name in network.state_dict() if "activation" in name]


def batch_of(kind: str, size: int = 4) -> dict[str, Any]:
    """Return a batch of images that each have one value all over, of their number."""
    targets = {
        "single": [{"label": number % 3} for number in range(size)],
        "multi": [{"labels": np.arange(3) == number} for number in range(size)],
        "regression": [{"value": np.array([number])} for number in range(size)],
    }[kind]
    images = torch.arange(size).float().reshape(-1, 1, 1, 1).expand(-1, 3, 8, 10)
    return {"image": images, **collate_targets([target_tensors(target) for target in targets])}


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_answers_are_mixed_by_the_share_of_the_pixels(way: str, kind: str) -> None:
    batch = batch_of(kind)
    mixed = mix_batch(batch, config_of(kind, mix={way: 1.0}), np.random.default_rng(3))
    again = mix_batch(batch, config_of(kind, mix={way: 1.0}), np.random.default_rng(3))
    assert all(torch.equal(mixed[key], again[key]) for key in mixed)
    assert mixed["image"].shape == batch["image"].shape
    # An image's value is its number, so the mean of a mixed one is the mix of two numbers.
    means = mixed["image"].mean(dim=(1, 2, 3))
    assert not torch.equal(means, torch.arange(4).float())
    if kind == "regression":
        torch.testing.assert_close(mixed["value"][:, 0], means)
        return
    soft = soft_labels(mixed, 3) if kind == "single" else mixed["labels"]
    plain = soft_labels(batch, 3) if kind == "single" else batch["labels"]
    torch.testing.assert_close(soft.sum(dim=0), plain.sum(dim=0), rtol=0, atol=1.0)
    if kind == "single":
        torch.testing.assert_close(soft.sum(dim=1), torch.ones(4))
        logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
        found = image_losses(nn.Identity(), logits, mixed, config_of("single"))
        share = float(mixed["share"])
        parts = [functional.cross_entropy(logits, mixed[key], reduction="none") for key in ("label", "partner")]
        torch.testing.assert_close(found, share * parts[0] + (1 - share) * parts[1])


def test_cutmix_puts_a_box_of_the_other_image_in() -> None:
    mixed = mix_batch(batch_of("single"), config_of("single", mix={"cutmix": 1.0}), np.random.default_rng(3))
    for number, image in enumerate(mixed["image"]):
        others = image[0] != number
        if others.any():
            rows, columns = (others.any(dim=axis).nonzero().flatten() for axis in (1, 0))
            box = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert len(box.unique()) == 1
            assert box[0].numel() == others.sum() == round((1 - float(mixed["share"])) * 80)


def test_a_batch_is_left_alone_where_nothing_is_asked_or_by_chance() -> None:
    batch = batch_of("single")
    assert mix_batch(batch, config_of("single"), np.random.default_rng(0)) is batch
    config = config_of("single", mix={"mixup": 1.0, "cutmix": 1.0, "probability": 0.3})
    changed = [mix_batch(batch, config, np.random.default_rng(seed)) is not batch for seed in range(200)]
    assert 0.2 < np.mean(changed) < 0.4


def test_a_turned_view_that_the_network_cannot_take_is_refused_before_training(
    tmp_path: Path, command: Callable[..., CompletedProcess[str]]
) -> None:
    write_sample("classification", tmp_path / "data", 20)
    words = [PROJECT / "configs" / "classification.yaml", *TINY, "data.image_size=[32,64]"]
    words += ["model.encoder=vit_tiny_patch16_224"]
    assert command("folds", *words).returncode == 0
    done = command("train", *words, "tta=[rot90]")
    assert done.returncode == 1
    assert done.stderr.startswith("tta: rot90: vit_tiny_patch16_224 cannot take images of 64 x 32")
    assert not list(tmp_path.glob("outputs/*/*/latest.pt"))
