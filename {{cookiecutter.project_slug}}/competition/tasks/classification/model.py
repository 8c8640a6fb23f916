"""The network: any classifier of timm."""

import timm
from torch import nn

from competition.tasks.classification.settings import TaskConfig
from competition.weights import check_encoder, explaining_weights, timm_arguments


def build_network(config: TaskConfig, num_classes: int) -> nn.Module:
    """Return a network from images (B, channels, H, W) to logits (B, classes)."""
    model = config.model
    check_encoder(model.encoder)
    with explaining_weights(model):
        return timm.create_model(
            model.encoder,
            num_classes=num_classes,
            in_chans=config.data.channels,
            drop_rate=model.dropout,
            **timm_arguments(model),
        )
