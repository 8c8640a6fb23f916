"""Test images that cannot be read: in a hidden test set one must not cost the whole submission. No Lightning."""

import numpy as np
import torch

from competition.config.settings import Config
from competition.data.dataset import ImageDataset, Sample, SeededIndex
from competition.data.series_dataset import SeriesDataset
from competition.files.series import images_of_groups, is_series, one_by_one
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


class ForgivingSeries(SeriesDataset):
    """Groups of test images, without those that cannot be read; where none of a group can, they are black."""

    def __init__(self, config: Config, groups: np.ndarray) -> None:
        members = images_of_groups(config, groups, of_test=True)
        ids = np.array([image_id for group in groups for image_id in members[group]], dtype=object)
        self.forgiving = ForgivingDataset(one_by_one(config), ids)
        super().__init__(config, groups, images=self.forgiving, members=members)

    def __getitem__(self, index: SeededIndex | int) -> Sample:
        """Return the sample of a group's images that can be read."""
        sample, row = super().__getitem__(index), index if isinstance(index, int) else index.index
        read = [not self.forgiving.is_unreadable(place) for place in self.places[row]]
        if any(read):
            sample["images"] = [image for image, is_read in zip(sample["images"], read, strict=True) if is_read]
        return sample

    def is_unreadable(self, index: int) -> bool:
        """Return whether no image of a group could be read."""
        return all(map(self.forgiving.is_unreadable, self.places[index]))

    def refuse_too_many(self) -> None:
        """Do as of single images."""
        self.forgiving.refuse_too_many()

    def unreadable(self) -> list[int]:
        """Return the images that could not be read so far."""
        return self.forgiving.unreadable()

    def reason(self, index: int) -> str:
        """Return what is wrong with an image."""
        return self.forgiving.reason(index)


def forgiving(config: Config, image_ids: np.ndarray) -> ForgivingDataset | ForgivingSeries:
    """Return the test images, or groups of them, of which what cannot be read costs nothing else."""
    return ForgivingSeries(config, image_ids) if is_series(config) else ForgivingDataset(config, image_ids)
