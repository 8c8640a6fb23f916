"""The detector and its loss: shapes, images that do not touch each other, images without boxes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import complete_box_iou_loss

from competition.config.data_settings import Data
from competition.config.views import view_of
from competition.support.errors import CompetitionError
from competition.tasks.detection.loss import image_losses
from competition.tasks.detection.model import BoxNetwork, EncoderWithPyramid, Head, build_fcos
from competition.tasks.detection.prediction import predictions
from competition.tasks.detection.settings import DetectionLoss, DetectionModel, TaskConfig

CLASSES = 3
BOXES = ([[4.0, 6.0, 30.0, 40.0], [30.0, 30.0, 60.0, 62.0]], [], [[0.0, 0.0, 64.0, 64.0]], [[10.0, 10.0, 11.0, 11.0]])


def config(channels: int = 3, loss: DetectionLoss | None = None, **model: Any) -> TaskConfig:
    return TaskConfig(
        name="t",
        task="detection",
        data=Data(channels=channels, mean=[0.5] * channels, std=[0.2] * channels),
        model=DetectionModel.model_validate({"encoder": "test_resnet", "pyramid_channels": 64} | model),
        loss=loss or DetectionLoss(),
    )


def batch_of(boxes: Sequence[list[list[float]]]) -> dict[str, Any]:
    return {
        "boxes": [torch.tensor(rows).reshape(-1, 4) for rows in boxes],
        "labels": [torch.arange(len(rows)) for rows in boxes],
        "height": torch.full((len(boxes),), 100),
        "width": torch.full((len(boxes),), 200),
    }


def losses_of(network: BoxNetwork, images: Tensor, boxes: Sequence[list[list[float]]], made: TaskConfig) -> Tensor:
    return image_losses(network, network(images), batch_of(boxes), made)


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["test_resnet", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_head_says_something_of_every_point(encoder: str, channels: int) -> None:
    network = build_fcos(config(channels, encoder=encoder), CLASSES).eval()
    outputs = network(torch.randn(2, channels, 64, 96))
    points = sum(outputs.points_per_level)
    assert outputs.points_per_level[:3] == [8 * 12, 4 * 6, 2 * 3]
    assert outputs.head["cls_logits"].shape == (2, points, CLASSES)
    assert outputs.head["bbox_regression"].shape == (2, points, 4)
    assert [anchors.shape for anchors in outputs.anchors] == [(points, 4)] * 2
    assert all(values.isfinite().all() for values in outputs.head.values())


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_every_box_larger_than_the_finest_stride_has_an_anchor_point(encoder: str) -> None:
    network = build_fcos(config(encoder=encoder), CLASSES).eval()
    rng = np.random.default_rng(0)
    sizes = [*rng.integers(40, 300, size=(3, 2)).tolist(), [50, 1490], view_of("scale1.25").scaled_size(200, 100)]
    for (height, width), is_half in zip(sizes, [False, True, False, True, False], strict=True):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            outputs = network(torch.zeros(1, 3, height, width))
        (anchors,) = outputs.anchors
        assert len(anchors) == sum(outputs.points_per_level) == outputs.head["bbox_regression"].shape[1]
        middles = ((anchors[:, :2] + anchors[:, 2:]) / 2).numpy()
        strides = 8 * 2 ** np.repeat(np.arange(5), outputs.points_per_level)[:, None]
        assert (anchors[:, 2:] - anchors[:, :2] == torch.from_numpy(strides)).all()
        assert (middles % strides == 0).all()  # where the level's convolutions look at
        size = np.array([width, height])
        extent = rng.uniform(8.01, size, size=(100, 2))
        first = rng.uniform(0, size - extent)
        first[:50] = (size - extent)[:50]  # at the right and lower edge
        inside = (middles > first[:, None]) & (middles < (first + extent)[:, None])
        assert inside.all(axis=2).any(axis=1).all(), (height, width)


@torch.no_grad()
def test_an_encoder_whose_levels_are_smaller_than_their_strides_say_sees_the_whole_image() -> None:
    network = build_fcos(config(encoder="inception_v3"), CLASSES).eval()
    assert network(torch.zeros(1, 3, 100, 160)).points_per_level == [16 * 20, 8 * 10, 4 * 5, 2 * 3, 1 * 2]


@torch.no_grad()
def test_coordinates_are_said_in_full_precision_in_a_network_in_half() -> None:
    network = build_fcos(config(), CLASSES).eval()
    images = torch.randn(1, 3, 64, 1400)
    exact = network.detections(network(images))[0]["boxes"]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(images)
        said, found = outputs.head["bbox_regression"], network.detections(outputs)[0]["boxes"]
    assert (said != said.bfloat16()).any()
    assert found.dtype == exact.dtype == torch.float32
    assert len(np.unique(found[found[:, 2] > 1024].numpy() % 4)) > 20  # bfloat16 knows multiples of 8 there
    with pytest.raises(ValidationError, match=r"trainer\.precision: found bf16-true.*give bf16-mixed"):
        TaskConfig.model_validate({"name": "t", "task": "detection", "trainer": {"precision": "bf16-true"}})


def test_an_encoder_without_the_levels_is_refused_in_a_line() -> None:
    with pytest.raises(CompetitionError, match=r"test_vit.*strides") as caught:
        build_fcos(config(encoder="test_vit"), CLASSES)
    assert "\n" not in str(caught.value)


@torch.no_grad()
@pytest.mark.parametrize("width", [1, 16, 32, 48, 64, 96, 100])
def test_every_pyramid_that_the_config_takes_works_on_one_small_image(width: int) -> None:
    try:
        made = config(pyramid_channels=width)
    except ValidationError:
        assert width % 32 or width < 64
        return
    network = build_fcos(made, CLASSES).eval()
    assert network(torch.randn(1, 3, 64, 64)).head["cls_logits"].isfinite().all()


def test_the_loss_of_a_batch_is_that_of_its_images_one_by_one() -> None:
    made = config()
    network = build_fcos(made, CLASSES).eval().double()  # in float32, last digits hang on batch size and CPU
    images = torch.randn(4, 3, 64, 64).double()
    with torch.no_grad():
        together = losses_of(network, images, BOXES, made)
        alone = torch.cat([losses_of(network, images[i : i + 1], BOXES[i : i + 1], made) for i in range(4)])
        turned = losses_of(network, images.flip(0), BOXES[::-1], made).flip(0)
    assert together.shape == (4,)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together, turned, rtol=1e-5, atol=1e-6)


def test_images_without_boxes_have_a_finite_loss_that_trains() -> None:
    made = config()
    network = build_fcos(made, CLASSES).train()
    loss = losses_of(network, torch.randn(2, 3, 64, 64), [[], []], made)
    assert loss.isfinite().all()
    assert (loss > 0).all()
    loss.mean().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_losses_add_up_by_their_weights() -> None:
    network = build_fcos(config(), CLASSES).eval()
    images = torch.randn(4, 3, 64, 64)

    @torch.no_grad()
    def loss(**weights: float) -> Tensor:
        zero = {"classification": 0.0, "box": 0.0, "centerness": 0.0}
        return losses_of(network, images, BOXES, config(loss=DetectionLoss.model_validate(zero | weights)))

    parts = loss(classification=2) + loss(box=3) + loss(centerness=0.5)
    torch.testing.assert_close(loss(classification=2, box=3, centerness=0.5), parts)
    assert loss(box=1)[0] > 0
    assert loss(box=1)[1] == 0  # no box, nothing to be near to


def test_the_losses_are_torchvisions_unless_others_are_asked_for() -> None:
    network = build_fcos(config(), CLASSES).eval()
    boxes, labels = torch.tensor(BOXES[0]), torch.tensor([0, 2])
    with torch.no_grad():
        outputs = network(torch.randn(1, 3, 64, 64))
        ours = network.image_losses(outputs, [boxes], [labels])
        theirs = FCOSHead(64, 1, CLASSES)
        network.fcos.head = theirs  # its weights are not used: the outputs are there
        reference = network.image_losses(outputs, [boxes], [labels])
    assert set(ours) == set(reference)
    for name, value in ours.items():
        torch.testing.assert_close(value.squeeze(), reference[name])


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_boxes_of_no_width_have_a_finite_loss_and_slope(kind: str) -> None:
    """As fresh networks say them: the ReLU before the distances to the sides leaves nothing of many."""
    head = Head(64, CLASSES, DetectionLoss.model_validate({"box_kind": kind}), convolutions=4)
    points = torch.tensor([[0.0, 0.0, 8.0, 8.0]] * 6)
    regression = torch.tensor([[0.0] * 4, [0, 1, 0, 1], [1, 0, 1, 0], [1e-30, 0, 0, 1e-30], [1e-6] * 4, [3.0] * 4])
    regression.requires_grad_()
    losses = head._box_losses(regression, points, torch.tensor([[0.0, 0.0, 20.0, 9.0]] * 5 + [[4.0, 4.0, 4.0, 4.0]]))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert regression.grad is not None
    assert regression.grad.abs().max() < 100


def test_ciou_is_torchvisions_for_boxes_of_a_pixel_or_more() -> None:
    rng = torch.Generator().manual_seed(0)
    found, true = (torch.rand(2, 200, 4, generator=rng) * 60).unbind()
    for boxes in (found, true):
        boxes[:, 2:] += boxes[:, :2] + 1
    found.requires_grad_()
    head = Head(64, CLASSES, DetectionLoss(box_kind="ciou"), convolutions=4)
    points = torch.tensor([[-0.5, -0.5, 0.5, 0.5]] * 200)
    ours = head._box_losses(found * torch.tensor([-1.0, -1, 1, 1]), points, true)
    torch.testing.assert_close(ours, complete_box_iou_loss(found, true))
    slopes = [torch.autograd.grad(losses.sum(), found)[0] for losses in (ours, complete_box_iou_loss(found, true))]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_a_loss_of_boxes_is_chosen_by_name_and_falls_to_nothing_at_the_truth(kind: str) -> None:
    made = config(loss=DetectionLoss.model_validate({"box_kind": kind, "focal_alpha": 0.5, "focal_gamma": 0.0}))
    network = build_fcos(made, CLASSES).eval()
    boxes, labels = torch.tensor(BOXES[0]), torch.tensor([0, 2])
    with torch.no_grad():
        outputs = network(torch.randn(1, 3, 64, 64))
        losses = network.image_losses(outputs, [boxes], [labels])
        anchors = outputs.anchors[0]
        middles, sizes = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
        for box in boxes:
            inside = ((middles > box[:2]) & (middles < box[2:])).all(1)
            right = torch.cat([(middles - box[:2]) / sizes, (box[2:] - middles) / sizes], dim=1)
            outputs.head["bbox_regression"][0, inside] = right[inside]
        perfect = network.image_losses(outputs, [boxes], [labels])
        # alpha 1/2 and gamma 0: half the binary cross entropy.
        logits = outputs.head["cls_logits"][0]
        assert perfect["bbox_regression"] < 1e-4 < losses["bbox_regression"]
        nothing = network.image_losses(outputs, [boxes[:0]], [labels[:0]])["classification"].squeeze()
        torch.testing.assert_close(nothing, torch.nn.functional.softplus(logits).sum() / 2)


def test_a_step_of_training_leaves_everything_finite() -> None:
    made = config()
    network = build_fcos(made, CLASSES).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for boxes in (BOXES, [[]] * 4, [BOXES[0]] * 4):
        loss = losses_of(network, torch.randn(4, 3, 64, 64), boxes, made).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    assert all(parameter.isfinite().all() for parameter in network.parameters())


@torch.no_grad()
def test_predicted_boxes_are_in_pixels_of_the_original_image_best_first() -> None:
    network = build_fcos(config(), CLASSES).eval()
    outputs = network(torch.randn(2, 3, 64, 64))
    rows = predictions(network, outputs, batch_of([[], []]))  # originals of 100 x 200
    seen = network.detections(outputs)
    for row, found in zip(rows, seen, strict=True):
        assert len(row["boxes"]) == len(row["scores"]) == len(row["labels"]) > 0
        np.testing.assert_allclose(row["boxes"][:, 0::2], found["boxes"].numpy()[:, 0::2] * (200 / 64), rtol=1e-5)
        np.testing.assert_allclose(row["boxes"][:, 1::2], found["boxes"].numpy()[:, 1::2] * (100 / 64), rtol=1e-5)
        assert (np.diff(row["scores"]) <= 0).all()
        assert set(row["labels"].tolist()) <= set(range(CLASSES))
        assert row["boxes"][:, [0, 2]].max() <= 200
        assert row["boxes"][:, [1, 3]].max() <= 100


@torch.no_grad()
def test_predictions_do_not_depend_on_the_batch() -> None:
    network = build_fcos(config(), CLASSES).eval()
    images = torch.randn(3, 3, 64, 64)
    together = predictions(network, network(images), batch_of([[]] * 3))
    for i, row in enumerate(together):
        (alone,) = predictions(network, network(images[i : i + 1]), batch_of([[]]))
        np.testing.assert_allclose(row["scores"], alone["scores"], rtol=1e-5)


@pytest.mark.parametrize(("side", "is_half"), [(64, False), (104, True)])
def test_a_few_steps_teach_it_one_image(side: int, is_half: bool) -> None:
    made = config()
    network = build_fcos(made, CLASSES).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1.5e-3)
    image = torch.zeros(2, 3, side, side)
    first, last = side - 32, side  # in the last corner
    image[:, :, first:, first:] = 3.0
    history = []
    for _ in range(15):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            loss = losses_of(network, image, [[[first, first, last, last]]] * 2, made).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0] / 2


def test_losses_without_any_weight_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing is learnt"):
        DetectionLoss(classification=0, box=0, centerness=0)


@pytest.mark.parametrize("encoder", ["dla46x_c", "tresnet_m", "csatv2", "test_resnet"])
def test_encoders_that_count_their_levels_otherwise_are_asked_for_the_same_strides(encoder: str) -> None:
    levels = EncoderWithPyramid(encoder, 3, 8).eval()(torch.zeros(1, 3, 128, 128))
    assert [tuple(level.shape) for level in levels] == [(1, 8, side, side) for side in (16, 8, 4, 2, 1)]
