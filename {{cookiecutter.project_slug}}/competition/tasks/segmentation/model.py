"""The network: an encoder-decoder of segmentation-models-pytorch."""

from typing import Any, cast

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import nn

from competition.tasks.segmentation.outputs import ExclusiveClasses
from competition.tasks.segmentation.settings import TaskConfig
from competition.weights import check_encoder, explaining_weights, load_encoder, timm_arguments, weights_file


def build_network(config: TaskConfig, num_classes: int) -> nn.Module:
    """Return a network from images (B, channels, H, W) to logits (B, classes, H, W).

    With `loss.cross_entropy` to Outputs of a softmax; with a weight for `loss.auxiliary` to a pair of these and the
    logits (B, classes) of a second head, which says of the encoder's last features which classes are in the image.
    """
    model = config.model
    check_encoder(model.encoder, list(smp_encoders))
    own_encoder = model.encoder in smp_encoders
    local_file = isinstance(model.pretrained, str)
    overlay = {} if own_encoder or not local_file else timm_arguments(model)
    overlay.pop("pretrained", None)  # smp passes it on itself
    with explaining_weights(model):
        network = smp.create_model(
            arch=model.architecture,
            encoder_name=model.encoder if own_encoder else f"tu-{model.encoder.removeprefix('tu-')}",
            encoder_weights=_encoder_weights(own_encoder, model.pretrained is True or bool(overlay)),
            # A file of weights is for colour images; the encoder is fitted to other channels once it has them.
            in_channels=3 if own_encoder and local_file else config.data.channels,
            classes=num_classes,
            aux_params={"classes": num_classes} if config.loss.auxiliary else None,
            **overlay,
        )
        if own_encoder and local_file:
            encoder = network.get_submodule("encoder")
            load_encoder(encoder, weights_file(model), model.encoder)
            if config.data.channels != 3:
                cast(EncoderMixin, encoder).set_in_channels(config.data.channels, pretrained=True)
    return ExclusiveClasses(network) if config.loss.cross_entropy else network


def _encoder_weights(own_encoder: bool, pretrained: bool) -> Any:
    """Return how segmentation-models-pytorch is told: by name for its own encoders, by true for timm's."""
    if not pretrained:
        return None
    return "imagenet" if own_encoder else True
