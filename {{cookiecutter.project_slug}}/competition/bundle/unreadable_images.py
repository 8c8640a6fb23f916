"""Test images that cannot be read: in a hidden test set one must not cost the whole submission. No Lightning."""

import numpy as np
import torch

from competition.config.settings import Config
from competition.data.dataset import ImageDataset
from competition.support.errors import CompetitionError

MOST_UNREADABLE = 0.1  # of the images that a submission may answer without having seen them


class ForgivingDataset(ImageDataset):
    """Test images, of which those that cannot be read come as black ones and are noted, in every worker."""

    def __init__(self, config: Config, image_ids: np.ndarray) -> None:
        super().__init__(config, image_ids)
        self._is_unreadable = torch.zeros(len(image_ids), dtype=torch.bool).share_memory_()

    def read(self, index: int) -> np.ndarray:
        """Read one image (H, W, channels); one without pixels is black."""
        try:
            return super().read(index)
        except MemoryError:
            raise
        except Exception:  # whatever a decoder raises on bytes that nobody has seen before
            self._is_unreadable[index] = True
            return np.zeros((*self.read_size(index), self.config.data.channels), dtype=np.uint8)

    def read_size(self, index: int) -> tuple[int, int]:
        """Read height and width; where the file has none, those that the network sees."""
        try:
            return super().read_size(index)
        except Exception:
            return self.config.data.image_size

    def is_unreadable(self, index: int) -> bool:
        """Return whether an image was found to be so when it was read."""
        return bool(self._is_unreadable[index])

    def refuse_too_many(self) -> None:
        """Raise CompetitionError where so many cannot be read that the folder is wrong rather than the images."""
        unreadable = self.unreadable()
        if len(unreadable) > max(1, MOST_UNREADABLE * len(self)):
            raise CompetitionError(
                f"{len(unreadable)} of {len(self)} images cannot be read, the first: {self.reason(unreadable[0])}; is "
                f"this the competition's folder, and does data.image_file name its files?"
            )

    def unreadable(self) -> list[int]:
        """Return the images that could not be read so far."""
        return torch.nonzero(self._is_unreadable).flatten().tolist()

    def reason(self, index: int) -> str:
        """Return what is wrong with an image."""
        try:
            super().read(index)
        except Exception as error:
            return " ".join(str(error).split())
        return "it was read now"
