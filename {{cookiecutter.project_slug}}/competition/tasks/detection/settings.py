"""What a detection config may hold beside the common sections."""

from typing import Annotated, Literal

from pydantic import Field

from competition.settings import Config, Count, Model, Probability, Section

Weight = Annotated[float, Field(ge=0)]


class DetectionModel(Model):
    """FCOS of torchvision on a feature pyramid over any timm encoder."""

    pyramid_channels: Annotated[int, Field(ge=64, multiple_of=32)] = 128


class DetectionLoss(Section):
    """Weights of FCOS's three losses, which are added up."""

    classification: Weight = 1.0
    box: Weight = 1.0
    centerness: Weight = 1.0


class DetectionDecode(Section):
    """From raw boxes to the boxes that are handed in."""

    min_score: Probability = 0.05
    nms_iou: Probability = 0.5  # of two boxes of a class that overlap more, the better one stays
    max_boxes: Count = 100  # an image


class DetectionFormat(Section):
    """How train.csv and the submission are written."""

    like: str | None = None  # a known competition's name in formats.yaml, whose settings stand under these


class TaskConfig(Config):
    """A detection experiment."""

    task: Literal["detection"]
    model: DetectionModel = DetectionModel()
    format: DetectionFormat = DetectionFormat()
    loss: DetectionLoss = DetectionLoss()
    # The first is the score that is reported.
    metrics: Annotated[list[Literal["map", "map50"]], Field(min_length=1)] = ["map50", "map"]
    decode: DetectionDecode = DetectionDecode()
