"""What a dataset need not read again: its images, of a cache, and their masks. No torch."""

from collections.abc import Callable, Sequence

import numpy as np

from competition.data.augmentation import ImageAugmentation, Resized
from competition.data.cache import ImageCache
from competition.data.kept_masks import KeptMasks, room_for_masks
from competition.files.item_source import ImageSource, joined
from competition.tasks.contract import Target


class KeptImages:
    """The images of a dataset by their rows, put together of files that a cache has."""

    def __init__(self, cache: ImageCache, sources: Sequence[ImageSource], augmentation: ImageAugmentation) -> None:
        rows = [[-1 if file is None else cache.row(file) for file in source.files] for source in sources]
        self.cache, self.augmentation = cache, augmentation
        self._rows = np.array(rows, dtype=np.int64)  # of an image's files, in order; -1: black
        self._masks: KeptMasks | None = None

    def image(self, index: int, read: Callable[[int], np.ndarray]) -> np.ndarray | Resized:
        """Return an image; where its files do not fit each other, let `read` tell which."""
        size = self.augmentation.first_size
        kept = [None if row < 0 else self.cache.image(row, size) for row in self._rows[index].tolist()]
        if len(kept) == 1 and kept[0] is not None:
            return kept[0]
        pieces = [one.pixels if isinstance(one, Resized) else one for one in kept]
        shapes = {one.shape[:2] for one in kept if one is not None}
        if len(shapes) > 1 or len({piece.dtype for piece in pieces if piece is not None}) > 1:
            read(index)
        whole = joined(pieces)
        return Resized(whole, *shapes.pop()) if any(isinstance(one, Resized) for one in kept) else whole

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of an image's files."""
        return self.cache.size(max(self._rows[index].tolist()))

    def keep_masks(self, num_classes: int, target: Callable[[int], Target]) -> None:
        """Keep masks from now on, as large as the images are here, where there is room beside these."""
        first = self.augmentation.first_size
        whole = [self.size(index) for index in range(len(self._rows))]
        sizes = [first.of(*size) for size in whole] if first is not None and first in self.cache.sizes else whole
        self._masks = room_for_masks(self.cache.path, sizes, num_classes, target(0))

    def target(self, index: int, image: np.ndarray | Resized, read: Callable[[], Target]) -> Target:
        """Return what is kept of an image's answer, as large as the image is here, or else what `read` does."""
        if self._masks is None:
            return read()
        made_first = self.augmentation.masks_made_first if isinstance(image, Resized) else None
        return self._masks.target(index, read, made_first)
