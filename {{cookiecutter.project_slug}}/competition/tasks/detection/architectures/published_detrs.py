"""The published networks behind `model.size` of a DETR: where their weights are, and what transformers needs to know to
build them without asking anybody. No torch."""

from dataclasses import dataclass
from typing import Any

STRIDE = 32  # of a hybrid encoder's coarsest level


@dataclass(frozen=True)
class Kind:
    """A family of networks in transformers."""

    name: str  # what its classes there begin with
    half: tuple[str, ...]  # parts that may compute in half precision: what says boxes may not
    sizes: dict[str, tuple[str, dict[str, Any]]]  # by `model.size`: repository on the hub, keys of the config
    takes_encoder: bool = False  # whether any convolutional timm encoder can be its backbone
    sees_plain: bool = False  # whether its published weights are of images from 0 to 1, not normalised


def _hgnet(stem: int, outs: list[int], blocks: int, layers: int, *, affine: bool) -> dict[str, Any]:
    """Return the config of HGNetV2, whose stages have half the width of what they give, quartered inside."""
    middle = stem
    return {
        "model_type": "hgnet_v2",
        "out_indices": [2, 3, 4],
        "hidden_sizes": outs,
        "embedding_size": 32,
        "stem_channels": [3, {16: 16, 32: 24, 48: 32}[stem], stem],
        "stage_in_channels": [stem, *outs[:-1]],
        "stage_mid_channels": [middle, *({16: [32, 64, 128], 32: [64, 128, 256], 48: [96, 192, 384]}[stem])],
        "stage_out_channels": outs,
        "stage_num_blocks": [1, 1, blocks, 1],
        "stage_downsample": [False, True, True, True],
        "stage_light_block": [False, False, True, True],
        "stage_kernel_size": [3, 3, 5, 5],
        "stage_numb_of_layers": [layers] * 4,
        "use_learnable_affine_block": affine,
    }


def _dfine(backbone: dict[str, Any], decoder_layers: int, **more: Any) -> dict[str, Any]:
    levels = backbone["hidden_sizes"][1:]
    shape = {"decoder_layers": decoder_layers, "decoder_n_points": [3, 6, 3], "encoder_in_channels": levels}
    return {"backbone_config": backbone, **shape, **more}


def _rt_detr(depths: list[int], layer_type: str, decoder_layers: int, **more: Any) -> dict[str, Any]:
    widths = [64, 128, 256, 512] if layer_type == "basic" else [256, 512, 1024, 2048]
    backbone: dict[str, Any] = {
        "model_type": "rt_detr_resnet",
        "out_features": ["stage2", "stage3", "stage4"],
        "embedding_size": 64,
    }
    backbone |= {"hidden_sizes": widths, "depths": depths, "layer_type": layer_type}
    shape = {"decoder_layers": decoder_layers, "encoder_in_channels": widths[1:]}
    return {"backbone_config": backbone, **shape, **more}


def _lw_detr(hidden_size: int, *, large: bool) -> dict[str, Any]:
    backbone: dict[str, Any] = {
        "model_type": "lw_detr_vit",
        "image_size": 1024,
        "hidden_size": hidden_size,
        "num_hidden_layers": 10,
    }
    backbone |= {"num_attention_heads": 12, "window_block_indices": [0, 1, 3, 6, 7, 9], "out_indices": [2, 4, 5, 9]}
    heads = {"decoder_self_attention_heads": 12 if large else 8, "decoder_cross_attention_heads": 24 if large else 16}
    shape = {"d_model": 384 if large else 256, "decoder_n_points": 4 if large else 2, "num_queries": 300}
    scales = {"projector_scale_factors": [2.0, 0.5] if large else [1.0]}
    return {"backbone_config": backbone, "decoder_layers": 3, **heads, **shape, **scales}


def _rf_detr(image_size: int, decoder_layers: int) -> dict[str, Any]:
    backbone: dict[str, Any] = {
        "model_type": "rf_detr_dinov2",
        "image_size": image_size,
        "patch_size": 16,
        "num_windows": 2,
    }
    backbone |= {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "layer_norm_eps": 1e-6}
    backbone |= {"out_features": ["stage3", "stage6", "stage9", "stage12"]}
    heads = {"decoder_self_attention_heads": 8, "decoder_cross_attention_heads": 16, "decoder_n_points": 2}
    return {"backbone_config": backbone, "decoder_layers": decoder_layers, "d_model": 256, "num_queries": 300, **heads}


SMALL, MEDIUM = [64, 256, 512, 1024], [96, 384, 768, 1536]
LARGE = [128, 512, 1024, 2048]
KINDS = {
    "dfine": Kind(
        "DFine", ("backbone", "encoder"), takes_encoder=True, sees_plain=True,
        sizes={
            "s": ("ustc-community/dfine-small-obj2coco", _dfine(
                _hgnet(16, SMALL, 2, 3, affine=True), 3, hidden_expansion=0.5, depth_mult=0.34)),
            "m": ("ustc-community/dfine-medium-obj2coco", _dfine(
                _hgnet(32, MEDIUM, 3, 4, affine=True), 4, hidden_expansion=1.0, depth_mult=0.67)),
            "l": ("ustc-community/dfine-large-obj2coco-e25", _dfine(
                _hgnet(48, LARGE, 3, 6, affine=False), 6, hidden_expansion=1.0, depth_mult=1.0)),
        },
    ),
    "rt_detr_v2": Kind(
        "RTDetrV2", ("backbone", "encoder"), takes_encoder=True, sees_plain=True,
        sizes={
            "s": ("PekingU/rtdetr_v2_r18vd", _rt_detr([2, 2, 2, 2], "basic", 3, hidden_expansion=0.5)),
            "m": ("PekingU/rtdetr_v2_r34vd", _rt_detr([3, 4, 6, 3], "basic", 4, hidden_expansion=0.5)),
            "l": ("PekingU/rtdetr_v2_r50vd", _rt_detr([3, 4, 6, 3], "bottleneck", 6, hidden_expansion=1.0)),
        },
    ),
    "lw_detr": Kind(
        "LwDetr", ("backbone",),
        sizes={
            "s": ("AnnaZhang/lwdetr_small_60e_coco", _lw_detr(192, large=False)),
            "m": ("AnnaZhang/lwdetr_medium_60e_coco", _lw_detr(384, large=False)),
            "l": ("AnnaZhang/lwdetr_large_60e_coco", _lw_detr(384, large=True)),
        },
    ),
    "rf_detr": Kind(
        "RfDetr", ("backbone",),
        sizes={
            "s": ("Roboflow/rf-detr-small", _rf_detr(512, 3)),
            "m": ("Roboflow/rf-detr-medium", _rf_detr(576, 4)),
            "l": ("Roboflow/rf-detr-large", _rf_detr(704, 4)),
        },
    ),
}  # fmt: skip
