"""What a config says of a network of segmentation-models-pytorch: the section of tasks whose networks are of it."""

from typing import Annotated, ClassVar

from pydantic import Field

from competition.config.settings import Model

AS_WIDE_AS_ENCODER = ("linknet",)  # architectures whose decoders have no width of their own


class EncoderDecoder(Model):
    """A network of segmentation-models-pytorch; any timm encoder as `tu-NAME`."""

    knows_other_encoders: ClassVar[bool] = True

    architecture: str
    # Of its widest stage, of which a U-Net's last one has a 16th; norms of fpn have 32 groups. Null: as published.
    decoder_channels: Annotated[int, Field(ge=32, le=4096, multiple_of=32)] | None = None
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of times that a block is left out, as transformers do

    def reasons_unused(self) -> dict[str, str]:
        """Describe the width of a decoder that has the encoder's."""
        if self.decoder_channels is None or self.architecture not in AS_WIDE_AS_ENCODER:
            return {}
        reason = f"changes nothing, as the decoder of {self.architecture} is as wide as its encoder"
        return {"model.decoder_channels": reason}
