"""Every architecture of detectors: it learns, image by image, says boxes in pixels, and is what its authors made."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from detection_architectures import ON_ENCODER, TINY, of_all_places, skip_without, tiny
from hub import fetch_twice
from safetensors.torch import load_file
from tiny import PROJECT
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.models.detection import FasterRCNN_MobileNet_V3_Large_FPN_Weights, fasterrcnn_mobilenet_v3_large_fpn

from competition.config.data_settings import Data
from competition.config.loading import load_config, validate
from competition.networks.encoder import encoder_layers, refuse_other_sizes
from competition.networks.pretrained import weights_note
from competition.support.errors import CompetitionError
from competition.tasks.detection.architectures.published_detrs import KINDS, Kind
from competition.tasks.detection.decode import decode
from competition.tasks.detection.loss import image_losses
from competition.tasks.detection.model import BoxNetwork, build_network
from competition.tasks.detection.prediction import predictions
from competition.tasks.detection.settings import OF_TRANSFORMERS, DetectionModel, TaskConfig
from competition.training.checkpoint import export_weights

CLASSES, SIZE = 3, (64, 96)
BOXES = ([[4.0, 6.0, 30.0, 40.0], [30.0, 30.0, 60.0, 62.0]], [], [[0.0, 0.0, 64.0, 64.0]], [[10.0, 10.0, 11.0, 11.0]])
each = pytest.mark.parametrize("architecture", TINY)
each_detr = pytest.mark.parametrize("architecture", OF_TRANSFORMERS)


@pytest.fixture(autouse=True)
def skip_what_is_not_there(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    skip_without(callspec.params.get("architecture") if callspec is not None else None)


def config(architecture: str, model: dict[str, Any] | None = None, **sections: Any) -> TaskConfig:
    values = {"name": "t", "task": "detection", "data": {"image_size": list(SIZE)}} | sections
    values["model"] = tiny(architecture) if model is None else {"architecture": architecture, **model}
    made = validate(values, {}, "test")
    assert isinstance(made, TaskConfig)
    return made


def batch_of(boxes: Sequence[list[list[float]]], labels: int = CLASSES) -> dict[str, Any]:
    return {
        "boxes": [torch.tensor(rows).reshape(-1, 4) for rows in boxes],
        "labels": [torch.arange(len(rows)) % labels for rows in boxes],
        "height": torch.full((len(boxes),), 100),
        "width": torch.full((len(boxes),), 200),
    }


def inner(network: BoxNetwork) -> Any:
    """Return the network of transformers."""
    return network.detr


def losses_of(network: BoxNetwork, images: Tensor, boxes: Sequence[list[list[float]]], made: TaskConfig) -> Tensor:
    return image_losses(network, network(images), batch_of(boxes), made)


def squares(number: int, seed: int = 0, colours: int = CLASSES) -> tuple[Tensor, list[list[list[float]]], list[Tensor]]:
    """Return images (number, 3, *SIZE) with one bright square each, of a colour that is its class."""
    rng, (height, width) = np.random.default_rng(seed), SIZE
    images, boxes, labels = torch.randn(number, 3, *SIZE) * 0.1, [], []
    for image in images:
        side, label = int(rng.integers(20, 40)), int(rng.integers(colours))
        x, y = int(rng.integers(width - side)), int(rng.integers(height - side))
        image[label % 3, y : y + side, x : x + side] += 3
        boxes.append([[float(x), float(y), float(x + side), float(y + side)]])
        labels.append(torch.tensor([label]))
    return images, boxes, labels


def train(
    network: BoxNetwork,
    made: TaskConfig,
    steps: int,
    colours: int = CLASSES,
    lr: float = 2e-3,
    *,
    is_same: bool = False,
) -> list[float]:
    optimizer, history = torch.optim.AdamW(network.parameters(), lr), []
    network.train()
    for step in range(steps):
        images, boxes, labels = squares(2, 0 if is_same else step, colours)
        losses = image_losses(network, network(images), batch_of(boxes) | {"labels": labels}, made)
        optimizer.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        history.append(losses.mean().item())
    return history


@each
def test_a_few_steps_teach_it_something(architecture: str) -> None:
    made = config(architecture)
    network = build_network(made, CLASSES)
    steps = 16 if architecture in ("lw_detr", "rf_detr") else 10  # of a transformer without convolutions before it
    history = train(network, made, steps, lr=3e-3, is_same=True)
    assert np.mean(history[-3:]) < 0.9 * history[0]
    assert all(parameter.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("architecture", "towers"),
    [
        ("fcos", ("fcos.head.classification_head.conv", "fcos.head.regression_head.conv")),
        ("tood", ("head.class_tower", "head.place_tower")),
    ],
)
def test_a_head_has_as_many_convolutions_before_each_output_as_are_asked_for(
    architecture: str, towers: Sequence[str]
) -> None:
    for number in (0, 1, 3):
        made = config(architecture, ON_ENCODER | {"head_convolutions": number})
        network = build_network(made, CLASSES)
        for tower in towers:
            layers = network.get_submodule(tower).modules()
            assert sum(isinstance(layer, nn.Conv2d) for layer in layers) == number
        losses_of(network, torch.randn(2, 3, *SIZE), BOXES[:2], made).sum().backward()
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


@pytest.mark.parametrize(
    ("words", "box", "focal_gamma", "convolutions"),
    [
        ([], 7.5, 0, 1),
        (["loss={box: 2}", "model.head_convolutions=3"], 2, 0, 3),
        (["model.architecture=fcos"], 1, 2, 4),
        (["model.architecture=fcos", "loss.focal_gamma=0"], 1, 0, 4),
        (["model.architecture=dfine"], 1, 2, 4),
    ],
)
def test_losses_and_heads_are_as_the_architecture_wants_them_where_nobody_asks_for_others(
    words: list[str], box: float, focal_gamma: float, convolutions: int
) -> None:
    made = load_config([PROJECT / "configs" / "detection.yaml"], words)
    assert isinstance(made, TaskConfig)
    for one in (made, TaskConfig.model_validate(made.model_dump(mode="json"))):
        assert (one.loss.box, one.loss.focal_gamma) == (box, focal_gamma)
        assert one.model.head_convolutions == convolutions


@each
@torch.no_grad()
def test_a_head_of_the_image_leaves_the_rest_as_it_is(architecture: str) -> None:
    built = []
    for weight in (0, 0.5):
        torch.manual_seed(0)
        built.append(build_network(config(architecture, loss={"auxiliary": weight}), CLASSES).eval())
    plain, weights = (network.state_dict() for network in built)
    assert {*weights} - {*plain} == {"image_head.classes.weight", "image_head.classes.bias"}
    assert all(torch.equal(value, weights[name]) for name, value in plain.items())
    images, batch = torch.randn(2, 3, *SIZE), batch_of(BOXES[:2])
    # Copied as for several devices, each hears its own encoder.
    without, *found = (predictions(one, one(images), batch) for one in (*built, deepcopy(built[1])))
    for with_head in found:
        for one, other in zip(with_head, without, strict=True):
            assert {*one} - {*other} == {"presence"}
            assert all(np.array_equal(one[key], values) for key, values in other.items())
    said, again = ([one["presence"] for one in with_head] for with_head in found)
    np.testing.assert_array_equal(said, again)
    assert not np.array_equal(said[0], said[1])


@each
def test_a_head_of_the_image_learns_which_classes_have_a_box_and_so_does_the_encoder(architecture: str) -> None:
    made = [config(architecture, loss={"auxiliary": weight}) for weight in (1, 3)]
    network = build_network(made[0], CLASSES).eval()  # without chance, and yet learning
    batch = batch_of(BOXES[:2])
    outputs = network(torch.randn(2, 3, *SIZE))
    once, thrice = (image_losses(network, outputs, batch, one) for one in made)
    said = network.presence(outputs)
    assert said is not None
    true = torch.tensor([[1.0, 1, 0], [0, 0, 0]])
    expected = binary_cross_entropy_with_logits(said, true, reduction="none").mean(dim=1)
    torch.testing.assert_close((thrice - once) / 2, expected)
    expected.sum().backward()
    place, _ = network.__dict__["encoder_note"]
    assert any(one.grad is not None and one.grad.any() for one in network.get_submodule(place).parameters())


@each
def test_the_loss_of_a_batch_is_that_of_its_images_one_by_one(architecture: str) -> None:
    made = config(architecture, of_all_places(architecture))
    network = build_network(made, CLASSES).eval().double()  # in float32, last digits hang on batch size and CPU
    images = torch.randn(4, 3, *SIZE).double()
    with torch.no_grad():
        together = losses_of(network, images, BOXES, made)
        alone = torch.cat([losses_of(network, images[i : i + 1], BOXES[i : i + 1], made) for i in range(4)])
        turned = losses_of(network, images.flip(0), BOXES[::-1], made).flip(0)
    assert together.shape == (4,)
    assert (together > 0).all()
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together, turned, rtol=1e-5, atol=1e-6)


@each
def test_images_without_boxes_train_every_weight(architecture: str) -> None:
    """Under two processes the one without a box would let the other wait for gradients."""
    made = config(architecture)
    network = build_network(made, CLASSES).train()
    losses = losses_of(network, torch.randn(2, 3, *SIZE), [[], []], made)
    assert losses.isfinite().all()
    losses.mean().backward()
    missing = [name for name, one in network.named_parameters() if one.requires_grad and one.grad is None]
    assert not missing
    assert all(one.grad.isfinite().all() for one in network.parameters() if one.grad is not None)


@torch.no_grad()
@each
def test_predicted_boxes_are_in_pixels_of_the_original_image_best_first(architecture: str) -> None:
    made = config(architecture)
    network = build_network(made, CLASSES).eval()
    outputs = network(torch.randn(2, 3, *SIZE))
    rows = predictions(network, outputs, batch_of([[], []]))  # originals of 100 x 200
    for row, found in zip(rows, network.detections(outputs), strict=True):
        assert len(row["boxes"]) == len(row["scores"]) == len(row["labels"])
        scale = np.array([200 / SIZE[1], 100 / SIZE[0]] * 2, dtype=np.float32)
        np.testing.assert_allclose(row["boxes"], found["boxes"].numpy() * scale, rtol=1e-5, atol=1e-4)
        assert (np.diff(row["scores"]) <= 0).all()
        assert set(row["labels"].tolist()) <= set(range(CLASSES))
        assert (row["boxes"] >= 0).all()
        assert (row["boxes"] <= [200, 100, 200, 100]).all()


@torch.no_grad()
@each
def test_its_encoder_is_known_and_ends_before_decoder_and_heads(architecture: str) -> None:
    network = build_network(config(architecture), CLASSES)
    layers = encoder_layers(network, "model.freeze")
    assert layers.numbers
    assert max(layers.numbers.values()) < layers.last
    own = network.get_submodule(network.__dict__["encoder_note"][0])
    assert set(layers.numbers) == {
        name for name, one in network.named_parameters() if any(one is two for two in own.parameters())
    }


@each
def test_exported_weights_make_the_same_network_wherever_they_are_read(architecture: str, tmp_path: Path) -> None:
    made = config(architecture)
    network = build_network(made, CLASSES)
    torch.save({"state_dict": {f"network.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "latest.pt")
    export_weights(tmp_path / "latest.pt")
    other = build_network(made, CLASSES)
    other.load_state_dict(load_file(tmp_path / "latest.safetensors"))
    images = torch.randn(1, 3, *SIZE)
    copy = deepcopy(other)  # as for a second GPU
    expected = losses_of(network.eval(), images, BOXES[:1], made)
    assert torch.equal(losses_of(other.eval(), images, BOXES[:1], made), expected)
    assert torch.equal(losses_of(copy.eval(), images, BOXES[:1], made), expected)


@torch.no_grad()
@each
def test_in_half_precision_boxes_are_said_in_full(architecture: str) -> None:
    made = config(architecture)
    network = build_network(made, CLASSES).eval()
    images = torch.randn(2, 3, *SIZE)
    exact = losses_of(network, images, BOXES[:2], made)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(images)
        losses, found = image_losses(network, outputs, batch_of(BOXES[:2]), made), network.detections(outputs)
    assert not torch.equal(losses, exact)  # half was computed in somewhere
    torch.testing.assert_close(losses, exact, rtol=0.2, atol=0.05)
    assert all(one["boxes"].dtype == one["scores"].dtype == torch.float32 for one in found)


def their_losses(network: Any, images: Tensor, boxes: list[list[float]]) -> Tensor:
    """Return the loss that transformers itself has for one image."""
    height, width = SIZE
    true = torch.tensor(boxes) / torch.tensor([width, height, width, height])
    middles, sides = (true[:, :2] + true[:, 2:]) / 2, true[:, 2:] - true[:, :2]
    target = {"boxes": torch.cat([middles, sides], dim=1), "class_labels": torch.arange(len(boxes)) % CLASSES}
    ours = network.detr.__dict__.pop("_loss_function")
    try:
        return network.detr(pixel_values=images, labels=[target]).loss
    finally:
        network.detr.loss_function = ours


@torch.no_grad()
@pytest.mark.parametrize(
    ("architecture", "keys", "is_training"),
    [
        ("rt_detr_v2", {}, False),
        ("rt_detr_v2", {}, True),
        ("lw_detr", {}, True),
        ("lw_detr", {"group_detr": 1}, False),  # its own loss splits the one group of a validation into several
        ("rf_detr", {}, True),
        # Its losses of corners are its authors': transformers pairs the layers' boxes with the next one's corners.
        ("dfine", {"weight_loss_fgl": 0.0, "weight_loss_ddf": 0.0}, False),
    ],
)
def test_the_loss_of_one_image_is_that_of_transformers(
    architecture: str, keys: dict[str, Any], is_training: bool
) -> None:
    pytest.importorskip("transformers", minversion="5.24")  # 5.0 counts noisy queries twice, and fails without any
    still = {"dropout": 0.0}
    network_keys = {"network": TINY[architecture]["network"] | keys | still}
    made = config(architecture, TINY[architecture] | network_keys)
    network = build_network(made, CLASSES).train(is_training)
    images = torch.randn(1, 3, *SIZE)
    torch.manual_seed(1)  # of the noise
    ours = losses_of(network, images, BOXES[:1], made)
    torch.manual_seed(1)
    torch.testing.assert_close(ours.sum(), their_losses(network, images, BOXES[0]), rtol=1e-4, atol=1e-4)


def test_corners_that_say_the_true_box_cost_nothing_more() -> None:
    """D-FINE's loss of distributions falls to that of the best mix of two neighbours as they come to say the truth."""
    pytest.importorskip("transformers")
    from competition.tasks.detection.architectures.detr_loss import DetrLoss, Layer, Truth

    network = build_network(config("dfine"), CLASSES)
    settings = inner(network).config
    settings.weight_loss_bbox = settings.weight_loss_giou = 0.0
    truth = Truth.of([torch.tensor([[0.5, 0.5, 0.4, 0.4]])], [torch.tensor([1])])
    logits, boxes = torch.zeros(1, 1, CLASSES), truth.boxes.clone()
    right = torch.full((1, 1, 4, settings.max_num_bins + 1), -20.0)
    right[..., settings.max_num_bins // 2] = 20.0  # no way from the box that it starts from
    for corners, is_good in ((right, True), (right.flip(-1).roll(1, -1), False)):
        layer = Layer(logits, boxes, corners.flatten(2), boxes)
        (loss,) = DetrLoss(settings)([layer], truth)["box"].tolist()
        assert (loss < 0.01) == is_good


def test_a_layer_that_says_what_the_last_one_does_has_nothing_to_learn_of_it() -> None:
    pytest.importorskip("transformers")
    from competition.tasks.detection.architectures.detr_loss import DetrLoss, Layer, Truth

    settings = inner(build_network(config("dfine"), CLASSES)).config
    truth = Truth.of([torch.tensor([[0.5, 0.5, 0.4, 0.4]])], [torch.tensor([1])])
    said = torch.randn(1, 5, 4 * (settings.max_num_bins + 1))
    boxes = torch.rand(1, 5, 4)
    last = Layer(torch.randn(1, 5, CLASSES), boxes, said, boxes)
    alone = DetrLoss(settings)([last], truth)["box"]
    same = DetrLoss(settings)([Layer(last.logits, boxes, said, boxes, teacher=last)], truth)["box"]
    other = DetrLoss(settings)([Layer(last.logits, boxes, said, boxes, Layer(last.logits, boxes, said * 2))], truth)[
        "box"
    ]
    torch.testing.assert_close(same, alone)
    assert other > alone


def published(architecture: str, size: str) -> tuple[Kind, Any]:
    """Return what is known of a published network, and its config in transformers, for 80 classes."""
    from competition.tasks.detection.architectures import detr  # imports transformers

    model = DetectionModel.model_validate({"architecture": architecture, "size": size})
    kind = KINDS[architecture]
    return kind, detr._config(pytest.importorskip("transformers"), kind, detr.network_keys(model, 3), 80)


def test_a_backbone_of_transformers_may_stand_under_a_detr() -> None:
    pytest.importorskip("transformers")
    backbone = {"model_type": "dinov3_convnext", "hidden_sizes": [16, 32, 48, 64], "depths": [1] * 4}
    backbone["out_features"] = ["stage2", "stage3", "stage4"]
    keys = TINY["dfine"]["network"] | {"backbone_config": backbone, "encoder_in_channels": [32, 48, 64]}
    made = config("dfine", {"network": keys})
    network = build_network(made, CLASSES)
    before = [value.clone() for value in inner(network).model.backbone.parameters()]
    train(network, made, 2)
    after = list(inner(network).model.backbone.parameters())
    assert sum(not torch.equal(*pair) for pair in zip(before, after, strict=True)) > len(before) / 2
    with pytest.raises(CompetitionError, match=r"pretrained: true: .*not for a dinov3_convnext of model\.network"):
        build_network(config("dfine", {"network": keys, "pretrained": True}), CLASSES)


@each_detr
def test_a_published_size_has_as_many_weights_as_its_authors_say(architecture: str) -> None:
    millions = {"dfine": (10, 19, 31), "rt_detr_v2": (20, 31, 42), "lw_detr": (14, 28, 46), "rf_detr": (32, 33, 33)}
    import transformers

    for size, expected in zip("sml", millions[architecture], strict=True):
        kind, settings = published(architecture, size)
        with torch.device("meta"):
            network = getattr(transformers, f"{kind.name}ForObjectDetection")(settings)
        assert sum(one.numel() for one in network.parameters()) // 1_000_000 == expected


def saved(tmp_path: Path, architecture: str, steps: int) -> tuple[Path, BoxNetwork]:
    """Train a small detector and save it as a folder of the hub."""
    made = config(architecture)
    network = build_network(made, CLASSES)
    train(network, made, steps)
    folder = tmp_path / "from the hub"
    inner(network).save_pretrained(folder)
    return folder, network


@each_detr
def test_a_loss_of_the_users_sees_what_the_network_says_while_it_learns(architecture: str) -> None:
    made = config(architecture)
    network = build_network(made, CLASSES).train()
    outputs = network(torch.randn(len(BOXES), 3, *SIZE))
    image_losses(network, outputs, batch_of(BOXES), made)  # comes first, with the noise of true boxes
    logits = outputs.said["logits"][:, -outputs.said["queries"] :]
    assert logits.shape == (len(BOXES), outputs.said["queries"], CLASSES)
    assert logits.requires_grad


@pytest.mark.slow
def test_a_pretrained_folder_begins_better_than_nothing(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder, _ = saved(tmp_path, "lw_detr", 120)
    made = config("lw_detr", {"pretrained": str(folder)})
    network, nothing = build_network(made, 5), build_network(config("lw_detr"), 5)
    line = weights_note(network) or ""
    kept, number = map(int, re.findall(r"(\d+) of (\d+) tensors of lw_detr kept", line)[0])
    assert 0.9 * number < kept < number
    assert "class_embed" in line
    assert line.endswith(f"from {folder}")
    tuned, fresh = (np.mean(train(one, made, 8, colours=5)) for one in (network, nothing))
    assert tuned < 0.75 * fresh  # 0.51 to 0.68, by the processor and the seed


@pytest.mark.slow
def test_a_published_size_comes_from_the_hub_and_is_there_without_it_from_then_on(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = {"architecture": "dfine", "size": "s", "pretrained": True}
    kind, settings = published("dfine", "s")
    folder = tmp_path / "repos" / kind.sizes["s"][0]
    transformers.DFineForObjectDetection(settings).save_pretrained(folder)
    wanted = {"dfine": (folder, {"name": "t", "task": "detection", "model": model})}
    for found in fetch_twice(tmp_path, wanted):
        kept, number, line = found["dfine"]
        assert 0.95 * number < kept < number  # all but what tells classes apart
        assert re.search(r"dfine s kept, anew: .*class_embed.*, from the hub \(ustc-community/dfine-small", line)


def test_what_torchvision_has_fetched_is_kept_but_for_the_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1
    theirs = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None).state_dict()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(theirs, tmp_path / "hub" / "checkpoints" / Path(weights.url).name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    network = build_network(config("faster_rcnn", {"size": "s", "pretrained": True}), CLASSES)
    own = {name.removeprefix("rcnn."): value for name, value in network.state_dict().items()}
    anew = {name for name, value in theirs.items() if name not in own or not torch.equal(own[name], value)}
    assert anew == {name for name in theirs if name.startswith("roi_heads.box_predictor.")}
    assert re.search(r"anew: .*box_predictor.*, from torchvision$", weights_note(network) or "")


@each_detr
def test_a_run_of_a_folder_needs_it_no_more_once_it_is_begun(architecture: str, tmp_path: Path) -> None:
    folder, _ = saved(tmp_path, architecture, 0)
    made = config(architecture, {"pretrained": str(folder)})
    begun = build_network(made, 4)
    values = made.model_dump(mode="json")
    values["model"]["pretrained"] = False  # as in a checkpoint and in a bundle
    (folder / "config.json").unlink()
    again = build_network(TaskConfig.model_validate(values), 4)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in begun.state_dict().items()}
    assert type(inner(again).config) is type(inner(begun).config)
    images = torch.randn(1, 3, *SIZE)
    again.load_state_dict(begun.state_dict())
    with torch.no_grad():
        assert torch.equal(
            losses_of(again.eval(), images, BOXES[:1], made), losses_of(begun.eval(), images, BOXES[:1], made)
        )


@pytest.mark.parametrize("architecture", ["faster_rcnn", "dfine", "rf_detr"])
def test_the_weights_of_a_run_begin_another_with_other_classes(architecture: str, tmp_path: Path) -> None:
    network = build_network(config(architecture), CLASSES)
    path = tmp_path / "latest.pt"
    torch.save({"state_dict": {f"network.{k}": v for k, v in network.state_dict().items()}}, path)
    export_weights(path)
    model = TINY[architecture] | {"pretrained": str(path.with_suffix(".safetensors"))}
    other = build_network(config(architecture, model), CLASSES + 1)
    line = weights_note(other) or ""
    assert re.search(r"\d+ of \d+ tensors of ", line)
    own, before = other.state_dict(), network.state_dict()
    same = sum(value.shape == before[name].shape and torch.equal(value, before[name]) for name, value in own.items())
    assert same > len(own) / 2 if architecture == "faster_rcnn" else same > 0.9 * len(own)  # there, of an encoder's


def refusal(build: Callable[[], object]) -> str:
    with pytest.raises(CompetitionError) as caught:
        build()
    assert "\n" not in str(caught.value)
    return str(caught.value)


BACKBONE = TINY["lw_detr"]["network"]["backbone_config"]
REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "a side of no multiple": (
        "dfine",
        TINY["dfine"],
        {"data": {"image_size": [64, 80]}},
        "64 x 80; dfine takes multiples",
    ),
    "a view of no multiple": (
        "lw_detr",
        {"network": TINY["lw_detr"]["network"] | {"backbone_config": {**BACKBONE, "num_windows": 16}}},
        {"data": {"image_size": [64, 128]}, "tta": ["scale1.5"]},
        "tta: scale1.5: found 96 x 192; lw_detr takes multiples of 64, as 128 x 192",
    ),
    "windows without joining": (
        "dfine",
        TINY["dfine"],
        {"data": {"window": {}}, "decode": {"join": "none"}},
        "decode.join: found none with data.window",
    ),
    "windows": ("rf_detr", TINY["rf_detr"], {"data": {"image_size": [48, 64]}}, "takes multiples of 32, as 64 x 64"),
    "too few places": ("dfine", TINY["dfine"] | {"network": {}}, {}, "126 places for the 300 queries"),
    "no size": ("lw_detr", {}, {}, "model.size: is missing"),
    "a size of fcos": ("fcos", {"size": "s"}, {}, "fcos has no published sizes"),
    "an unknown size": ("faster_rcnn", {"size": "l"}, {}, "torchvision has faster_rcnn as s and m"),
    "an unknown key": ("dfine", {"network": {"decoder_layer": 2}}, {}, "did you mean `decoder_layers`?"),
    "keys of nothing": ("faster_rcnn", {"network": {"d_model": 2}}, {}, "faster_rcnn has no such keys"),
    "a loss of fcos": ("dfine", TINY["dfine"], {"loss": {"box_kind": "ciou"}}, "loss.box_kind: is for fcos and tood"),
    "a loss of fcos alone": ("tood", ON_ENCODER, {"loss": {"focal_alpha": 0.5}}, "loss.focal_alpha: is for fcos; tood"),
    "a head of tood": (
        "faster_rcnn",
        ON_ENCODER | {"head_convolutions": 1},
        {},
        "model.head_convolutions: is for fcos and tood; faster_rcnn",
    ),
    "a size of tood": ("tood", {"size": "s"}, {}, "tood has no published sizes"),
    "a loss of nothing": ("dfine", TINY["dfine"], {"loss": {"box": 0.0, "classification": 0.0}}, "nothing is learnt"),
    "an encoder of no levels": ("dfine", {"encoder": "test_vit"}, {}, "test_vit"),
    "weights that nobody has": ("rf_detr", {"pretrained": True}, {}, "model.size: is missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_had_is_refused_in_a_line(case: str) -> None:
    architecture, model, sections, expected = REFUSED[case]
    skip_without(architecture)
    said = refusal(lambda: build_network(config(architecture, model, **sections), CLASSES))
    assert expected in said


@pytest.mark.parametrize(
    ("installed", "architecture", "expected"),
    [
        ("5.3.1", "rf_detr", "rf_detr needs transformers 5.15 or newer, found 5.3.1"),
        ("4.57.0", "dfine", "dfine needs transformers 5.0 or newer, found 4.57.0"),
        (None, "dfine", "needs the package transformers, 5.0 or newer: uv sync --extra detr"),
    ],
)
def test_a_library_that_is_too_old_or_not_there_is_told(
    installed: str | None, architecture: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = None if installed is None else SimpleNamespace(__version__=installed)
    monkeypatch.setitem(sys.modules, "transformers", found)
    assert expected in refusal(lambda: build_network(config(architecture), CLASSES))


def test_a_folder_of_another_architecture_is_refused(tmp_path: Path) -> None:
    for content, expected in (({"model_type": "rf_detr"}, "is of a rf_detr"), ({}, "cannot be read")):
        (tmp_path / "config.json").write_text(json.dumps(content))
        assert expected in refusal(lambda: config("dfine", {"pretrained": str(tmp_path)}))


def test_weights_most_of_which_do_not_fit_are_refused(tmp_path: Path) -> None:
    skip_without("rf_detr")
    folder, _ = saved(tmp_path, "rf_detr", 0)
    wide = TINY["rf_detr"]["network"] | {"d_model": 48, "decoder_ffn_dim": 32}
    wide["backbone_config"] = wide["backbone_config"] | {"hidden_size": 48}
    said = refusal(lambda: build_network(config("rf_detr", {"pretrained": str(folder), "network": wide}), CLASSES))
    assert re.search(r"\d+ of \d+ tensors of rf_detr fit", said)


def test_a_size_of_some_epochs_that_a_transformer_cannot_take_is_told_by_its_own_multiple() -> None:
    pytest.importorskip("transformers")
    network = build_network(config("dfine"), CLASSES)
    said = refusal(lambda: refuse_other_sizes(network, 3, {(64, 80): "data.image_size"}))
    assert re.fullmatch(r"data\.image_size: .*found 64 x 80; dfine takes multiples of 32, as 64 x (64|96)", said)


def test_boxes_of_one_transformer_all_stay_and_those_of_several_are_averaged() -> None:
    settings = config("dfine")
    assert settings.decode.join == "none"
    assert config("fcos").decode.join == "nms"
    # Windows overlap, and an object that two of them show is to be handed in once.
    assert config("dfine", TINY["dfine"], data={"window": {"size": 64}}).decode.join == "nms"
    assert config("dfine", TINY["dfine"], loss={"box": 0, "classification": 0, "mine.py": 1}).loss.files
    assert config("dfine", TINY["dfine"], decode={"join": "soft_nms"}).decode.join == "soft_nms"
    one: dict[str, np.ndarray] = {
        "boxes": np.array([[10, 10, 50, 50], [11, 10, 51, 50]], dtype=np.float32),
        "scores": np.array([0.5, 0.9], dtype=np.float32),
        "labels": np.zeros(2, dtype=np.int64),
        "model": np.zeros(2, dtype=np.int16),
        "model_weights": np.ones(1, dtype=np.float32),
    }
    alone = decode(one, 100, 100, settings)
    assert alone["scores"].tolist() == pytest.approx([0.9, 0.5])
    several = one | {"model": np.array([0, 1], dtype=np.int16), "model_weights": np.ones(2, dtype=np.float32)}
    assert len(decode(several, 100, 100, settings)["scores"]) == 1


def test_other_channels_than_three_are_seen() -> None:
    data = Data(image_size=SIZE, channels=1, mean=[0.5], std=[0.2])
    for architecture in TINY:
        skip_without(architecture)
        made = config(architecture).model_copy(update={"data": data})
        network = build_network(made, CLASSES).eval()
        with torch.no_grad():
            assert losses_of(network, torch.randn(1, 1, *SIZE), BOXES[:1], made).isfinite().all()
