"""What does not change from epoch to epoch, once: decoded images in one file that folds, seeds and processes share.

Images are kept at their first size: that which the network sees, where nothing random comes before it, or with
`crop.shrink_first` what the crop needs, and beside it that which the network sees, as each image is validated in one
fold and trained on in others. Before any other crop or window they are kept as they are decoded: a part of a smaller
image is not, to the last bit, the same part made smaller. Masks: see kept_masks.py. No torch.
"""

import atexit
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import stat
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from filelock import FileLock, Timeout

from competition.config.data_settings import Data
from competition.data.augmentation import FirstSize, ImageAugmentation, Resized
from competition.files.item_source import ImageFile
from competition.support.atomic_files import delete_leftovers, explaining_unwritable, replacing
from competition.support.errors import CompetitionError
from competition.support.machine import cores_here, memory_here
from competition.support.paths import PACKAGE, here
from competition.support.progress import progress

FOLDER = "cache"  # in data.dir; it can be deleted at any time
SHARED_MEMORY = Path("/dev/shm")
KEPT_FREE = 1 << 28  # bytes, for what else is written there, as batches on their way
END = struct.Struct("<8sq")  # the last bytes of a whole file: MAGIC, and how many images it holds
MAGIC = b"images 1"
ALIGNED = 64  # bytes
COLUMNS = 6  # of the index, int64: offset, height, width and bytes a value of what is kept; height, width of the file
# Code that decides what is kept, and what it imports of this project: readers of further formats come to files/.
DECIDES_PIXELS = ("files/**/*.py", "data/augmentation.py", "data/cache.py", "data/dataset.py")
LIBRARIES = (  # some may not be there
    *("pillow", "tifffile", "imagecodecs", "h5py", "albumentations", "numpy"),
    *("pydicom", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "python-gdcm"),
)

Read = Callable[[ImageFile], np.ndarray]
ReadSize = Callable[[ImageFile], tuple[int, int]]


class ImageCache:
    """A file of images, by the files that they were; every process maps the same pages of it."""

    def __init__(
        self, path: Path, files: Sequence[ImageFile], channels: int, sizes: Sequence[FirstSize | None]
    ) -> None:
        """Open a file, which has each image in all `sizes`; raise ValueError where it is not whole."""
        self.path = path
        self.sizes = tuple(sizes)
        self._channels = channels
        self._row = {file: row for row, file in enumerate(files)}
        self._open()

    def _open(self) -> None:
        with self.path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        number, size = len(self._row) * len(self.sizes), len(self._bytes)
        start = size - END.size - number * COLUMNS * 8
        if start < 0 or END.unpack_from(self._bytes, size - END.size) != (MAGIC, number):
            raise ValueError(f"{self.path} is not whole")
        self._index = np.frombuffer(self._bytes, np.int64, number * COLUMNS, start).reshape(number, COLUMNS)

    def row(self, file: ImageFile) -> int:
        """Return the number of an image here, by which it is asked for."""
        return self._row[file]

    def size(self, row: int) -> tuple[int, int]:
        """Return height and width of an image as its file has it."""
        height, width = self._index[row * len(self.sizes), 4:].tolist()
        return height, width

    def image(self, row: int, first_size: FirstSize | None) -> np.ndarray | Resized:
        """Return an image, which cannot be written to: (H, W, channels) as its file has it, or Resized."""
        place = self.sizes.index(first_size if first_size in self.sizes else None)
        offset, height, width, value_bytes = self._index[row * len(self.sizes) + place, :4].tolist()
        kind = np.uint8 if value_bytes == 1 else np.float32
        values = np.frombuffer(self._bytes, kind, height * width * self._channels, offset)
        pixels = values.reshape(height, width, self._channels)
        return pixels if self.sizes[place] is None else Resized(pixels, *self.size(row))

    def __getstate__(self) -> dict[str, object]:
        """Leave out what is mapped: a process that is no fork maps it anew."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_bytes", "_index")}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Map the file."""
        self.__dict__.update(state)
        self._open()


def open_cache(data: Data, files: Iterable[ImageFile], read: Read, read_size: ReadSize) -> ImageCache:
    """Return the images of `files`, from `data.cache`; made first where no process has made it before.

    `read` and `read_size` read a file, and raise CompetitionError where it cannot be. So does this where there is no
    room.
    """
    paths = sorted(set(files))
    name = f"{_key(data, paths, read)}.images"
    folders = _folders(data)
    for folder in folders:
        if cache := _found(folder / name, data, paths):
            return cache
    needed = _bytes_needed(data, paths, read, read_size)
    for folder in folders:
        path, way_on = folder / name, f"delete {folder}, or leave data.cache out"
        with explaining_unwritable(path, way_on, (folder, folder / ".lock")), _making_alone(folder):
            if cache := _found(path, data, paths):  # made while this process waited
                return cache
            if free_bytes(folder) < needed + KEPT_FREE:  # a container has 64 MB of shared memory, or others wrote to it
                continue
            print(f"data.cache: {_in_words(len(paths), needed)}: written once, to {path}", flush=True)
            _write(path, progress(_kept_images(data, paths, read), "cache", len(paths)))
            cache = _found(path, data, paths)
            assert cache is not None
            return cache
    raise _no_room(folders[-1], needed, len(paths))


def _found(path: Path, data: Data, files: Sequence[ImageFile]) -> ImageCache | None:
    """Return a file that is there and whole."""
    try:
        return ImageCache(path, files, data.file_channels, [one.first_size for one in _kept_for(data)])
    except (OSError, ValueError):
        return None


def _kept_for(data: Data) -> list[ImageAugmentation]:
    """Return for what images are kept: training and, where that has images of a first size, validation of another."""
    train, validate = (ImageAugmentation(data, train=is_train) for is_train in (True, False))
    return [train] if train.first_size in (None, validate.first_size) else [train, validate]


def _key(data: Data, files: Sequence[ImageFile], read: Read) -> str:
    """Return a name that changes with the files and with whatever decides what becomes of them."""
    sizes = [one.first_size for one in _kept_for(data)]
    read_by = [data.file_channels, data.max_pixels, data.windows, data.exif_orientation]
    settings = [*read_by, sizes, cv2.__version__, *map(_version, LIBRARIES)]
    known = hashlib.sha256(json.dumps(settings).encode())
    for pattern in DECIDES_PIXELS:
        for path in sorted(PACKAGE.glob(pattern)):
            known.update(path.read_bytes())
    for file in files:
        try:
            status = file.path.stat()
        except (OSError, ValueError):
            read(file)  # tells what is wrong with it
            raise
        # The second time, too: archives and rsync give another file the first one of the one before it.
        state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        name = f"{os.path.realpath(file.path)}\0{file.part}\0{file.seen or ''}"
        known.update(f"{name}\0{state}\0".encode(errors="surrogateescape"))
    return known.hexdigest()[:24]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _bytes_needed(data: Data, files: Sequence[ImageFile], read: Read, read_size: ReadSize) -> int:
    """Return how large the file will be, if all images are of the first one's type."""
    a_pixel = data.file_channels * read(files[0]).itemsize
    sizes = [one.first_size for one in _kept_for(data)]
    if (same := sizes[0]) is not None and same.enlarges:
        return len(files) * same.height * same.width * a_pixel
    with ThreadPoolExecutor(cores_here()) as pool:
        each = [size if one is None else one.of(*size) for size in pool.map(read_size, files) for one in sizes]
    return sum(height * width * a_pixel for height, width in each)


Kept = tuple[np.ndarray, tuple[int, int]]  # pixels, and height and width of the file


def _kept_images(data: Data, files: Sequence[ImageFile], read: Read) -> Iterator[list[Kept]]:
    """Yield of each file, in order, what is kept; few images are in memory."""
    kept_for = _kept_for(data)

    def kept(file: ImageFile) -> list[Kept]:
        image = read(file)
        return [(one.made_first(image), (image.shape[0], image.shape[1])) for one in kept_for]

    waiting: deque[Future[list[Kept]]] = deque()
    with ThreadPoolExecutor(cores_here()) as pool:
        for file in files:
            waiting.append(pool.submit(kept, file))
            if len(waiting) > 2 * cores_here():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _write(path: Path, images: Iterable[list[Kept]]) -> None:
    """Write a file whole, or not at all."""
    rows = []
    way_on = f"make room in {path.parent}, or leave data.cache out"
    with replacing(path, way_on) as temporary, temporary.open("wb") as file:
        for pixels, size in chain.from_iterable(images):
            rows.append((file.tell(), *pixels.shape[:2], pixels.itemsize, *size))
            file.write(np.ascontiguousarray(pixels).data)
            file.write(bytes(-file.tell() % ALIGNED))
        file.write(np.array(rows, dtype=np.int64).data)
        file.write(END.pack(MAGIC, len(rows)))


@contextmanager
def _making_alone(folder: Path) -> Generator[None]:
    """Wait until no other process makes such a file; the system lets go of a lock whose process was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"data.cache: waiting for another process that writes to {folder}", flush=True)
        lock.acquire()
    try:
        delete_leftovers(folder, [".*.tmp"])
        yield
    finally:
        lock.release()


# -- where it is


def _folders(data: Data) -> list[Path]:
    """Return where the file may be, the first choice first."""
    on_disk = data.dir / FOLDER
    # What is in a notebook's working folder is kept as its output; its inputs cannot be written to.
    if here().kaggle is not None or not os.access(data.dir, os.W_OK):
        on_disk = _of_this_user(Path(tempfile.gettempdir()) / f"competition-{os.getuid()}")
    shared = hold_shared_memory() if data.cache == "memory" else None
    return [on_disk] if shared is None else [shared, on_disk]


def _of_this_user(folder: Path) -> Path:
    """Make a folder where anybody can make one; raise CompetitionError where somebody else did, by its known name."""
    with explaining_unwritable(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_own(folder):
        raise CompetitionError(
            f"data.cache: {folder}: is not this user's, so that others could put images there; set TMPDIR to a folder "
            "of yours, or leave data.cache out"
        )
    return folder


def _is_own(folder: Path) -> bool:
    """Return whether a folder is this user's; a link may lead anywhere."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _no_room(folder: Path, needed: int, number: int) -> CompetitionError:
    old = sum(path.stat().st_size for path in folder.glob("*.images"))
    way_on = f"delete {folder}, {in_bytes(old)} of other settings" if old else "make room there"
    return CompetitionError(
        f"data.cache: {_in_words(number, needed)}; {folder} has {in_bytes(free_bytes(folder))} free, of which "
        f"{in_bytes(KEPT_FREE)} are left to others; {way_on}, or leave data.cache out"
    )


def free_bytes(folder: Path) -> int:
    """Return the bytes that can be written to a folder; shared memory is no more than the machine has left."""
    free = shutil.disk_usage(folder).free
    if not folder.is_relative_to(SHARED_MEMORY):
        return free
    return min(free, memory_here())


def _in_words(number: int, needed: int) -> str:
    return f"{number} images take {in_bytes(needed)} decoded"


def in_bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


# -- shared memory, which nobody gives back but who took it

_HELD: dict[Path, IO[str]] = {}  # by folder, its lock, open for as long as this process lives


def hold_shared_memory() -> Path | None:
    """Return this user's folder in shared memory, and keep it until this process and all that hold it have ended.

    The last one deletes it; what killed processes left, the next one. There is none where a system has no such memory.
    """
    folder = SHARED_MEMORY / f"competition-{os.getuid()}"
    if folder not in _HELD:
        try:
            users = folder.with_suffix(".lock").open("a")
            if os.fstat(users.fileno()).st_uid != os.getuid():  # anybody can write there
                return None
        except OSError:
            return None
        _HELD[folder] = users
        _delete_if_alone(folder)
        fcntl.flock(users, fcntl.LOCK_SH)
        atexit.register(_let_go, folder, os.getpid())
    with suppress(OSError):  # a file or a link that leads nowhere, of somebody else's
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder if _is_own(folder) else None


def _delete_if_alone(folder: Path) -> None:
    with suppress(OSError):  # another process holds it, too
        fcntl.flock(_HELD[folder], fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _let_go(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not a fork of it
        _delete_if_alone(folder)
        _HELD.pop(folder).close()
