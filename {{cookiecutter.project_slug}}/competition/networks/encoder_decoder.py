"""Encoder-decoders of segmentation-models-pytorch, built for the size of the images, with pretrained encoders.

That library is handed over by the tasks whose networks are of it: others do not install it.
"""

import warnings
from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from competition.config.data_settings import Data
from competition.config.encoder_decoder import AS_WIDE_AS_ENCODER, EncoderDecoder
from competition.networks.encoder import drop_path_arguments, size_arguments
from competition.networks.pretrained import check_encoder, explaining_weights, load_pretrained
from competition.networks.volume import channels_of, see_volume
from competition.support.errors import CompetitionError


def build_encoder_decoder(
    create_model: Callable[..., nn.Module],
    own_encoders: Collection[str],
    model: EncoderDecoder,
    data: Data,
    **more: Any,
) -> tuple[nn.Module, str | None]:
    """Return a network and what is to be said of its weights (see `load_pretrained`).

    `own_encoders` are those that the library has itself, others are timm's; `more` goes to `create_model`. Raises
    CompetitionError where architecture and encoder do not go together.
    """
    architecture, drop_path = model.architecture, model.drop_path
    check_encoder(model.encoder, list(own_encoders))
    is_own = model.encoder in own_encoders and architecture != "dpt" and not drop_path
    size, channels = data.image_size, channels_of(model, data)
    arguments = {} if is_own else size_arguments(model.encoder, size) | drop_path_arguments(model.encoder, drop_path)
    if model.decoder_channels is not None and architecture not in AS_WIDE_AS_ENCODER:
        arguments |= _width_arguments(architecture, model.decoder_channels)
    by_library = is_own and model.pretrained is True
    with explaining_weights(model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Encoder does not have prefix tokens")  # nobody can act on that
        try:
            network = create_model(
                arch=architecture,
                encoder_name=model.encoder if is_own else f"tu-{model.encoder.removeprefix('tu-')}",
                encoder_weights="imagenet" if by_library else None,
                in_channels=channels,
                **more,
                **arguments,
            )
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            if isinstance(error, CompetitionError) or by_library:
                raise
            raise CompetitionError(_misfit(model, error)) from None
    encoder = network.get_submodule("encoder")
    see_volume(encoder, model, data)
    if by_library:  # which loads all of an encoder or fails
        return network, f"model.pretrained: all tensors of {model.encoder}, decoder anew, from the hub"
    return network, load_pretrained(encoder, model, channels, "decoder", size)


def _width_arguments(architecture: str, channels: int) -> dict[str, Any]:
    """Return how wide the library is told to make a decoder, by the channels of its widest stage, in proportions as it
    makes them itself: a U-Net's stages halve them, to a 16th. Parts that have the encoder's widths keep them."""
    match architecture:
        case "unet" | "unetplusplus" | "manet":
            return {"decoder_channels": [channels >> stage for stage in range(5)]}
        case "fpn":  # norms have 32 groups, and of groups of one channel none where a level is one pixel
            return {"decoder_pyramid_channels": channels, "decoder_segmentation_channels": max(64, channels // 64 * 32)}
        case "segformer":
            return {"decoder_segmentation_channels": channels}
        case "pspnet":
            return {"psp_out_channels": channels}
        case "dpt":
            levels = [channels, 2 * channels, 4 * channels, 4 * channels]
            return {"decoder_fusion_channels": channels, "decoder_intermediate_channels": levels}
        case _:
            return {"decoder_channels": channels}


def _misfit(model: EncoderDecoder, error: Exception) -> str:
    """Say that architecture and encoder do not go together."""
    architecture, reason = model.architecture, " ".join(str(error).split())[:200]
    way_on = "dpt takes plain vision transformers" if architecture != "dpt" else "unet takes convolutional ones"
    return f"model.architecture: {architecture} cannot be built on {model.encoder} ({reason}); {way_on}"
