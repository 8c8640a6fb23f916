"""Task-aligned assignment: who learns which box, and how well, against slow references; what moves a box's sides."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import box_iou, generalized_box_iou_loss

from competition.tasks.detection.architectures import tood
from competition.tasks.detection.architectures.moved_sides import SIDES, WIDTH, MovedSides
from competition.tasks.detection.architectures.tood import Assigned, PointOutputs, assign
from competition.tasks.detection.model import build_network
from competition.tasks.detection.settings import TaskConfig
from competition.tasks.focal import soft_focal_losses

CLASSES, SIDE = 3, 64
# What torch.use_deterministic_algorithms refuses on a GPU, of what a network of boxes might do: sums in any order.
ANY_ORDER = ("grid_sampler", "adaptive_avg_pool", "adaptive_max_pool", "upsample_bilinear", "upsample_bicubic")
ANY_ORDER += ("cumsum", "kthvalue", "median", "aten.put_", "reflection_pad", "replication_pad", "histc", "max_unpool")


def said(images: int) -> PointOutputs:
    """Return what a network might say after some training: boxes of all sizes around their points."""
    levels = [torch.zeros(1, 1, SIDE // stride, SIDE // stride) for stride in (8, 16, 32, 64)]
    anchors = tood.anchors_of([*levels, torch.zeros(1, 1, 1, 1)])
    points, strides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    reaches = 0.3 + torch.rand(images, len(points), 4) * 4
    boxes = torch.cat([points - reaches[..., :2] * strides, points + reaches[..., 2:] * strides], dim=2)
    moved = boxes + torch.randn(images, len(points), 4)
    return PointOutputs(torch.randn(images, len(points), CLASSES), boxes, moved, points, (SIDE, SIDE))


def true_boxes(*counts: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return boxes of images, large, small and on top of each other, with their classes."""
    first = [torch.rand(number, 2) * 40 for number in counts]
    boxes = [torch.cat([one, one + 2 + torch.rand(len(one), 2) * 20], dim=1) for one in first]
    return boxes, [torch.randint(CLASSES, (number,)) for number in counts]


def by_hand(outputs: PointOutputs, image: int, boxes: Tensor, labels: Tensor) -> dict[int, tuple[int, float]]:
    """Return by point which box it learns and how well it is to say it, one number after the other."""
    iou = box_iou(boxes, outputs.boxes[image])
    aligned = {}
    for box, (x, y, right, bottom) in enumerate(boxes.tolist()):
        width, height = max(right - x, 8.0), max(bottom - y, 8.0)
        for point, (across, along) in enumerate(outputs.points.tolist()):
            if abs(across - (x + right) / 2) < width / 2 and abs(along - (y + bottom) / 2) < height / 2:
                score = outputs.logits[image, point, labels[box]].sigmoid().item()
                aligned[box, point] = score * iou[box, point].item() ** 6
    chosen: dict[int, int] = {}
    for box in range(len(boxes)):
        own = sorted((key for key in aligned if key[0] == box and aligned[key] > 0), key=lambda key: -aligned[key])
        for _, point in own[:13]:
            if point not in chosen or iou[box, point] > iou[chosen[point], point]:
                chosen[point] = box
    found = {}
    for point, box in chosen.items():
        points = [one for one, other in chosen.items() if other == box]
        share = aligned[box, point] / max(aligned[box, one] for one in points)
        found[point] = box, share * max(iou[box, one].item() for one in points)
    return found


def of_image(found: Assigned, image: int) -> dict[int, tuple[int, float]]:
    rows = zip(*(one.tolist() for one in (found.image, found.point, found.box, found.quality)), strict=True)
    return {point: (box, quality) for number, point, box, quality in rows if number == image}


def test_points_learn_the_boxes_that_they_say_best() -> None:
    outputs, counts = said(6), (5, 0, 1, 12, 3, 30)
    boxes, labels = true_boxes(*counts)
    found = assign(outputs, *tood._filled(boxes, labels))
    assert found.image.tolist() == sorted(found.image.tolist())
    for image in range(len(counts)):
        expected, ours = by_hand(outputs, image, boxes[image], labels[image]), of_image(found, image)
        assert {point: box for point, (box, _) in ours.items()} == {point: box for point, (box, _) in expected.items()}
        assert ours == {point: (box, pytest.approx(quality, rel=1e-4)) for point, (box, quality) in expected.items()}
    assert max(len(of_image(found, image)) for image in range(6)) > 13  # more than one box was learnt


def test_every_box_has_a_point_that_learns_it_however_thin_it_is_and_wherever_it_lies() -> None:
    outputs = said(1)
    for width, height in itertools.product((0.5, 3.0, 9.0, 60.0), repeat=2):
        for _ in range(5):
            # The last half stride of an image lies behind its last point.
            x, y = (float(torch.rand(1)) * (SIDE - 4 - side / 2) for side in (width, height))
            box = torch.tensor([[x, y, min(x + width, SIDE), min(y + height, SIDE)]])
            outputs.boxes[:] = box + torch.tensor([-1.0, -1.0, 1.0, 1.0])  # so that no point is left out by its IoU
            assert len(assign(outputs, *tood._filled([box], [torch.tensor([0])])).point), box


def test_the_losses_are_those_of_the_points_divided_by_their_qualities() -> None:
    outputs, (boxes, labels) = said(2), true_boxes(4, 0)
    network = tood.AlignedDetector.__new__(tood.AlignedDetector)
    torch.nn.Module.__init__(network)
    network.settings = tood.DetectionLoss(focal_gamma=2.0)
    losses = network.image_losses(outputs, boxes, labels)
    expected, truth = by_hand(outputs, 0, boxes[0], labels[0]), torch.zeros_like(outputs.logits)
    apart = 0.0
    for point, (box, quality) in expected.items():
        truth[0, point, labels[0][box]] = quality
        for said_boxes, share in ((outputs.boxes, 1.0), (outputs.first_boxes, 0.5)):
            apart += share * quality * float(generalized_box_iou_loss(said_boxes[0, point], boxes[0][box]))
    number = max(sum(quality for _, quality in expected.values()), 1)
    score = outputs.logits.sigmoid()
    surprise = -(truth * score.log() + (1 - truth) * (1 - score).log()) * (score - truth) ** 2
    torch.testing.assert_close(losses["box"], torch.tensor([apart / number, 0.0]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["classification"], surprise.sum(dim=(1, 2)) / torch.tensor([number, 1.0]))


def test_a_score_has_nothing_to_learn_where_it_is_the_quality() -> None:
    truth = torch.tensor([0.0, 0.2, 0.9, 1.0])
    logits = torch.logit(truth.clamp(1e-6, 1 - 1e-6)).requires_grad_()
    losses = soft_focal_losses(logits, truth, 2.0)
    losses.sum().backward()
    assert losses.max() < 1e-6
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_a_box_is_learnt_by_who_says_it_tighter_and_that_score_is_to_be_higher() -> None:
    outputs, box = said(1), torch.tensor([[10.0, 10.0, 40.0, 40.0]])
    outputs.logits[:] = 0
    outputs.boxes[:] = torch.tensor([10.0, 10.0, 40.0, 25.0])  # IoU 1 / 2
    inside = ((outputs.points > 10) & (outputs.points < 40)).all(dim=1).nonzero()[:, 0]
    tight = int(inside[3])
    outputs.boxes[0, tight] = torch.tensor([10.0, 10.0, 40.0, 37.0])  # IoU .9
    found = of_image(assign(outputs, *tood._filled([box], [torch.tensor([1])])), 0)
    assert found[tight] == (0, pytest.approx(0.9))
    assert len(found) == 13
    others = [quality for point, (_, quality) in found.items() if point != tight]
    assert others == pytest.approx([0.9 * (0.5 / 0.9) ** 6] * 12)


def levels(channels: int, height: int, width: int) -> list[Tensor]:
    """Return the levels of a pyramid over a picture of 8 * height and 8 * width pixels."""
    sides = [(-(-height // 2**level), -(-width // 2**level)) for level in range(5)]
    return [torch.randn(2, channels, *side) for side in sides]


def between(values: Tensor, x: float, y: float) -> Tensor:
    """Return what (channels, H, W) has at a place between its points, beyond its border what the border has."""
    x, y = (min(max(place, 0.0), side - 1.0) for place, side in ((x, values.shape[2]), (y, values.shape[1])))
    left, top = int(x), int(y)
    right, bottom = min(left + 1, values.shape[2] - 1), min(top + 1, values.shape[1] - 1)
    upper = values[:, top, left] * (left + 1 - x) + values[:, top, right] * (x - left)
    lower = values[:, bottom, left] * (left + 1 - x) + values[:, bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def random_moves(moved_sides: MovedSides) -> tuple[Tensor, Tensor]:
    """Let sides move, as after some training; return the weights (4, WIDTH) and biases (4,) by which they do."""
    weight, bias = moved_sides.moves.weight, moved_sides.moves.bias
    assert bias is not None
    torch.nn.init.normal_(weight, std=0.1)
    torch.nn.init.normal_(bias)
    return weight[:, :, 0, 0], bias


def test_a_side_moves_by_what_is_seen_in_its_middle_and_what_its_point_knows() -> None:
    finest, *others = known = levels(6, 5, 7)
    number = sum(level.shape[2] * level.shape[3] for level in known)
    first = torch.rand(2, number, 2) * 60 - 10  # some reach out of the picture
    boxes = torch.cat([first, first + torch.rand(2, number, 2) * 30], dim=2)
    moved_sides = MovedSides(6)
    weight, bias = random_moves(moved_sides)
    moved = moved_sides(finest, 8, known, boxes)
    looks = moved_sides.at_sides(finest)
    of_points = torch.cat([moved_sides.at_points(level).flatten(2) for level in [finest, *others]], dim=2)
    for image, point in itertools.product(range(2), range(0, number, 5)):
        x, y, right, bottom = boxes[image, point].tolist()
        middles = [(x, (y + bottom) / 2), ((x + right) / 2, y), (right, (y + bottom) / 2), ((x + right) / 2, bottom)]
        for side, (across, along) in enumerate(middles):
            part = slice(side * WIDTH, (side + 1) * WIDTH)
            seen = between(looks[image, part], across / 8, along / 8) + of_points[image, part, point]
            move = weight[side] @ seen.relu() + bias[side]
            length = (right - x, bottom - y)[side % 2]
            expected = boxes[image, point, side] + 0.25 * length * move.clamp(-1, 1)
            torch.testing.assert_close(moved[image, point, side], expected, rtol=1e-4, atol=1e-4)


def test_a_mark_at_the_side_of_a_box_moves_that_side_alone() -> None:
    known = [torch.zeros_like(level) for level in levels(1, 8, 8)]
    known[0][0, 0, 3, 2] = 1  # at 16, 24 pixels
    moved_sides = MovedSides(1)
    for layer in (moved_sides.at_sides, moved_sides.at_points):
        torch.nn.init.ones_(layer.weight)
        assert layer.bias is not None
        torch.nn.init.zeros_(layer.bias)
    torch.nn.init.constant_(moved_sides.moves.weight, 1 / WIDTH)
    number = sum(level.shape[2] * level.shape[3] for level in known)
    around = {"left": (16, 14, 40, 34), "top": (6, 24, 26, 60), "right": (0, 20, 16, 28), "bottom": (8, 0, 24, 24)}
    for side, box in enumerate(around.values()):
        boxes = torch.tensor(box, dtype=torch.float32).expand(2, number, 4)
        moves = moved_sides(known[0], 8, [level * 0 for level in known], boxes) - boxes
        expected = torch.zeros(SIDES)
        expected[side] = 0.25 * (box[2] - box[0], box[3] - box[1])[side % 2]
        torch.testing.assert_close(moves[0], expected.expand(number, 4))
        assert not moves[1].any()  # the other image has no mark


def test_boxes_begin_where_their_points_say_and_are_not_taught_by_being_moved() -> None:
    known = levels(4, 4, 4)
    boxes = (torch.rand(2, sum(level.shape[2] * level.shape[3] for level in known), 4) * 32).requires_grad_()
    moved_sides = MovedSides(4)
    moved = moved_sides(known[0], 8, known, boxes)
    assert torch.equal(moved, boxes)
    moved.sum().backward()
    assert boxes.grad is None
    assert moved_sides.moves.bias is not None
    assert moved_sides.moves.bias.grad is not None


def test_boxes_that_are_no_numbers_stay_so_and_end_nothing() -> None:
    known = levels(4, 4, 4)
    number = sum(level.shape[2] * level.shape[3] for level in known)
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor([[nan, 0, inf, 8], [0, 0, 8, 8.0]]).repeat(2, number, 1)[:, :number]
    moved = MovedSides(4)(known[0], 8, known, boxes)
    assert not moved[:, ::2, ::2].isfinite().any()
    assert moved[:, 1::2].isfinite().all()


class Names(TorchDispatchMode):
    """Writes down which operations run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 - torch's own
        self.seen.add(str(func))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("architecture", ["fcos", "tood"])
def test_a_step_does_nothing_that_has_no_deterministic_form_on_a_gpu(architecture: str) -> None:
    model = {"architecture": architecture, "encoder": "test_resnet"}
    config = TaskConfig.model_validate({"name": "t", "task": "detection", "model": model})
    network = build_network(config, CLASSES)
    with Names() as names:
        outputs = network(torch.randn(2, 3, SIDE, SIDE))
        losses = network.image_losses(outputs, *true_boxes(2, 3))
        torch.stack([loss.sum() for loss in losses.values()]).sum().backward()
    assert len(names.seen) > 20
    assert "aten.convolution_backward.default" in names.seen
    assert not [name for name in names.seen if any(one in name for one in ANY_ORDER)]


def test_sides_are_seen_on_the_finest_level_by_points_that_know_of_places() -> None:
    model = {"architecture": "tood", "encoder": "test_resnet"}
    config = TaskConfig.model_validate({"name": "t", "task": "detection", "model": model})
    network = tood.build_network(config, CLASSES).eval()
    random_moves(network.moved_sides)
    images = torch.randn(1, 3, 67, 93)
    with torch.no_grad():
        outputs = network(images)
        pyramid = network.backbone(images)
        known = [network.head.place_tower(level) for level in pyramid]
        expected = network.moved_sides(pyramid[0], 8, known, outputs.first_boxes)
    assert pyramid[0].shape[-2:] == (12, 12)  # a point every 8 pixels of 96 x 96, to which the image is filled up
    assert torch.equal(outputs.boxes, expected)
    assert not torch.equal(outputs.boxes, outputs.first_boxes)


def test_boxes_that_are_handed_on_are_the_moved_ones() -> None:
    outputs = said(1)
    outputs.first_boxes[:] = torch.tensor([0.0, 0.0, 10.0, 10.0])
    outputs.boxes[:] = torch.tensor([40.0, 40.0, 60.0, 60.0])
    network = tood.AlignedDetector.__new__(tood.AlignedDetector)
    [found] = network.detections(outputs)
    assert found["boxes"].tolist() == [[40.0, 40.0, 60.0, 60.0]] * CLASSES


def test_sides_move_in_full_precision_where_the_network_is_in_half() -> None:
    moved_sides, known = MovedSides(1), levels(1, 4, 4)
    assert moved_sides.moves.bias is not None
    torch.nn.init.constant_(moved_sides.moves.bias, 0.001)  # in bfloat16 0.00099945
    number = sum(level.shape[2] * level.shape[3] for level in known)
    boxes = torch.tensor([0.0, 0.0, 500.0, 500.0]).expand(2, number, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = moved_sides(known[0], 8, known, boxes)
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved[..., :2], torch.full((2, number, 2), 0.125), rtol=0, atol=1e-5)
