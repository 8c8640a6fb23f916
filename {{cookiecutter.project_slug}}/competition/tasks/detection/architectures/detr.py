"""Today's detection transformers, D-FINE, RT-DETRv2, LW-DETR and RF-DETR: one adapter over transformers (extra `detr`).

They name each object once, so nothing is suppressed afterwards. In mixed precision only backbone and encoder compute in
half: D-FINE's decoder is NaN there for many, and what says boxes needs the digits.
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from packaging.version import Version
from torch import Tensor, nn
from torchvision.ops import box_convert

from competition.config.faults import nearest
from competition.config.views import view_of
from competition.networks.encoder import note_encoder
from competition.networks.pretrained import (
    GO_ON,
    check_encoder,
    explaining_weights,
    load_pretrained,
    note_weights,
    read_state,
    weights_file,
)
from competition.support.errors import CompetitionError
from competition.tasks.detection.architectures.detr_loss import DetrLoss, Layer, Truth, noisy_pairs
from competition.tasks.detection.architectures.kept_weights import keep, note
from competition.tasks.detection.architectures.published_detrs import KINDS, STRIDE, Kind
from competition.tasks.detection.model import BoxNetwork, BoxOutputs, levels_of
from competition.tasks.detection.settings import MOST_DETECTIONS, OF_TRANSFORMERS, DetectionModel, TaskConfig

LEAST_SCORE = 0.01  # of a box that is stored, as FCOS has it
BATCH_NORM = "freeze_backbone_batch_norms"


@dataclass(frozen=True)
class Sizes:
    """Which images a network can see."""

    name: str  # of the architecture
    multiple: int  # of sides: whole strides, or whole windows of whole patches
    strides: Sequence[float]  # of the levels whose places the queries begin at
    queries: int

    @classmethod
    def of(cls, settings: Any, name: str) -> "Sizes":
        """Return those of a network's config in transformers."""
        backbone = settings.backbone_config
        if KINDS[name].takes_encoder:
            return cls(name, STRIDE, settings.feat_strides, settings.num_queries)
        windows = getattr(backbone, "num_windows_side", None) or backbone.num_windows
        scales = getattr(settings, "projector_scale_factors", [1.0])
        strides = [backbone.patch_size / scale for scale in scales]
        return cls(name, backbone.patch_size * windows, strides, settings.num_queries)

    def refuse(self, height: int, width: int, what: str = "an image") -> None:
        """Raise CompetitionError where the network cannot see images of a size."""
        if height % self.multiple or width % self.multiple:
            near = (max(round(side / self.multiple), 1) * self.multiple for side in (height, width))
            raise CompetitionError(
                f"{what}: found {height} x {width}; {self.name} takes multiples of {self.multiple}, as "
                f"{' x '.join(map(str, near))}"
            )
        places = sum(int(height // stride) * int(width // stride) for stride in self.strides)
        if places < self.queries:
            raise CompetitionError(
                f"{what}: found {height} x {width}, which has {places} places for the {self.queries} queries of "
                f"{self.name}; give larger images, or model.network={{num_queries: {places}}}"
            )


@dataclass
class DetrOutputs(BoxOutputs):
    """Images, and what the decoder says of them; while training it waits for the truth, which it sees with noise."""

    images: Tensor
    image_size: tuple[int, int]
    said: dict[str, Any] | None


class Detr(BoxNetwork):
    """A network of transformers that takes and returns pixels of what it sees, as FCOS does."""

    def __init__(
        self, detr: Any, kind: Kind, sizes: Sizes, plain: tuple[Sequence[float], Sequence[float]] | None
    ) -> None:
        super().__init__()
        self.detr, self.kind, self.sizes = detr, kind, sizes
        # Images come normalised; `plain`, mean and spread, makes them what such published weights are of.
        mean, spread = plain or ([0.0], [1.0])
        for name, values in (("mean", mean), ("spread", spread)):
            self.register_buffer(name, torch.tensor(values).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> DetrOutputs:
        """Run the network on images that are normalised and of one size already; while training only take them."""
        size = (images.shape[-2], images.shape[-1])
        self.sizes.refuse(*size)
        images = images * self.get_buffer("spread") + self.get_buffer("mean")
        return DetrOutputs(images, size, None if self.training else self._say(images, []))

    def image_losses(
        self, outputs: DetrOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Return (B,) losses of images, `classification` and `box`, each divided by the image's number of boxes."""
        height, width = outputs.image_size
        kind = torch.float64 if outputs.images.dtype == torch.float64 else torch.float32
        shares = [box_convert(one, "xyxy", "cxcywh").to(kind) for one in boxes]
        shares = [one / one.new_tensor([width, height, width, height]) for one in shares]
        truth = Truth.of(shares, labels)
        known = [{"boxes": one, "class_labels": of_one} for one, of_one in zip(shares, labels, strict=True)]
        said = outputs.said = self._say(outputs.images, known) if outputs.said is None else outputs.said
        with torch.autocast(outputs.images.device.type, enabled=False):
            losses = DetrLoss(self.detr.config)(_layers(said, self.kind, truth.counts), truth)
            if not self.training:
                return losses
            # Images without a box leave some weights unused, for whose gradients other processes would wait.
            unused = sum(weight.sum() for weight in self.parameters() if weight.requires_grad) * 0.0
            return losses | {"classification": losses["classification"] + unused}

    def detections(self, outputs: DetrOutputs) -> list[dict[str, Tensor]]:
        """Return `boxes`, `scores` and `labels` of each image in pixels of what the network saw, best first."""
        height, width = outputs.image_size
        said = self._say(outputs.images, []) if outputs.said is None else outputs.said
        found, classes = [], said["logits"].shape[-1]
        queries = said["queries"]  # of several groups, or behind noisy ones: those that predict
        for logits, shares in zip(said["logits"][:, -queries:], said["boxes"][:, -queries:], strict=True):
            scores, places = logits.sigmoid().flatten().topk(min(MOST_DETECTIONS, logits.numel()))
            boxes = box_convert(shares[places // classes], "cxcywh", "xyxy")
            boxes = boxes.clamp(0, 1) * boxes.new_tensor([width, height, width, height])
            good = scores > LEAST_SCORE
            found.append({"boxes": boxes[good], "scores": scores[good], "labels": (places % classes)[good]})
        return found

    def _say(self, images: Tensor, truth: list[dict[str, Tensor]]) -> dict[str, Any]:
        """Run the network, with the true boxes where it is training, which go in with noise."""
        device = images.device.type
        is_half = torch.is_autocast_enabled(device)
        for name in self.kind.half:
            cast(_InHalf, self.detr.model.get_submodule(name)).is_half = is_half
        with torch.autocast(device, enabled=False):
            said = self.detr(pixel_values=images.to(self.detr.dtype), labels=truth).loss_dict
        return said | {"queries": self.detr.config.num_queries}


class _InHalf:
    """A part of a network in full precision that computes in half, and gives float32."""

    is_half = False

    def forward(self, *arguments: Any, **named: Any) -> Any:
        with torch.autocast(self._device(), enabled=self.is_half):
            given = super().forward(*arguments, **named)  # ty: ignore[missing-attribute]
        return _full(given) if self.is_half else given

    def _device(self) -> str:
        return next(cast(nn.Module, self).parameters()).device.type


def _full(values: Any) -> Any:
    """Return tensors in half precision, however they are packed, in float32."""
    if isinstance(values, Tensor):
        return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    if isinstance(values, Mapping):
        for key, value in values.items():
            values[key] = _full(value)
        return values
    return type(values)(map(_full, values)) if isinstance(values, list | tuple) else values


def _hand_over(
    logits: Tensor, labels: Any, device: Any, pred_boxes: Tensor, config: Any, *layers: Any, **named: Any
) -> tuple[None, dict[str, Any], None]:
    """Stand where transformers computes a loss: give what it would be computed of."""
    names = ("outputs_class", "outputs_coord", "enc_outputs_class", "enc_outputs_coord")
    return None, {"logits": logits, "boxes": pred_boxes, **dict(zip(names, layers, strict=False)), **named}, None


def _layers(said: dict[str, Any], kind: Kind, counts: list[int]) -> list[Layer]:
    """Return all that is learnt from: the decoder's layers, its start, and the noisy true boxes."""
    if not kind.takes_encoder:
        return _grouped_layers(said)
    noise = said.get("denoising_meta_values")
    classes, boxes = said["outputs_class"], said["outputs_coord"].clamp(0, 1)
    corners, reference = said.get("predicted_corners"), said.get("initial_reference_points")
    noisy = noise["dn_num_split"][0] if noise else 0
    layers = _stacked(classes, boxes, corners, reference, slice(noisy, None))
    layers.append(Layer(said["enc_topk_logits"], said["enc_topk_bboxes"]))
    if noise:
        groups = noise["dn_num_group"]
        known = noisy_pairs(noise["dn_positive_idx"], groups, counts)
        for layer in _stacked(classes, boxes, corners, reference, slice(noisy)):
            layer.known, layer.groups = known, groups
            layers.append(layer)
    return layers


def _stacked(
    classes: Tensor, boxes: Tensor, corners: Tensor | None, reference: Tensor | None, queries: slice
) -> list[Layer]:
    """Return the layers of (B, layers, Q, ...), of some queries. D-FINE's first may be a guess without corners."""
    layers = [
        Layer(*each) for each in zip(classes[:, :, queries].unbind(1), boxes[:, :, queries].unbind(1), strict=True)
    ]
    if corners is None or reference is None:
        return layers
    for number in range(1, corners.shape[1] + 1):
        layer = layers[-number]
        layer.corners, layer.reference = corners[:, -number, queries], reference[:, -number, queries]
        layer.teacher = layers[-1] if number > 1 else None
    return layers


def _grouped_layers(said: dict[str, Any]) -> list[Layer]:
    """Return the layers (layers, B, Q, ...) of LW-DETR and RF-DETR, whose queries are in groups while training."""
    groups = said["logits"].shape[1] // said["queries"]
    pairs = [(said["logits"], said["boxes"]), (said["enc_outputs_class"], said["enc_outputs_coord"])]
    pairs += zip(said["outputs_class"][:-1], said["outputs_coord"][:-1], strict=True)
    return [Layer(logits, boxes, groups=groups) for logits, boxes in pairs]


def build_network(config: TaskConfig, num_classes: int) -> Detr:
    """Return the DETR that `model:` asks for. Raises CompetitionError where it, or the image size, cannot be had."""
    model, kind = config.model, KINDS[config.model.architecture]
    transformers = _transformers(model.architecture, OF_TRANSFORMERS[model.architecture])
    keys = network_keys(model, config.data.channels)
    settings = _config(transformers, kind, keys, num_classes)
    sizes = Sizes.of(settings, model.architecture)
    sizes.refuse(*config.data.image_size, "data.image_size")
    for view in config.tta:
        sizes.refuse(*view_of(view).seen_size(*config.data.image_size), f"tta: {view}")
    detr, line = _with_weights(transformers, kind, settings, model, config.data.channels)
    detr.loss_function = _hand_over
    for name in kind.half:
        part = detr.model.get_submodule(name)
        part.__class__ = type(f"{type(part).__name__}InHalf", (_InHalf, type(part)), {})
    is_own = keys["backbone_config"]["model_type"] == "timm_backbone"
    plain = (config.data.mean, config.data.std) if kind.sees_plain and not is_own else None
    network = Detr(detr, kind, sizes, plain)
    place = "detr.model.backbone"
    note_encoder(
        *((network, f"{place}.model._backbone", model.encoder) if is_own else (network, place, model.network_name))
    )
    note_weights(network, line)
    return network


def _transformers(architecture: str, least: str) -> Any:
    """Return the library, which takes seconds to import."""
    try:
        import transformers
    except ImportError:
        raise CompetitionError(
            f"model.architecture: {architecture} needs the package transformers, {least} or newer: uv sync --extra detr"
        ) from None
    if Version(transformers.__version__) < Version(least):
        raise CompetitionError(
            f"model.architecture: {architecture} needs transformers {least} or newer, found "
            f"{transformers.__version__}: uv sync --extra detr --upgrade-package transformers"
        )
    from transformers.utils import logging as its_logging

    its_logging.set_verbosity_error()
    its_logging.disable_progress_bar()
    logging.getLogger("transformers").propagate = False
    return transformers


def network_keys(model: DetectionModel, channels: int) -> dict[str, Any]:
    """Return the keys of the network's config in transformers: those of `size` or of `encoder`, over them `network`."""
    kind = KINDS[model.architecture]
    keys: dict[str, Any] = {BATCH_NORM: False} if kind.takes_encoder else {}  # frozen ones never learn what they see
    if model.size is not None:
        keys |= kind.sizes[model.size][1]
    elif "backbone_config" not in model.network:
        if not kind.takes_encoder:
            raise CompetitionError(
                f"model.size: is missing; {model.architecture} has a backbone of its own: give s, m or l (or a folder "
                "of weights as model.pretrained)"
            )
        levels, widths = levels_of(model.encoder)
        backbone = {"model_type": "timm_backbone", "backbone": model.encoder, "out_indices": levels}
        keys |= {"backbone_config": backbone | {"use_pretrained_backbone": False}, "encoder_in_channels": widths}
    keys |= model.network
    backbone = keys["backbone_config"] | {"num_channels": channels}
    if "stem_channels" in backbone:
        backbone["stem_channels"] = [channels, *backbone["stem_channels"][1:]]
    return keys | {"backbone_config": backbone}


def _config(transformers: Any, kind: Kind, keys: dict[str, Any], num_classes: int) -> Any:
    maker = getattr(transformers, f"{kind.name}Config")
    known = maker().to_dict()
    # A folder's config.json may have keys of other versions, a user's own are typed.
    if "model_type" not in keys and (odd := [key for key in keys if key not in {*known, BATCH_NORM}]):
        near = nearest(odd[0], known)
        hint = f"did you mean `{near}`?" if near else f"expected keys of transformers.{kind.name}Config"
        raise CompetitionError(f"model.network.{odd[0]}: unknown key (value {keys[odd[0]]}); {hint}")
    try:
        own = {key: value for key, value in keys.items() if key != "model_type"}
        return maker(**copy.deepcopy(own), num_labels=num_classes)  # 5.0 takes keys out of what it is given
    except (TypeError, ValueError, KeyError) as error:
        raise CompetitionError(
            f"model.network: transformers.{kind.name}Config refuses it ({' '.join(str(error).split())[:200]})"
        ) from None


def _with_weights(
    transformers: Any, kind: Kind, settings: Any, model: DetectionModel, channels: int
) -> tuple[Any, str | None]:
    """Return the network with what `model.pretrained` says, and a line on that for people."""
    maker = getattr(transformers, f"{kind.name}ForObjectDetection")
    source = _source(kind, model)
    if source is not None:
        with explaining_weights(model):
            detr, about = maker.from_pretrained(
                source, config=settings, ignore_mismatched_sizes=True, output_loading_info=True
            )
        lost = {*about["missing_keys"], *(one[0] for one in about["mismatched_keys"])}
        return detr, note(detr, lost, model, f"the hub ({source})" if model.pretrained is True else str(source))
    if model.pretrained is True and (own := settings.backbone_config.model_type) != "timm_backbone":
        raise CompetitionError(
            f"model.pretrained: true: is for a published size or an encoder of timm, and not for a {own} of "
            f"model.network; {GO_ON}"
        )
    detr = maker(settings)
    if isinstance(model.pretrained, str):
        state, line = read_state(weights_file(model)), None
        if any(name.startswith("detr.") for name in state) or model.size or model.network:
            return detr, keep(detr, state, model, channels)
    if not model.pretrained:
        return detr, None
    check_encoder(model.encoder)
    line = load_pretrained(detr.model.backbone.model._backbone, model, channels, "encoder, decoder and heads")
    return detr, line


def _source(kind: Kind, model: DetectionModel) -> str | None:
    """Return the repository or folder that transformers is to read; none for a file, an encoder, or random weights."""
    if model.pretrained is True and model.size is not None:
        return kind.sizes[model.size][0]
    if isinstance(model.pretrained, str) and (folder := Path(model.pretrained).expanduser()).is_dir():
        if not any(folder.glob("*.safetensors")):
            raise CompetitionError(f"model.pretrained: {folder}: there is no *.safetensors; {GO_ON}")
        return str(folder)
    if model.pretrained is True and not kind.takes_encoder:
        raise CompetitionError(f"model.size: is missing; which {model.architecture} of the hub: give s, m or l")
    return None
