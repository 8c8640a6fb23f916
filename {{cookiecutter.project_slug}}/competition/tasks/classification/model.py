"""The network: any classifier of timm."""

import timm
from torch import nn

from competition.tasks.classification.prediction import Activation
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.encoder import note_encoder
from competition.tasks.pretrained import check_encoder, load_pretrained, note_weights


def build_network(config: TaskConfig, num_classes: int) -> nn.Module:
    """Return a network from images (B, channels, H, W) to logits (B, classes), or numbers (B, columns).

    What makes predictions of them goes with it as `activation_of_answers`, which has no weights.
    """
    model = config.model
    check_encoder(model.encoder)
    network = timm.create_model(
        model.encoder,
        pretrained=False,
        num_classes=num_classes,
        in_chans=config.data.channels,
        drop_rate=model.dropout,
    )
    note_weights(network, load_pretrained(network, model, config.data.channels, "classifier"))
    note_encoder(network, "", model.encoder)
    network.add_module("activation_of_answers", Activation(config.format.target, config.format.bounds))
    return network
