"""From a csv row to a sample and a batch: one dataset for training, validation and test images. No Lightning."""

import random
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from competition.config.data_settings import Data
from competition.config.settings import Config
from competition.data.augmentation import OPENCV_CHANNELS, ImageAugmentation, Resized
from competition.data.cache import ImageCache, open_cache
from competition.data.kept_images import KeptImages
from competition.data.training_part import training_columns, training_row, training_source
from competition.files.item_source import ImageFile, ImageSource, own_part, test_source
from competition.files.table_columns import ColumnValues, test_values
from competition.networks.columns import collate_columns, column_tensors
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

    unit = "images"  # what a sample is, in words

    def __init__(
        self,
        config: Config,
        image_ids: np.ndarray,
        *,
        table: Table | None = None,
        train: bool = False,
        columns: ColumnValues | None = None,
    ) -> None:
        """Take what `data.columns` say of the images, if it is known, or read it."""
        self.config = config
        self.image_ids = image_ids
        self.table = table
        self.rows = _rows_of(image_ids, table) if table else None
        self.columns = columns or self._read_columns()
        self.weights: np.ndarray | None = None  # (n,) what images count in the loss; none: all alike
        # Adds to a target what moves with the image of what another run says (`loss.distil`): by id, height and width.
        self.teacher: Callable[[str, int, int], Target] | None = None
        self.augmentation = ImageAugmentation(config.data, train=train)
        self.kept: KeptImages | None = None  # see `share_cache`

    def of_images(self) -> "ImageDataset":
        """Return the dataset of the single images that samples are made of."""
        return self

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: SeededIndex | int) -> Sample:
        """Return `image_id`, `image` (channels, H, W), the original `height` and `width`, and the target.

        The image is uint8, or float32 and normalised.

        A SeededIndex makes the same random changes each time, a number alone makes others each time.
        Raises CompetitionError that names the image's file and its csv line.
        """
        row, seed, epoch = index if isinstance(index, SeededIndex) else SeededIndex(index, self._fresh_seed())
        if self.augmentation.train and isinstance(index, SeededIndex):
            _seed_cpu(seed)
        image = self._image(row)
        return self.sample(row, image, self._target_of_sample(row, image), seed, epoch)

    def _fresh_seed(self) -> int:
        """Return another seed each time, for callers that ask by number alone, as a plain DataLoader does.

        It is torch's next number, which a DataLoader begins anew in every worker and epoch.
        """
        return int(torch.randint(2**32, ())) if self.augmentation.train else 0

    def sample(
        self, index: int, image: np.ndarray | Resized, target: Target, seed: int = 0, epoch: int | None = None
    ) -> Sample:
        """Return the sample of an image (H, W, channels), or a part of it, and its target."""
        height, width = image.shape[:2]
        is_8_bit = (image.pixels if isinstance(image, Resized) else image).dtype == np.uint8
        changed, target = self.augmentation(image, target, seed, epoch)
        pixels = _channels_first(changed)
        sample = {
            "image_id": str(self.image_ids[index]),
            "image": pixels if pixels.dtype == torch.uint8 else _normalise(pixels, self.config, 255 if is_8_bit else 1),
            "height": height,
            "width": width,
        }
        sample |= column_tensors(self.columns, index) | self.weight_of(index)
        return sample | (Task(self.config.task).dataset.target_tensors(target) if self.table else {})

    def read(self, index: int) -> np.ndarray:
        """Read one image (H, W, channels)."""
        image = None if self.kept is None else self.kept.image(index, self._read_files)
        return image if isinstance(image, np.ndarray) else self._read_files(index)

    def read_size(self, index: int) -> tuple[int, int]:
        """Read height and width of one image."""
        if self.kept is not None:
            return self.kept.size(index)
        return self.named(index, lambda: self.source(index).read_size())

    def _image(self, index: int) -> np.ndarray | Resized:
        return self.read(index) if self.kept is None else self.kept.image(index, self._read_files)

    def _read_files(self, index: int) -> np.ndarray:
        return self.named(index, lambda: self.source(index).read())

    def read_from(self, cache: ImageCache, sources: Sequence[ImageSource]) -> None:
        """Take images from a cache from now on, in which their files are."""
        self.kept = KeptImages(cache, sources, self.augmentation)

    def keep_masks(self) -> None:
        """Keep masks from now on beside images of a cache, where there is room."""
        is_by_windows = self.config.data.window is not None and not self.augmentation.train  # see WindowDataset
        if self.kept is not None and self.table is not None and len(self) and not is_by_windows:
            self.kept.keep_masks(len(self.table.classes), lambda index: self.target(index, *self.read_size(index)))

    def source(self, index: int) -> ImageSource:
        """Return what an image is made of."""
        if self.table is None:
            return test_source(self.config, self.image_ids[index])
        return training_source(self.config, self.table, self._table_row(index))

    def _read_columns(self) -> ColumnValues | None:
        if self.config.data.columns is None:
            return None
        if self.table is None or self.rows is None:
            return test_values(self.config, self.image_ids)
        return training_columns(self.config, self.table, self.rows)

    def weight_of(self, index: int) -> dict[str, torch.Tensor]:
        """Return `weight` (), what an image counts in the loss; nothing where all count alike."""
        return {} if self.weights is None else {"weight": torch.tensor(self.weights[index], dtype=torch.float32)}

    def named(self, index: int, read: Callable[[], Found]) -> Found:
        """Read from an image's files; what is wrong with one is told with the image's csv line."""
        data = self.config.data
        try:
            return read()
        except CompetitionError as error:
            if self.table is None:
                raise CompetitionError(f"{error} (image {index + 1} of {data.sample_submission})") from None
            where = training_row(self.config, self.table, self._table_row(index))
            raise CompetitionError(f"{error} ({where})") from None

    def target(self, index: int, height: int, width: int) -> Target:
        """Return the answer in pixels of the original image; nothing for a test image."""
        if self.table is None:
            return {}
        taught = {} if self.teacher is None else self.teacher(str(self.image_ids[index]), height, width)
        return self.table.target(self._table_row(index), height, width) | taught

    def _target_of_sample(self, index: int, image: np.ndarray | Resized) -> Target:
        """Return the answer in pixels of the original image, or what is kept of it: as large as the image is here."""
        if self.kept is None or self.teacher is not None:
            return self.target(index, *image.shape[:2])
        return self.kept.target(index, image, lambda: self.target(index, *image.shape[:2]))

    def _table_row(self, index: int) -> int:
        assert self.rows is not None
        return int(self.rows[index])

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join samples: `image_id` list, `image` (B, channels, H, W), `height` and `width` (B,), and the targets.

        Images are uint8, to be normalised where there is a GPU, unless one of them is normalised already.
        """
        batch: Batch = {
            "image_id": [sample["image_id"] for sample in samples],
            "image": self._joined([sample["image"] for sample in samples]),
            "height": torch.tensor([sample["height"] for sample in samples]),
            "width": torch.tensor([sample["width"] for sample in samples]),
        }
        batch |= collate_columns(samples) | collate_weights(samples)
        return batch | (Task(self.config.task).dataset.collate_targets(samples) if self.table else {})

    def _joined(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        if all(image.dtype == torch.uint8 for image in images):
            return torch.stack(list(images))
        joined = torch.empty((len(images), *images[0].shape))
        for place, image in zip(joined, images, strict=True):
            place.copy_(image)
            if image.dtype == torch.uint8:
                _normalise(place, self.config)
        return joined


class GivenSources(ImageDataset):
    """Images without targets whose files are known, wherever they are."""

    def __init__(
        self,
        config: Config,
        image_ids: np.ndarray,
        sources: Sequence[ImageSource],
        columns: ColumnValues | None = None,
    ) -> None:
        super().__init__(config, image_ids, columns=columns)
        self._sources = sources

    def source(self, index: int) -> ImageSource:
        """Return what an image is made of."""
        return self._sources[index]


def collate_weights(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """Stack to `weight` (B,) where samples have one."""
    return {"weight": torch.stack([one["weight"] for one in samples])} if "weight" in samples[0] else {}


def _channels_first(image: np.ndarray) -> torch.Tensor:
    """Return (channels, H, W) of an image (H, W, channels), always a copy."""
    if image.shape[2] > OPENCV_CHANNELS:
        return torch.from_numpy(image.transpose(2, 0, 1).copy())
    planes = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
    cv2.split(image, list(planes))  # several times faster than numpy's strided copy
    return torch.from_numpy(planes)


def normalised(images: torch.Tensor, config: Config) -> torch.Tensor:
    """Return a copy of 8 bit images (..., channels, H, W) as float32, normalised."""
    return _normalise(images.to(torch.float32, copy=True), config)


def _normalise(images: torch.Tensor, config: Config, largest: int = 255) -> torch.Tensor:
    """Normalise float32 images where they are, by `data.mean` and `data.std`, which are shares of `largest`.

    This is the only place where it is done, and `pixels_of` the one where it is undone. Each value comes of one
    subtraction and one product in float32: it is the same, to the last bit, on any device.
    """
    mean, std = (
        np.array(values, dtype=np.float32) * np.float32(largest) for values in (config.data.mean, config.data.std)
    )
    shift, factor = (torch.from_numpy(values).to(images.device)[:, None, None] for values in (mean, np.reciprocal(std)))
    return images.sub_(shift).mul_(factor)


def pixels_of(image: np.ndarray, data: Data, *, is_8_bit: bool) -> np.ndarray:
    """Return the pixels (H, W, channels) that were `normalised` to (channels, H, W), to look at: uint8, or float32.

    Of a stack they are those of the image itself.
    """
    values = image.transpose(1, 2, 0) * np.array(data.std, np.float32) + np.array(data.mean, np.float32)
    values = own_part(values, data)
    return np.clip(np.round(values * 255), 0, 255).astype(np.uint8) if is_8_bit else values


def ready(batch: Batch, config: Config, dtype: torch.dtype) -> Batch:
    """Return a batch, on the device that it is for, with the images that a network of a type of weights sees."""
    images = batch["image"]
    return batch if images.dtype != torch.uint8 else batch | {"image": normalised(images, config).to(dtype)}


def share_cache(config: Config, datasets: Sequence[ImageDataset]) -> None:
    """Let datasets read from one file of `data.cache`, which holds all their images and is made where it is not there.

    Raises CompetitionError where an image cannot be read, or there is no room.
    """
    if config.data.cache is None:
        return
    sources = [[dataset.source(index) for index in range(len(dataset))] for dataset in datasets]
    places = {
        file: (dataset, index, source)
        for dataset, its in zip(datasets, sources, strict=True)
        for index, source in enumerate(its)
        for file in source.present()
    }
    each = config.data.file_channels, config.data.max_pixels

    def read(file: ImageFile) -> np.ndarray:
        dataset, index, source = places[file]
        return dataset.named(index, lambda: source.read_file(file))

    def read_size(file: ImageFile) -> tuple[int, int]:
        dataset, index, _ = places[file]
        return dataset.named(index, lambda: file.read_size(*each))

    cache = open_cache(config.data, places, read, read_size)
    for dataset, its in zip(datasets, sources, strict=True):
        dataset.read_from(cache, its)
        dataset.keep_masks()


def _rows_of(image_ids: np.ndarray, table: Table) -> np.ndarray:
    position = {image_id: row for row, image_id in enumerate(table.image_ids)}
    return np.array([position[image_id] for image_id in image_ids], dtype=np.int64)


def seed_everywhere(seed: int, device: torch.device) -> None:
    """Seed the generators that code of the user's own may draw on, so that a resumed run draws the same.

    Of devices the process's own alone: for each kind that it has not begun to use torch notes, slowly, who seeds it.
    """
    _seed_cpu(seed)
    if device.type != "cpu":
        getattr(torch, device.type, torch).manual_seed(seed)


def _seed_cpu(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Seed the same generators inside the block; behind it each goes on where it was before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        _seed_cpu(seed)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
