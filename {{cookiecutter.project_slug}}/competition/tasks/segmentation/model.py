"""The network: an encoder-decoder of segmentation-models-pytorch, and what it says of a batch."""

from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from torch import Tensor, nn

from competition.networks.encoder import note_encoder
from competition.networks.encoder_decoder import build_encoder_decoder
from competition.networks.pretrained import note_weights
from competition.tasks.segmentation.settings import TaskConfig

ALMOST_ONE = 1 - 1e-6  # probabilities over it are held there: their odds would be infinite


class Outputs(NamedTuple):
    """Logits (B, classes, H, W) whose sigmoid are the probabilities, and what else there is."""

    logits: Tensor
    labels: Tensor | None = None  # (B, classes) logits of the auxiliary head
    log_shares: Tensor | None = None  # (B, 1 + classes, H, W) log-softmax, none of the classes first


def outputs_of(raw: Any) -> Outputs:
    """Name what a network of segmentation-models-pytorch returns: logits, or a pair of them with its second head's."""
    if isinstance(raw, Outputs):
        return raw
    return Outputs(*raw) if isinstance(raw, tuple) else Outputs(raw)


class ExclusiveClasses(nn.Module):
    """A network whose pixels belong to one class or none: a softmax over the classes and a background of logit 0."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Outputs:
        """Map images (B, channels, H, W) to log-odds of the softmax: their sigmoid is the softmax."""
        raw = outputs_of(self.network(images))
        logits = raw.logits.float()
        log_shares = torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1).log_softmax(dim=1)
        rest = torch.log1p(-log_shares[:, 1:].exp().clamp(max=ALMOST_ONE))
        return Outputs(log_shares[:, 1:] - rest, raw.labels, log_shares)


def build_network(config: TaskConfig, num_classes: int) -> nn.Module:
    """Return a network from images (B, channels, H, W) to logits (B, classes, H, W).

    With `loss.cross_entropy` to Outputs of a softmax; with a weight for `loss.auxiliary` to a pair of these and the
    logits (B, classes) of a second head, which says of the encoder's last features which classes are in the image.
    """
    model = config.model
    network, loaded = build_encoder_decoder(
        smp.create_model,
        smp_encoders,
        model,
        config.data,
        classes=num_classes,
        aux_params={"classes": num_classes} if config.loss.auxiliary else None,
    )
    network = ExclusiveClasses(network) if config.loss.cross_entropy else network
    note_encoder(network, "network.encoder" if config.loss.cross_entropy else "encoder", model.encoder)
    note_weights(network, loaded)
    return network
