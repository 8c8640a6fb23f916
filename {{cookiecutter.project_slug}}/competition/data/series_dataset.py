"""Groups of images as samples (`model.join`): flat batches of images that know how many belong to each group."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch.utils.data import Dataset

from competition.config.settings import Config
from competition.data.dataset import Batch, ImageDataset, Sample, SeededIndex
from competition.files.maps import refuse_absent_stages
from competition.files.series import Members, images_of_groups, is_series, one_by_one
from competition.networks.beside import BESIDE
from competition.tasks.contract import Table, Task


def open_dataset(
    config: Config, image_ids: np.ndarray, *, table: Table | None = None, train: bool = False
) -> ImageDataset:
    """Return the dataset of images by their ids, or of groups by their names where `model.join` makes a sample of
    each."""
    refuse_absent_stages(config.data)
    kind = SeriesDataset if is_series(config) else ImageDataset
    return kind(config, image_ids, table=table, train=train)


class SeriesDataset(ImageDataset):
    """Groups by name, each a sample of its images: at most `data.group_images` of them in training, else all."""

    unit = "groups of images"

    def __init__(
        self,
        config: Config,
        image_ids: np.ndarray,
        *,
        table: Table | None = None,
        train: bool = False,
        images: ImageDataset | None = None,
        members: Members | None = None,
    ) -> None:
        """Take the `members` of groups, if they are known, and the dataset of these, one after the other."""
        if members is None:
            members = images_of_groups(config, image_ids, of_test=table is None)
        each = [members[group] for group in image_ids]
        ends = [0, *accumulate(map(len, each))]
        self.places = [range(begin, end) for begin, end in pairwise(ends)]
        if images is None:
            ids = np.array([image_id for group in each for image_id in group], dtype=object)
            of_images = None if table is None else getattr(table, "of_images")  # noqa: B009 - of tables of groups
            images = ImageDataset(one_by_one(config), ids, table=of_images, train=train)
        self._images = images
        super().__init__(config, image_ids, table=table, train=train, columns=images.columns)

    def of_images(self) -> ImageDataset:
        """Return the dataset of the single images."""
        return self._images

    def __getitem__(self, index: SeededIndex | int) -> Sample:
        """Return `image_id`, the group's name, `images`, the samples of its images, `height` and `width` of the first,
        and the group's target. Which images are drawn follows from the seed."""
        row, seed, epoch = index if isinstance(index, SeededIndex) else SeededIndex(index, self._fresh_seed())
        places = np.array(self.places[row])
        if self.augmentation.train and len(places) > self.config.data.group_images:
            drawn = np.random.default_rng(seed).permutation(len(places))[: self.config.data.group_images]
            places = places[np.sort(drawn)]
        seeds = np.random.SeedSequence(seed).generate_state(len(places))
        draws = (SeededIndex(place, one, epoch) for place, one in zip(places.tolist(), seeds.tolist(), strict=True))
        images = [self._images[draw] for draw in draws]
        height, width = images[0]["height"], images[0]["width"]
        known = {"image_id": str(self.image_ids[row]), "images": images, "height": height, "width": width}
        if self.table is not None:
            known |= Task(self.config.task).dataset.target_tensors(self.target(row, height, width))
        return known

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join samples to what a batch of images is, with the images of all groups in `image` and what is told beside
        them, and `group_sizes` (B,): how many are of each group."""
        flat = self._images.collate([image for sample in samples for image in sample["images"]])
        batch: Batch = {
            "image_id": [sample["image_id"] for sample in samples],
            **{key: flat[key] for key in ("image", *BESIDE) if key in flat},
            "group_sizes": torch.tensor([len(sample["images"]) for sample in samples]),
            "height": torch.tensor([sample["height"] for sample in samples]),
            "width": torch.tensor([sample["width"] for sample in samples]),
        }
        return batch | (Task(self.config.task).dataset.collate_targets(samples) if self.table else {})

    def read(self, index: int) -> np.ndarray:
        """Read the first image of a group."""
        return self._images.read(self.places[index][0])

    def read_size(self, index: int) -> tuple[int, int]:
        """Read height and width of the first image of a group."""
        return self._images.read_size(self.places[index][0])


class SeriesBatches(Dataset[Batch]):
    """Batches of neighbouring groups with at most so many images together, or of a single group that has more: what
    validation and prediction hold in memory hangs on no number of groups."""

    def __init__(self, groups: SeriesDataset, rows: Sequence[int], most_images: int) -> None:
        self.groups = groups
        self.batches: list[list[int]] = []
        room = 0
        for row in rows:
            size = len(groups.places[row])
            if not self.batches or size > room:
                self.batches.append([])
                room = most_images
            self.batches[-1].append(row)
            room -= size

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        """Return a whole batch."""
        return self.groups.collate([self.groups[row] for row in self.batches[index]])

    def collate(self, batches: Sequence[Batch]) -> Batch:
        """Return the batch, as loaders ask for one at a time."""
        [batch] = batches
        return batch


def first_of_each(batch: Batch) -> torch.Tensor:
    """Return the image (B, channels, H, W) that stands for each sample of a batch: of a group the first one."""
    if "group_sizes" not in batch:
        return batch["image"]
    sizes = batch["group_sizes"]
    return batch["image"][sizes.cumsum(0) - sizes]
