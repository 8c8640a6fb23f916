"""From a csv row to a sample and a batch: one dataset for training, validation and test images. No Lightning."""

import random
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

from competition.config.settings import Config
from competition.data.augmentation import ImageAugmentation
from competition.data.pseudo_labels import JoinedTable
from competition.files.image_folder import row_in_words, test_image, train_image
from competition.files.images import read_image, read_image_size
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table, Target, Task

Sample = dict[str, Any]
Batch = dict[str, Any]
Found = TypeVar("Found")


class SeededIndex(NamedTuple):
    """The number of an image in its dataset, with the seed of its random changes and the epoch it is drawn in."""

    index: int
    seed: int
    epoch: int | None = None  # None: none in particular


class ImageDataset(Dataset[Sample]):
    """Images by id: with a table training images, which have targets, without one test images, which have none."""

    def __init__(
        self, config: Config, image_ids: np.ndarray, *, table: Table | None = None, train: bool = False
    ) -> None:
        self.config = config
        self.image_ids = image_ids
        self.table = table
        self.rows = _rows_of(image_ids, table) if table else None
        self.augmentation = ImageAugmentation(config.data, train=train)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: SeededIndex | int) -> Sample:
        """Return `image_id`, `image` (channels, H, W) float32, the original `height` and `width`, and the target.

        A SeededIndex makes the same random changes each time, a number alone makes others each time.
        Raises CompetitionError that names the image's file and its csv line.
        """
        row, seed, epoch = index if isinstance(index, SeededIndex) else SeededIndex(index, self._fresh_seed())
        if self.augmentation.train and isinstance(index, SeededIndex):
            seed_everywhere(seed)
        image = self.read(row)
        return self.sample(row, image, self.target(row, *image.shape[:2]), seed, epoch)

    def _fresh_seed(self) -> int:
        """Return another seed each time, for callers that ask by number alone, as a plain DataLoader does.

        It is torch's next number, which a DataLoader begins anew in every worker and epoch.
        """
        return int(torch.randint(2**32, ())) if self.augmentation.train else 0

    def sample(self, index: int, image: np.ndarray, target: Target, seed: int = 0, epoch: int | None = None) -> Sample:
        """Return the sample of an image (H, W, channels), or a part of it, and its target."""
        height, width = image.shape[:2]
        image, target = self.augmentation(image, target, seed, epoch)
        sample = {
            "image_id": str(self.image_ids[index]),
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "height": height,
            "width": width,
        }
        return sample | (Task(self.config.task).dataset.target_tensors(target) if self.table else {})

    def read(self, index: int) -> np.ndarray:
        """Read one image (H, W, channels)."""
        return self._named(index, read_image)

    def read_size(self, index: int) -> tuple[int, int]:
        """Read height and width of one image."""
        return self._named(index, read_image_size)

    def _named(self, index: int, read: Callable[[Path, int, int], Found]) -> Found:
        """Read from an image's file; what is wrong with it is told with its csv line."""
        data, image_id = self.config.data, self.image_ids[index]
        is_pseudo = isinstance(self.table, JoinedTable) and self.table.is_pseudo(self._table_row(index))
        image_file = test_image if self.table is None or is_pseudo else train_image
        try:
            return read(image_file(data, image_id), data.channels, data.max_pixels)
        except CompetitionError as error:
            if is_pseudo:
                raise CompetitionError(f"{error} (of {data.pseudo})") from None
            if self.table is None:
                raise CompetitionError(f"{error} (image {index + 1} of {data.sample_submission})") from None
            line = self.table.lines[self._table_row(index)]
            raise CompetitionError(f"{error} ({row_in_words(data, line)})") from None

    def target(self, index: int, height: int, width: int) -> Target:
        """Return the answer in pixels of the original image; nothing for a test image."""
        return {} if self.table is None else self.table.target(self._table_row(index), height, width)

    def _table_row(self, index: int) -> int:
        assert self.rows is not None
        return int(self.rows[index])

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join samples: `image_id` list, `image` (B, channels, H, W), `height` and `width` (B,), and the targets."""
        batch: Batch = {
            "image_id": [sample["image_id"] for sample in samples],
            "image": torch.stack([sample["image"] for sample in samples]),
            "height": torch.tensor([sample["height"] for sample in samples]),
            "width": torch.tensor([sample["width"] for sample in samples]),
        }
        return batch | (Task(self.config.task).dataset.collate_targets(samples) if self.table else {})


def _rows_of(image_ids: np.ndarray, table: Table) -> np.ndarray:
    position = {image_id: row for row, image_id in enumerate(table.image_ids)}
    return np.array([position[image_id] for image_id in image_ids], dtype=np.int64)


def seed_everywhere(seed: int) -> None:
    """Seed the generators that code of the user's own may draw on, so that a resumed run draws the same."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Seed the same generators inside the block; behind it each goes on where it was before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed those of GPUs, too
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
