"""The network: an encoder-decoder of segmentation-models-pytorch, and what it says of a batch."""

import warnings
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from torch import Tensor, nn

from competition.support.errors import CompetitionError
from competition.tasks.encoder import drop_path_arguments, note_encoder, size_arguments
from competition.tasks.pretrained import check_encoder, explaining_weights, load_pretrained, note_weights
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


def _misfit(config: TaskConfig, error: Exception) -> str:
    """Say that architecture and encoder do not go together."""
    model, reason = config.model, " ".join(str(error).split())[:200]
    way_on = "dpt takes plain vision transformers" if model.architecture != "dpt" else "unet takes convolutional ones"
    return f"model.architecture: {model.architecture} cannot be built on {model.encoder} ({reason}); {way_on}"


def build_network(config: TaskConfig, num_classes: int) -> nn.Module:
    """Return a network from images (B, channels, H, W) to logits (B, classes, H, W).

    With `loss.cross_entropy` to Outputs of a softmax; with a weight for `loss.auxiliary` to a pair of these and the
    logits (B, classes) of a second head, which says of the encoder's last features which classes are in the image.
    """
    model = config.model
    check_encoder(model.encoder, list(smp_encoders))
    own_encoder = model.encoder in smp_encoders and model.architecture != "dpt" and not model.drop_path
    size = config.data.image_size
    arguments = {} if own_encoder else size_arguments(model.encoder, size)
    arguments |= {} if own_encoder else drop_path_arguments(model.encoder, model.drop_path)
    by_smp = own_encoder and model.pretrained is True
    with explaining_weights(model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Encoder does not have prefix tokens")  # nobody can act on that
        try:
            network = smp.create_model(
                arch=model.architecture,
                encoder_name=model.encoder if own_encoder else f"tu-{model.encoder.removeprefix('tu-')}",
                encoder_weights="imagenet" if by_smp else None,
                in_channels=config.data.channels,
                classes=num_classes,
                aux_params={"classes": num_classes} if config.loss.auxiliary else None,
                **arguments,
            )
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            if isinstance(error, CompetitionError) or by_smp:
                raise
            raise CompetitionError(_misfit(config, error)) from None
    encoder = network.get_submodule("encoder")
    if by_smp:  # which loads all of an encoder or fails
        loaded = f"model.pretrained: all tensors of {model.encoder}, decoder anew, from the hub"
    else:
        loaded = load_pretrained(encoder, model, config.data.channels, "decoder", size)
    network = ExclusiveClasses(network) if config.loss.cross_entropy else network
    note_encoder(network, "network.encoder" if config.loss.cross_entropy else "encoder", model.encoder)
    note_weights(network, loaded)
    return network
