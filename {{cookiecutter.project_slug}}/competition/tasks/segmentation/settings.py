"""What a segmentation config may hold beside the common sections."""

from typing import Annotated, Literal

from pydantic import Field

from competition.settings import Config, Model, Probability, Section

Weight = Annotated[float, Field(ge=0)]


class SegmentationModel(Model):
    """A network of segmentation-models-pytorch; any timm encoder as `tu-NAME`."""

    architecture: Literal[
        "unet", "unetplusplus", "fpn", "deeplabv3plus", "manet", "linknet", "segformer", "upernet"
    ] = "unet"


class SegmentationLoss(Section):
    """Weights of the losses that are added up; zero leaves one out."""

    bce: Weight = 1.0
    dice: Weight = 1.0


class SegmentationDecode(Section):
    """From probabilities to a mask."""

    threshold: Probability = 0.5
    min_area: Annotated[int, Field(ge=0)] = 0  # a mask of fewer pixels becomes empty


class SegmentationFormat(Section):
    """How train.csv and the submission are written."""

    like: str | None = None  # a known competition's name in formats.yaml, whose settings stand under these


class TaskConfig(Config):
    """A segmentation experiment."""

    task: Literal["segmentation"]
    model: SegmentationModel = SegmentationModel()
    format: SegmentationFormat = SegmentationFormat()
    loss: SegmentationLoss = SegmentationLoss()
    # The first is the score that is reported.
    metrics: Annotated[list[Literal["dice", "iou", "global_dice"]], Field(min_length=1)] = ["dice", "iou"]
    decode: SegmentationDecode = SegmentationDecode()
