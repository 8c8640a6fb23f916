"""The network: an encoder-decoder of segmentation-models-pytorch that ends where its heatmaps are fine enough."""

import math
from typing import Any

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from torch import nn

from competition.networks.encoder import note_encoder
from competition.networks.encoder_decoder import build_encoder_decoder
from competition.networks.pretrained import note_weights
from competition.tasks.points.settings import TaskConfig

OWN_STRIDE = 4  # of what decoders without steps of their own say, which the library enlarges behind them
FIRST_SHARE = 0.1  # of a cell that a point is there, to begin with, as CenterNet has it: most are empty


def build_network(config: TaskConfig, num_classes: int) -> nn.Module:
    """Return a network from images (B, channels, H, W) to logits (B, classes, H / stride, W / stride)."""
    model = config.model
    is_unet = model.architecture == "unet"
    network, loaded = build_encoder_decoder(
        smp.create_model,
        smp_encoders,
        model,
        config.data,
        classes=num_classes,
        **({} if is_unet else {"upsampling": OWN_STRIDE // model.stride}),
    )
    if is_unet:
        _leave_out_last_steps(network, round(math.log2(model.stride)), num_classes)
    head: Any = network.get_submodule("segmentation_head")
    nn.init.constant_(head[0].bias, math.log(FIRST_SHARE / (1 - FIRST_SHARE)))
    note_encoder(network, "encoder", model.encoder)
    note_weights(network, loaded)
    return network


def _leave_out_last_steps(network: Any, number: int, num_classes: int) -> None:
    """Let a U-Net end so many doublings earlier, with a head of its own there."""
    if number:
        kept = network.decoder.blocks[: len(network.decoder.blocks) - number]
        network.decoder.blocks = kept
        network.segmentation_head = SegmentationHead(kept[-1].conv2[0].out_channels, num_classes)
