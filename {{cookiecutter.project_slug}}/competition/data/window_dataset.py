"""Images as samples of their windows, one after the other, and the predictions of windows as those of images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from competition.data.dataset import Batch, ImageDataset, Sample
from competition.tasks.contract import Joining, Prediction, Target, Task
from competition.tasks.windows import Place, cut_image, cut_target, places


class WindowDataset(Dataset[Sample]):
    """The windows of images, image after image: each a sample like that of an image, which knows its place.

    Neighbouring windows are asked for together, so a worker keeps the image it read last and no other.
    """

    def __init__(self, images: ImageDataset, rows: Sequence[int]) -> None:
        """Read the sizes of the images `rows` of a dataset from their headers."""
        self.images = images
        window, size = images.config.data.window, images.config.data.window_size
        assert window is not None
        assert size is not None
        with ThreadPoolExecutor() as pool:
            sizes = list(pool.map(images.read_size, rows))
        each = [places(height, width, size, window.overlap) for height, width in sizes]
        self.windows = [(row, place, place is part[-1]) for row, part in zip(rows, each, strict=True) for place in part]
        self._last: tuple[int, np.ndarray, Target] | None = None

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample of a window, with `place` (top, left, height, width), `whole` (H, W) and `is_last`."""
        row, place, is_last = self.windows[index]
        image, target = self._read(row)
        sample = self.images.sample(row, cut_image(image, place), cut_target(target, place))
        return sample | {
            "place": (place.top, place.left, place.height, place.width),
            "whole": image.shape[:2],
            "is_last": is_last,
        }

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join samples, with a list each of `place`, `whole` and `is_last`."""
        return self.images.collate(samples) | {
            key: [sample[key] for sample in samples] for key in ("place", "whole", "is_last")
        }

    def _read(self, row: int) -> tuple[np.ndarray, Target]:
        if self._last is None or self._last[0] != row:
            image = self.images.read(row)
            self._last = row, image, self.images.target(row, *image.shape[:2])
        return self._last[1:]


class WholeImages:
    """Puts the predictions of windows together, image after image; those of whole images pass as they are."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._joining: Joining | None = None

    def add(
        self, batch: dict[str, Any], predictions: Sequence[Prediction]
    ) -> Iterator[tuple[str, int, int, Prediction]]:
        """Yield image id, original height and width, and prediction of every image that is complete."""
        if "place" not in batch:
            sizes = zip(batch["height"].tolist(), batch["width"].tolist(), strict=True)
            for image_id, size, prediction in zip(batch["image_id"], sizes, predictions, strict=True):
                yield image_id, *size, prediction
            return
        for i, prediction in enumerate(predictions):
            height, width = batch["whole"][i]
            if self._joining is None:
                self._joining = self.task.prediction.joining(height, width)
            self._joining.add(prediction, Place(*batch["place"][i]))
            if batch["is_last"][i]:
                yield batch["image_id"][i], height, width, self._joining.joined()
                self._joining = None
