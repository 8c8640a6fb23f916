"""What a detection config may hold beside the common sections."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from competition.config.section import Count, Losses, Probability, Section, names_in
from competition.config.settings import Config, Model
from competition.tasks.presence import fault_of_asking

Weight = Annotated[float, Field(ge=0)]
Layout = Literal["xywh", "xyxy"]
Units = Literal["pixels", "shares"]
# COCO's mAP and the same at one IoU; then what the pages of known competitions define: see score.py.
MetricName = Literal[
    "map", "map40", "map45", "map50", "map55", "map60", "map65", "map70", "map75", "map80", "map85", "map90", "map95",
    "vinbigdata", "voc_map", "wheat", "rsna", "f1", "f2",
]  # fmt: skip


Architecture = Literal["fcos", "tood", "faster_rcnn", "dfine", "rt_detr_v2", "rf_detr", "lw_detr"]
ONE_STAGE = ("fcos", "tood")
OF_TRANSFORMERS = {"dfine": "5.0", "rt_detr_v2": "5.0", "rf_detr": "5.15", "lw_detr": "5.0"}  # and the least version
MODEL_TYPES = {"d_fine": "dfine"}  # in config.json, where it is called otherwise than here
OF_A_TRAINING = (  # keys of a config.json that are not of the network
    "architectures", "dtype", "torch_dtype", "transformers_version", "id2label", "label2id", "num_labels",
    "_name_or_path", "freeze_backbone_batch_norms",
)  # fmt: skip


class DetectionModel(Model):
    """Which network: on a timm `encoder`, or a published one, whose `size` has a backbone of its own.

    `pretrained` may be a folder for it, with config.json and *.safetensors as on the hub.
    """

    architecture: Architecture = "fcos"
    size: Literal["s", "m", "l"] | None = None  # a published network, instead of one on `encoder`
    # Keys of the config that a DETR has in transformers, over those of `size`; filled in from a pretrained folder.
    network: dict[str, Any] = {}
    pyramid_channels: Annotated[int, Field(ge=64, multiple_of=32)] = 128  # of fcos, tood and faster_rcnn on an encoder
    # Of fcos and tood, before each output: 4 as published; of tood 1 by itself, from random weights as good.
    head_convolutions: Annotated[int, Field(ge=0, le=8)] = 4

    @model_validator(mode="before")
    @classmethod
    def _of_a_folder(cls, values: Any) -> Any:
        """Fill in `network`, so that the run and its bundle know it when the folder is elsewhere."""
        if not isinstance(values, dict) or values.get("architecture") not in OF_TRANSFORMERS:
            return values
        pretrained, given = values.get("pretrained"), values.get("network") or {}
        folder = Path(pretrained).expanduser() if isinstance(pretrained, str) else Path()
        if not isinstance(pretrained, str) or not folder.is_dir() or not isinstance(given, dict):
            return values
        return values | {"network": read_network(folder / "config.json", values["architecture"]) | given}

    @model_validator(mode="before")
    @classmethod
    def _with_a_head_for_it(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("architecture") == "tood":
            return {"head_convolutions": 1} | values
        return values

    @model_validator(mode="after")
    def _fits_the_architecture(self) -> Self:
        if self.architecture in ONE_STAGE and self.size is not None:
            raise ValueError(
                f"model.size: {self.architecture} has no published sizes; name its encoder, or another architecture"
            )
        if self.architecture not in OF_TRANSFORMERS and self.network:
            raise ValueError(
                f"model.network: is for {', '.join(OF_TRANSFORMERS)}; {self.architecture} has no such keys"
            )
        if self.architecture not in ONE_STAGE and not self.is_usual("head_convolutions"):
            raise ValueError(f"model.head_convolutions: is for fcos and tood; {self.architecture} has no such head")
        if self.architecture not in ONE_STAGE and self.volume:
            raise ValueError(f"model.volume: is for fcos and tood; {self.architecture} sees slices as channels")
        return self

    @property
    def network_name(self) -> str:
        """What the network is called in messages and reports."""
        if self.architecture in ONE_STAGE:
            return self.encoder
        of = f" {self.size}" if self.size else "" if "backbone_config" in self.network else f" on {self.encoder}"
        return self.architecture + of


def read_network(path: Path, architecture: str) -> dict[str, Any]:
    """Return what a config.json of the hub says of a network; raise ValueError where it is of another kind."""
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
        found = str(keys["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"model.pretrained: {path}: cannot be read ({type(error).__name__}); expected a folder with config.json "
            "and *.safetensors, as on the hub"
        ) from None
    if MODEL_TYPES.get(found, found) != architecture:
        raise ValueError(f"model.pretrained: {path}: is of a {found}, model.architecture is {architecture}")
    return {key: value for key, value in keys.items() if key not in OF_A_TRAINING}


# Keys of `loss:` that not every architecture goes by.
LOSSES_OF: dict[str, tuple[str, ...]] = {"box_kind": ONE_STAGE, "focal_alpha": ("fcos",), "focal_gamma": ONE_STAGE}
# What `loss:` has by itself for an architecture that wants it otherwise than below.
LOSS_BY_ITSELF: dict[str, dict[str, float]] = {"tood": {"box": 7.5, "focal_gamma": 0.0}}


class DetectionLoss(Losses):
    """Weights of the losses, which are added up, and of FCOS which losses they are; only it has `centerness`."""

    classification: Weight = 1.0
    box: Weight = 1.0  # of tood 7.5 by itself
    centerness: Weight = 1.0
    auxiliary: Weight = 0.0  # of a second head, which says which classes an image has; 0 is off
    focal_alpha: Probability = 0.25  # weight of a class where it is, against 1 - alpha where it is not
    focal_gamma: Weight = 2.0  # the higher, the less easy points count; of tood 0 by itself
    box_kind: Literal["giou", "diou", "ciou"] = "giou"

    @model_validator(mode="after")
    def _something_is_learnt(self) -> Self:
        if not self.classification + self.box + self.centerness + sum(self.files.values()):
            raise ValueError("loss: nothing is learnt; give classification, box and centerness weights over 0")
        return self


MOST_DETECTIONS = 300  # boxes that a network names in an image


class DetectionDecode(Section):
    """From raw boxes to the boxes that are handed in."""

    min_score: Probability | list[Probability] = 0.05  # of a box that is handed in; or one a class, in their order
    # What becomes of boxes that overlap by more than `iou`. nms: the best stays; soft_nms: the others lose score by
    # their overlap; wbf: those of several networks or views are averaged, weighted by score (what one of them says
    # twice goes through nms first).
    # none: every box of a network stays, as of a DETR, which says each once and has this by itself; those of several
    # are averaged.
    join: Literal["nms", "soft_nms", "wbf", "none"] = "nms"
    iou: Probability = 0.5
    class_agnostic: bool = False  # whether boxes of different classes are in each other's way, too
    max_boxes: Count = 100  # an image
    # What the head of `loss.auxiliary` says: a class that is less likely has no box; and scores times how likely it is.
    presence_threshold: Probability | list[Probability] = 0.0
    scale_by_presence: bool = False


class DetectionMix(Section):
    """Share of a batch's images that are mixed with others of the batch."""

    mosaic: Probability = 0.0  # four images at half scale
    mixup: Probability = 0.0  # the mean of two images, with the boxes of both


WORDS = {"xywh": "x y w h", "xyxy": "x1 y1 x2 y2", "cxcy": "x y"}  # of the numbers of a box, by layout


class DetectionSubmission(Section):
    """How submission.csv is written: a row an image, its boxes `class conf x y w h ...` in one string."""

    image_id: str = "image_id"  # column
    boxes: str = "PredictionString"  # column
    with_class: bool = True
    class_as: Literal["name", "index"] = "name"  # index: place in data.classes, from 0
    class_names: list[str] | None = None  # what classes are called there, in their order, if not as in train.csv
    with_conf: bool = True
    layout: Layout | Literal["cxcy"] = "xywh"  # cxcy: only the centre is handed in
    units: Units | None = None  # None: those of train.csv
    decimals: Annotated[int, Field(ge=0, le=6)] = 2  # of coordinates in pixels; 0: whole pixels
    none: str = ""  # what stands for an image without any box

    @model_validator(mode="after")
    def _classes_have_one_name(self) -> Self:
        if self.class_names is not None and self.class_as == "index":
            raise ValueError("class_names are of class_as: name, and class_as is index; leave one out")
        return self

    @property
    def words(self) -> list[str]:
        """What each box is handed in as, word by word."""
        return ["class"] * self.with_class + ["conf"] * self.with_conf + WORDS[self.layout].split()


class DetectionFormat(Section):
    """How train.csv and the submission are written."""

    like: str | None = None  # a known competition's name in formats/known.yaml, whose settings stand under these
    # Column, or a pattern over several, as "video_{video_id}/{video_frame}".
    image_id: str = "image_id"
    class_id: str | None = "class_id"  # column; null: there is one class
    # Four columns; or one, whose text is `[x, y, w, h]`, or with `box_keys` a list of dicts with these four keys.
    boxes: list[str] | str = ["x", "y", "w", "h"]
    box_keys: Annotated[list[str], Field(min_length=4, max_length=4)] | None = None
    # Or one of strings with the words of each box behind one another, as `U+306F 1187 361 47 27 U+3070 ...`.
    box_string: Literal["box", "class box", "class conf box"] | None = None
    layout: Layout | Literal["cxcywh"] = "xywh"  # cxcywh: the centre, width and height, as YOLO has them
    units: Units = "pixels"  # shares: of the image's width and height, from 0 to 1, as Open Images and YOLO have them
    no_finding: str | None = None  # a class that says there is no box
    # Boxes of several readers: those of a class that overlap more become one, by wbf. null: all stay.
    fuse_readers: Probability | None = None
    submission: DetectionSubmission = DetectionSubmission()

    @property
    def submits_shares(self) -> bool:
        """Whether boxes are handed in as shares of the image's sides."""
        return (self.submission.units or self.units) == "shares"

    @property
    def image_id_columns(self) -> list[str]:
        """Columns of train.csv that an image id is put together from."""
        return names_in(self.image_id) or [self.image_id]

    @property
    def box_columns(self) -> list[str]:
        """Columns of train.csv that boxes stand in."""
        return self.boxes if isinstance(self.boxes, list) else [self.boxes]

    @field_validator("image_id")
    @classmethod
    def _joins_columns(cls, pattern: str) -> str:
        if any(re.search(r"[.:!\[\]]", name) for name in names_in(pattern)):
            raise ValueError("expected a column, or columns in braces without any of . : ! [ ], as 'video_{video_id}'")
        return pattern

    @model_validator(mode="after")
    def _boxes_fit(self) -> Self:
        if isinstance(self.boxes, list) and len(self.boxes) != 4:
            raise ValueError(f"format.boxes lists {len(self.boxes)} columns; expected four, or the name of one")
        if isinstance(self.boxes, list) and self.box_keys:
            raise ValueError("format.box_keys is for boxes in one column; format.boxes lists four")
        if self.box_string is not None and (isinstance(self.boxes, list) or self.box_keys):
            raise ValueError("format.box_string is for boxes in one column, without format.box_keys")
        if self.box_string not in (None, "box") and self.class_id is not None:
            raise ValueError("format.box_string tells the classes; expected format.class_id: null")
        if self.no_finding is not None and self.class_id is None and self.box_string in (None, "box"):
            raise ValueError("format.no_finding names a class, so format.class_id must name its column")
        return self


def asked_for(given: Any) -> Any:
    """Return a section's keys without those that it has by itself; what is no section yet as it is."""
    return given.model_dump(exclude_unset=True) if isinstance(given, Section) else given


class TaskConfig(Config):
    """A detection experiment."""

    task: Literal["detection"]
    model: DetectionModel = DetectionModel()
    format: DetectionFormat = DetectionFormat()
    mix: DetectionMix = DetectionMix()
    loss: DetectionLoss = Field(DetectionLoss(), validate_default=True)
    # The first is the score that is reported.
    metrics: Annotated[list[MetricName], Field(min_length=1)] = ["map50", "map"]
    decode: DetectionDecode = Field(DetectionDecode(), validate_default=True)

    @property
    def packages(self) -> list[str]:
        """What this config needs beside the project's own requirements."""
        least = OF_TRANSFORMERS.get(self.model.architecture)
        return [f"transformers>={least}"] if least else []

    @field_validator("loss", mode="before")
    @classmethod
    def _as_the_architecture_wants_it(cls, given: Any, info: ValidationInfo) -> Any:
        """Weigh the losses as the architecture wants them where nobody asked for anything else."""
        model = info.data.get("model")
        asked = asked_for(given)
        if model is None or not isinstance(asked, dict):
            return given
        return LOSS_BY_ITSELF.get(model.architecture, {}) | asked

    @field_validator("decode", mode="before")
    @classmethod
    def _nothing_to_join(cls, given: Any, info: ValidationInfo) -> Any:
        """Leave out suppression where the network says each object once and nobody asked for it: not in windows, of
        which several show an object."""
        model, data = info.data.get("model"), info.data.get("data")
        if model is None or data is None or data.window is not None or model.architecture not in OF_TRANSFORMERS:
            return given
        asked = asked_for(given)
        return asked | {"join": "none"} if isinstance(asked, dict) and "join" not in asked else given

    @model_validator(mode="after")
    def _windows_are_joined(self) -> Self:
        if self.data.window is not None and self.decode.join == "none":
            raise ValueError(
                "decode.join: found none with data.window: an object that several windows show would be handed in "
                "several times; expected nms, soft_nms or wbf"
            )
        return self

    @model_validator(mode="after")
    def _losses_are_of_the_architecture(self) -> Self:
        for key, goes_by_it in LOSSES_OF.items():
            is_changed = not self.loss.is_usual(key)
            if is_changed and self.model.architecture not in goes_by_it:
                raise ValueError(
                    f"loss.{key}: is for {' and '.join(goes_by_it)}; {self.model.architecture} does not go by it"
                )
        learnt = self.loss.classification + self.loss.box + sum(self.loss.files.values())
        if self.model.architecture != "fcos" and not learnt:
            raise ValueError("loss: nothing is learnt; give classification and box weights over 0")
        return self

    @model_validator(mode="after")
    def _boxes_stay_exact(self) -> Self:
        if str(precision := self.trainer.get("precision")) in ("16-true", "bf16-true"):
            raise ValueError(
                f"trainer.precision: found {precision}, which rounds the true boxes, too, by pixels; give "
                f"{str(precision).replace('true', 'mixed')}"
            )
        return self

    @model_validator(mode="after")
    def _a_score_a_class(self) -> Self:
        for name in ("min_score", "presence_threshold"):
            scores, classes = getattr(self.decode, name), self.data.classes
            if isinstance(scores, list) and classes is not None and len(scores) != len(classes):
                raise ValueError(
                    f"decode.{name} lists {len(scores)} scores for {len(classes)} data.classes; give one a class"
                )
        return self

    @model_validator(mode="after")
    def _presence_is_told(self) -> Self:
        for name in ("presence_threshold", "scale_by_presence"):
            if fault := fault_of_asking(name, getattr(self.decode, name), self.loss.auxiliary):
                raise ValueError(fault)
        return self

    def reasons_unused(self) -> dict[str, str]:
        """Return why keys change nothing, also a weight of what only FCOS learns; a zero says so itself."""
        key, architecture = "loss.centerness", self.model.architecture
        is_idle = architecture != "fcos" and self.loss.centerness != 0 and not self.loss.is_usual("centerness")
        own = {key: f"is of fcos, and model.architecture is {architecture}"} if is_idle else {}
        return super().reasons_unused() | own

    @property
    def train_keys(self) -> Mapping[str, str]:
        """By column of train.csv, how it holds {image_id}."""
        return dict.fromkeys(self.format.image_id_columns[:1], "{image_id}")

    @property
    def submission_keys(self) -> Mapping[str, str]:
        """The same of the submission."""
        return {self.format.submission.image_id: "{image_id}"}
