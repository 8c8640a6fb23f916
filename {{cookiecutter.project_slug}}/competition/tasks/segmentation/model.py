"""The network: an encoder-decoder of segmentation-models-pytorch."""

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from torch import nn

from competition.tasks.segmentation.outputs import ExclusiveClasses
from competition.tasks.segmentation.settings import TaskConfig
from competition.weights import check_encoder, explaining_weights, load_pretrained, note_weights


def build_network(config: TaskConfig, num_classes: int) -> nn.Module:
    """Return a network from images (B, channels, H, W) to logits (B, classes, H, W).

    With `loss.cross_entropy` to Outputs of a softmax; with a weight for `loss.auxiliary` to a pair of these and the
    logits (B, classes) of a second head, which says of the encoder's last features which classes are in the image.
    """
    model = config.model
    check_encoder(model.encoder, list(smp_encoders))
    own_encoder = model.encoder in smp_encoders
    by_smp = own_encoder and model.pretrained is True
    with explaining_weights(model):
        network = smp.create_model(
            arch=model.architecture,
            encoder_name=model.encoder if own_encoder else f"tu-{model.encoder.removeprefix('tu-')}",
            encoder_weights="imagenet" if by_smp else None,
            in_channels=config.data.channels,
            classes=num_classes,
            aux_params={"classes": num_classes} if config.loss.auxiliary else None,
        )
    encoder = network.get_submodule("encoder")
    if by_smp:  # which loads all of an encoder or fails
        loaded = f"model.pretrained: all tensors of {model.encoder}, decoder anew, from the hub"
    else:
        loaded = load_pretrained(encoder, model, config.data.channels, "decoder")
    network = ExclusiveClasses(network) if config.loss.cross_entropy else network
    note_weights(network, loaded)
    return network
