"""oof.npz and test.npz: predictions of many images in one file that is written and read as a stream. No torch.

The file is a plain `numpy.load`-able npz: `image_ids` (n,), `sizes` (n, 2) original height and width, `classes`, and
for every key of a prediction its values joined along the first axis with `<key>_starts` (n + 1,): those of image i
are `values[starts[i]:starts[i + 1]]`. Where images differ in the other axes (masks at full resolution), values are
flat, and `<key>_shapes` (n, axes) says how they are to be laid out.
"""

import math
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.lib import format as npy_format

from competition.config.settings import Config
from competition.support.atomic_files import MACHINE, delete_abandoned, explaining_unwritable, replacing
from competition.support.errors import CompetitionError
from competition.support.freshness import compare_checksums
from competition.tasks.contract import Prediction

SMALL = ("image_ids", "sizes", "classes", "views", "precision")  # members that are read whole
TOLERANCE = 0.05  # of probabilities; half precision and another GPU take up to half of it, a wrong network far more
PART_BYTES = 1 << 28
SPOOL = ".predictions."  # a folder of parts, with machine and process in its name
# What a stored array must be like for an image to be found in it: kind of its values, number of axes.
LIKE = {"image_ids": ("U", 1), "classes": ("U", 1), "views": ("U", 1), "precision": ("U", 1), "sizes": ("i", 2)}


class PredictionWriter:
    """Collects predictions image by image on disk; memory does not grow with their number.

    Use it as a context manager and `add` images in any order; `finish` puts them in the order asked for.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spool: Path | None = None
        self._files: dict[str, IO[bytes]] = {}  # the part that each key is written to
        self._parts: dict[str, list[Path]] = {}
        self._kinds: dict[str, tuple[np.dtype, int]] = {}
        self._shapes: dict[str, list[tuple[int, ...]]] = {}
        self.image_ids: list[str] = []
        self.sizes: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            with suppress(OSError):  # on a full disk: what it could not write is told already
                file.close()
        if self._spool is not None:
            shutil.rmtree(self._spool, ignore_errors=True)

    def add(self, image_id: str, height: int, width: int, prediction: Prediction) -> None:
        """Append one image's arrays; every image must have the same keys, types and numbers of axes."""
        self.image_ids.append(image_id)
        self.sizes.append((height, width))
        for key, values in prediction.items():
            kind = (values.dtype, values.ndim)
            if key not in self._files:
                self._kinds[key], self._shapes[key], self._parts[key] = kind, [], []
            assert self._kinds[key] == kind, f"{key}: {kind} after {self._kinds[key]}"
            if key not in self._files or self._files[key].tell() >= PART_BYTES:
                self._start_part(key)
            with explaining_unwritable(self._parts[key][-1]):
                self._files[key].write(np.ascontiguousarray(values).data)
            self._shapes[key].append(values.shape)

    def _start_part(self, key: str) -> None:
        # Not before there is something to write: by then the processes have met, and the first one has tidied up.
        if self._spool is None:
            with explaining_unwritable(self._folder, parts=self._folder.parents):
                self._folder.mkdir(parents=True, exist_ok=True)
            delete_abandoned(self._folder, SPOOL)
            with explaining_unwritable(self._folder, parts=[self._folder / SPOOL]):
                prefix = f"{SPOOL}{MACHINE}.{os.getpid()}."
                self._spool = Path(tempfile.mkdtemp(prefix=prefix, dir=self._folder))
        part = self._spool / f"{key.replace('/', '.')}.{len(self._parts[key])}"
        self._parts[key].append(part)
        with explaining_unwritable(part):
            if key in self._files:
                self._files[key].close()
            self._files[key] = part.open("wb")

    def finish(self, path: Path, classes: Iterable[str], views: Sequence[str] = (), precision: str = "") -> None:
        """Write everything to `path` in the order it was added.

        `views` are those it was predicted in beside the plain one, `precision` is what that was computed in.
        """
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
            small = {
                "image_ids": np.array(self.image_ids, dtype=str),
                "sizes": np.array(self.sizes, dtype=np.int64).reshape(-1, 2),
                "classes": np.array(list(classes), dtype=str),
                "views": np.array(list(views), dtype=str),
                "precision": np.array([precision], dtype=str),
            }
            for key, shapes in self._shapes.items():
                lengths = [shape[0] if self._is_even(key) else math.prod(shape) for shape in shapes]
                small[f"{key}_starts"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
                if not self._is_even(key):
                    small[f"{key}_shapes"] = np.array(shapes, dtype=np.int64)
            for key, values in small.items():
                with archive.open(f"{key}.npy", "w") as member:
                    npy_format.write_array(member, values, allow_pickle=False)
            for key in self._files:
                self._move(key, archive)

    def _is_even(self, key: str) -> bool:
        """Return whether all images have the same shape but for the first axis."""
        return len({shape[1:] for shape in self._shapes[key]}) == 1

    def _move(self, key: str, archive: zipfile.ZipFile) -> None:
        """Copy a key's values part by part, each deleted at once: the disk holds all of it once, and a part twice."""
        with explaining_unwritable(self._parts[key][-1]):
            self._files[key].close()
        shapes = self._shapes[key]
        joined = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        header = {
            "descr": npy_format.dtype_to_descr(self._kinds[key][0]),
            "fortran_order": False,
            "shape": joined if self._is_even(key) else (sum(map(math.prod, shapes)),),
        }
        with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
            npy_format.write_array_header_2_0(member, header)
            for part in self._parts[key]:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, member, 1 << 20)
                part.unlink()


class Predictions:
    """A stored file of predictions, read image by image from disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_compared = False
        if not path.is_file():
            raise CompetitionError(
                f"{path}: no such file of predictions; make it with `competition train` or `predict`"
            )
        try:
            refuse_packed(path)
            with np.load(path, allow_pickle=False) as archive:
                small = [key for key in archive.files if key in SMALL or key.endswith(("_starts", "_shapes"))]
                arrays = {key: archive[key] for key in small}
                self._values = {key: _map_member(path, key) for key in archive.files if key not in small}
            for key, values in arrays.items():
                kind, axes = LIKE.get(key, ("i", 1 if key.endswith("_starts") else 2))
                if values.dtype.kind != kind or values.ndim != axes:
                    raise ValueError(f"{key} are {values.dtype} of shape {values.shape}")
            self.image_ids: list[str] = arrays["image_ids"].tolist()
            self.sizes: list[tuple[int, int]] = [(int(h), int(w)) for h, w in arrays["sizes"]]
            self.classes: tuple[str, ...] = tuple(arrays["classes"].tolist())
            self.views: list[str] = arrays["views"].tolist() if "views" in arrays else []
            self.precision: str = str(arrays["precision"][0]) if "precision" in arrays else ""
            self._starts = {key: arrays[f"{key}_starts"] for key in self._values}
            self._shapes = {key: arrays[f"{key}_shapes"] for key in self._values if f"{key}_shapes" in arrays}
            self._refuse_misfits(key.removesuffix("_starts") for key in arrays if key.endswith("_starts"))
        except Exception as error:  # zip, npy and their headers each have errors of their own
            raise _damaged(path, error) from None

    def _refuse_misfits(self, told_apart: Iterable[str]) -> None:
        """Raise ValueError where the arrays, some of them `told_apart` by image, are not of the same images."""
        number = len(self.image_ids)
        if told := [key for key in told_apart if key not in self._values]:
            raise ValueError(f"there are no {told[0]}")
        if len(self.sizes) != number or len(set(self.image_ids)) != number:
            raise ValueError(f"{len(self.sizes)} sizes of {number} images, {len(set(self.image_ids))} of them distinct")
        for key, values in self._values.items():
            starts = self._starts[key]
            if len(starts) != number + 1 or starts[0] != 0 or starts[-1] != len(values) or (np.diff(starts) < 0).any():
                raise ValueError(f"the {len(values)} {key} cannot be told apart by image")
            shapes = self._shapes.get(key)
            if shapes is not None and (
                len(shapes) != number or (shapes < 0).any() or (shapes.prod(axis=1) != np.diff(starts)).any()
            ):
                raise ValueError(f"{key} are not of the shapes that stand with them")

    def __len__(self) -> int:
        return len(self.image_ids)

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        """Let a process that reads images open the file itself, instead of being sent all that is in it."""
        return type(self), (self.path,)

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each image is, by its id."""
        return {image_id: index for index, image_id in enumerate(self.image_ids)}

    def is_as_asked(self, config: Config) -> bool:
        """Return whether it was predicted in the views and the precision of a config; a file that does not know its
        precision has that of training."""
        is_of_training = not self.precision and config.inference.precision is None
        return self.views == config.tta and (is_of_training or self.precision == config.prediction_precision)

    def is_like(self, other: "Predictions") -> bool:
        """Return whether both were predicted in the same way, as far as the files know."""
        return self.views == other.views and (
            "" in (self.precision, other.precision) or self.precision == other.precision
        )

    def how(self) -> str:
        """Say in which views and precision it was predicted."""
        return how_predicted(self.views, self.precision)

    def __getitem__(self, index: int) -> Prediction:
        """Read the prediction of one image; raise CompetitionError where the file was changed since it was written."""
        if not self._is_compared:
            status = self.path.stat()
            _refuse_changed(self.path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
            self._is_compared = True
        read = {
            key: np.array(values[self._starts[key][index] : self._starts[key][index + 1]])
            for key, values in self._values.items()
        }
        return read | {key: read[key].reshape(shapes[index]) for key, shapes in self._shapes.items()}

    def __iter__(self) -> Iterator[tuple[str, tuple[int, int], Prediction]]:
        """Yield image id, (height, width) and prediction."""
        for index, (image_id, size) in enumerate(zip(self.image_ids, self.sizes, strict=True)):
            yield image_id, size, self[index]


def open_alike(paths: Sequence[Path]) -> list[Predictions]:
    """Open files whose predictions are averaged one by one, as those of a fold's seeds; raise CompetitionError where
    they are not of the same images and classes in the same order."""
    first, *others = files = [Predictions(path) for path in paths]
    for other in others:
        if other.image_ids != first.image_ids:
            raise CompetitionError(f"{other.path}: holds other images than {first.path}; train this fold again")
        if other.classes != first.classes:
            raise CompetitionError(
                f"{other.path}: has classes {', '.join(other.classes)}; {first.path} has {', '.join(first.classes)}; "
                "train this fold again with data.classes in one order"
            )
    return files


def how_predicted(views: Sequence[str], precision: str = "") -> str:
    """Say views, the plain one among them, and a precision that is known."""
    return ", ".join(["plain", *views]) + (f" in precision {precision}" if precision else "")


def _damaged(path: Path, error: object) -> CompetitionError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return CompetitionError(f"{path}: damaged ({reason}); delete it and make it again{_how(path)}")


def _how(path: Path) -> str:
    verbs = {"test.npz": f"predict {path.parent.name}", "oof.npz": "run"}
    return f" with `competition {verbs[path.name]}`" if path.name in verbs else ""


def refuse_packed(path: Path) -> None:
    """Raise ValueError where a member of an archive is packed: a few bytes could become all there is of memory."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise ValueError(f"{member.filename} is packed or encrypted")


def _map_member(path: Path, key: str) -> np.ndarray:
    """Map an uncompressed npz member into memory; numpy itself would read it whole.

    Raises ValueError where its header is not of what lies there: pages of memory are no place to look for objects.
    """
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        info = archive.getinfo(f"{key}.npy")
        begin = _begin_of(file, info)
        file.seek(begin)
        version = npy_format.read_magic(file)
        read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or dtype.kind not in "biuf" or is_fortran or not shape or min(shape) < 0:
            raise ValueError(f"{key} are {dtype} of shape {shape}")
        if file.tell() - begin + size != info.file_size:
            raise ValueError(f"{key} of shape {shape} are {size} bytes; there are {info.file_size}")
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", offset=file.tell(), shape=shape)


def _begin_of(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Return where the bytes of a stored member begin."""
    file.seek(member.header_offset)
    # The local header is 30 bytes, then the name and an extra field whose lengths stand at its end.
    name_length, extra_length = struct.unpack("<26xHH", file.read(30))
    return member.header_offset + 30 + name_length + extra_length


@cache
def _refuse_changed(path: Path, version: tuple[int, ...]) -> None:
    """Compare the checksums of an archive's members, once a process and `version` of the file: a flipped bit in a
    prediction would be handed in without a word."""
    try:
        compare_checksums(path)
    except Exception as error:  # zip has many errors of its own
        raise _damaged(path, error) from None
