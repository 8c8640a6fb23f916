"""Every architecture of detectors as small as it can be, as `model:` in a config."""

from typing import Any

import pytest

from competition.tasks.detection.settings import OF_TRANSFORMERS

HEADS = {"decoder_self_attention_heads": 4, "decoder_cross_attention_heads": 4, "decoder_n_points": 2, "group_detr": 3}
DECODER = {"d_model": 32, "decoder_ffn_dim": 64, "decoder_layers": 2, "num_queries": 20}
HYBRID = DECODER | {
    "encoder_hidden_dim": 32,
    "decoder_in_channels": [32] * 3,
    "encoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_denoising": 20,
    "hidden_expansion": 0.5,
}
VIT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 64}
WINDOWS = {"pretrain_image_size": 64, "num_windows": 4, "window_block_indices": [0, 1], "out_indices": [1, 2]}
DINO = {"patch_size": 16, "num_windows": 2, "out_features": ["stage2", "stage3"]}
ON_ENCODER: dict[str, Any] = {"encoder": "test_resnet", "pyramid_channels": 64}
# Sides are to be multiples of 32; 64 x 96 pixels have places enough for the queries.
TINY: dict[str, dict[str, Any]] = {
    "fcos": ON_ENCODER,
    "tood": ON_ENCODER,
    "faster_rcnn": ON_ENCODER,
    "dfine": ON_ENCODER | {"network": HYBRID | {"max_num_bins": 8, "depth_mult": 0.34, "lqe_hidden_dim": 16}},
    "rt_detr_v2": ON_ENCODER | {"network": HYBRID},
    "lw_detr": {
        "network": DECODER
        | HEADS
        | {"projector_scale_factors": [1.0], "backbone_config": {"model_type": "lw_detr_vit", **VIT, **WINDOWS}}
    },
    "rf_detr": {"network": DECODER | HEADS | {"backbone_config": {"model_type": "rf_detr_dinov2", **VIT, **DINO}}},
}
PLACES = {"dfine": 126, "rt_detr_v2": 126, "lw_detr": 24, "rf_detr": 24}


def tiny(architecture: str, **more: Any) -> dict[str, Any]:
    """Return `model:` of a small network."""
    return {"architecture": architecture, **TINY[architecture], **more}


def of_all_places(architecture: str) -> dict[str, Any]:
    """Return `model:` of a small network with a query for each place in 64 x 96 pixels: of a network that has learnt
    hardly anything, which places are taken would hang on last bits, and so on the CPU and the number of images."""
    made = tiny(architecture)
    if architecture in PLACES:
        made["network"] = made["network"] | {"num_queries": PLACES[architecture]}
    return made


def skip_without(architecture: str | None) -> None:
    """Skip a test where the library that has an architecture is not there, or too old."""
    if architecture in OF_TRANSFORMERS:
        pytest.importorskip("transformers", minversion=OF_TRANSFORMERS[architecture])
