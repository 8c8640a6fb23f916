"""Masks of a training, as large as its images are in the cache, a bit a pixel, kept as they come. No torch.

They are this training's own, in a file without a name that ends with its processes: what masks are made of (run
lengths, files, polygons, classes) is not known by a name, as images are by their files, and none can be out of date.
"""

import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from competition.data.cache import KEPT_FREE, free_bytes, in_bytes
from competition.tasks.contract import Target

KEPT = {"mask", "ignored"}
OF_NO_USE = {"objects", "volume", "slice"}  # to samples: what else masks come with
HEAD = struct.Struct("<IH")  # of a mask: checksum of its bits, and how many layers it has; zeros: it has not come yet


class KeptMasks:
    """`mask`, and `ignored` behind its classes, of images by their row; processes that are no forks have none."""

    def __init__(self, folder: Path, sizes: Sequence[tuple[int, int]], num_classes: int, layers: int) -> None:
        """Take room for so many layers of images of `sizes` (height, width); raise OSError where there is none."""
        self._sizes, self._num_classes, self._layers = sizes, num_classes, layers
        ends = np.cumsum(each := _bytes_of_masks(sizes, layers))
        self._starts = ends - each
        with tempfile.TemporaryFile(dir=folder) as file:
            # Else writing to what is mapped would end the process where the disk is full.
            os.posix_fallocate(file.fileno(), 0, int(ends[-1]))
            self._bytes = mmap.mmap(file.fileno(), int(ends[-1]))

    def target(
        self, row: int, read: Callable[[], Target], made_first: Callable[[np.ndarray], np.ndarray] | None
    ) -> Target:
        """Return the masks of an image; where they are not here yet, they are read, made of their first size (H, W,
        layers), if images have one, and kept."""
        layers = self._found(row)
        if layers is None:
            target = read()
            ignored = [target["ignored"][:, :, None]] if "ignored" in target else []
            layers = np.concatenate([target["mask"], *ignored], axis=2) if ignored else target["mask"]
            layers = layers if made_first is None else made_first(layers)
            self._keep(row, layers)
        mask, ignored = np.split(layers, [self._num_classes], axis=2)
        return {"mask": mask, "ignored": ignored[:, :, 0]} if ignored.size else {"mask": mask}

    def _found(self, row: int) -> np.ndarray | None:
        start = int(self._starts[row])
        checksum, layers = HEAD.unpack_from(self._bytes, start)
        if not layers:
            return None
        shape = (*self._sizes[row], layers)
        bits = self._bytes[start + HEAD.size : start + HEAD.size + _bytes_of(*shape)]
        # Another process may be in the middle of writing it, or was when it was killed.
        if zlib.crc32(bits) != checksum:
            return None
        return np.unpackbits(np.frombuffer(bits, np.uint8), count=shape[0] * shape[1] * layers).reshape(shape)

    def _keep(self, row: int, layers: np.ndarray) -> None:
        is_as_expected = layers.shape[:2] == tuple(self._sizes[row]) and layers.shape[2] <= self._layers
        if not is_as_expected or layers.max(initial=0) > 1:
            return
        bits, start = np.packbits(layers).tobytes(), int(self._starts[row])
        self._bytes[start + HEAD.size : start + HEAD.size + len(bits)] = bits
        HEAD.pack_into(self._bytes, start, zlib.crc32(bits), layers.shape[2])

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Come to a process that is no fork as None."""
        return type(None), ()


def room_for_masks(images: Path, sizes: Sequence[tuple[int, int]], num_classes: int, first: Target) -> KeptMasks | None:
    """Return room beside a file of `images` for their masks, of `sizes` and like the `first` one; none where they are
    no masks, or there is no room, which is said: of very many classes they would be larger than the images."""
    if "mask" not in first or not first.keys() <= KEPT | OF_NO_USE or not hasattr(os, "posix_fallocate"):
        return None
    layers = num_classes + ("ignored" in first)
    needed, folder = int(_bytes_of_masks(sizes, layers).sum()), images.parent
    amount = f"masks of {len(sizes)} images take {in_bytes(needed)}"
    with suppress(OSError):
        if needed <= min(free_bytes(folder) - KEPT_FREE, images.stat().st_size):
            kept = KeptMasks(folder, sizes, num_classes, layers)
            print(f"data.cache: {amount} while this training lasts", flush=True)
            return kept
    print(f"data.cache: {amount}, for which {folder} has no room: they are made anew each time", flush=True)
    return None


def _bytes_of(height: int, width: int, layers: int) -> int:
    return -(-height * width * layers // 8)


def _bytes_of_masks(sizes: Sequence[tuple[int, int]], layers: int) -> np.ndarray:
    """Return (n,) how many bytes masks of images of such sizes take."""
    return np.array([HEAD.size + _bytes_of(height, width, layers) for height, width in sizes], dtype=np.int64)
