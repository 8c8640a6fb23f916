"""One slice, or a range of slices, of a file that holds many: a tif of pages, an array of npy or npz, HDF5. No torch.

A part is written as numpy's indices, counted from 0: `12`, `12-1` where files count from 1, `:,:,4`, `20:45`; of npz
and HDF5 the name of an array comes first, as `volume,12`. No more of a file is read than that, but of a packed npz.
An array of HDF5 may be the bytes of an image's file. Of a zip the part is the name of a file in it.
"""

import io
import os
import re
import zipfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tifffile

from competition.files.images import NPY, NPY_HEADERS, TIF, UnfitError, decode, decoded, refuse_large
from competition.support.errors import CompetitionError

HDF5, ZIP = (".h5", ".hdf5"), ".zip"
FEW = 5  # names of arrays in a message
NUMBER = r"(\d+)(?:([+-])(\d+))?"
ITEM = re.compile(rf"(?P<from>{NUMBER})?(?P<colon>:)?(?P<to>{NUMBER})?")


class Range(NamedTuple):
    """Places along an axis; `end` is none for all to the last."""

    start: int
    end: int | None
    is_one: bool  # the axis is gone then, as numpy has it


class Part(NamedTuple):
    """What of a file is meant: the name of an array, if files have several, and places along its first axes."""

    name: str
    ranges: tuple[Range, ...]

    @classmethod
    def of(cls, text: str) -> "Part":
        """Read a part; raise UnfitError where it is none."""
        first, *rest = items = [item.strip() for item in text.split(",")]
        has_name = re.search(r"[^\d:+-]", first) is not None
        return cls(first if has_name else "", tuple(map(_range, rest if has_name else items)))


def _range(item: str) -> Range:
    found = ITEM.fullmatch(item)
    if found is None or not item or (found["to"] and not found["colon"]):
        raise UnfitError(f"[{item}] is no place in it; expected a number, as 12 or 12-1, or a range, as 20:45 or :")
    start, end = (None if found[key] is None else _sum(found[key]) for key in ("from", "to"))
    return Range(start or 0, end if found["colon"] else (start or 0) + 1, is_one=not found["colon"])


def _sum(text: str) -> int:
    found = re.fullmatch(NUMBER, text)
    assert found is not None
    return int(found[1]) + (int(found[3]) * (1 if found[2] == "+" else -1) if found[2] else 0)


def read_part(path: Path, part: str, max_pixels: int, *, upright: bool = False) -> np.ndarray:
    """Read (H, W) or (H, W, channels), a range of slices as channels; what a range lacks at an end is its last slice.
    A part that is an image's file is turned by its EXIF orientation if `upright`; slices have none.

    Raises CompetitionError where the file is missing or broken, or has no such part.
    """

    def read(file: BinaryIO) -> np.ndarray:
        if path.suffix.lower() == ZIP:
            return _of_archive(path, part, max_pixels, upright=upright)
        asked = Part.of(part)
        with _opened(path, file, asked.name) as (shape, load):
            if len(shape) == 0 or (len(shape) == 1 and not asked.ranges):
                return decode(io.BytesIO(np.asarray(load(())).tobytes()), "", max_pixels, upright=upright)
            return _selected(shape, load, asked.ranges, part, max_pixels)

    return decoded(path, read, "volume")


def number_of_slices(path: Path, part: str) -> int:
    """Return how many slices there are along the axis whose place a part names."""
    return _number_of_slices(path, part, path.stat().st_mtime_ns if path.is_file() else 0)


def _place(part: str) -> int:
    """Return which of the items of a part, its name aside, names one slice."""
    return next((number for number, one in enumerate(Part.of(part).ranges) if one.is_one), 0)


def slice_of(path: Path, part: str) -> int:
    """Return the slice that a part of a file names; raise CompetitionError where it is none."""
    try:
        return Part.of(part).ranges[_place(part)].start
    except UnfitError as error:
        raise CompetitionError(f"{path}: {error}") from None


def at_slice(part: str, number: int) -> str:
    """Return a part with another slice."""
    name, ranges = Part.of(part)
    items = [str(one.start) if one.is_one else f"{one.start}:{'' if one.end is None else one.end}" for one in ranges]
    items[_place(part)] = str(number)
    return ",".join([name, *items] if name else items)


@lru_cache(maxsize=4096)
def _number_of_slices(path: Path, part: str, changed: int) -> int:
    def read(file: BinaryIO) -> np.ndarray:
        with _opened(path, file, Part.of(part).name) as (shape, _):
            return np.array(shape)

    return int(decoded(path, read, "volume")[_place(part)])


Load = Callable[[tuple[slice, ...]], np.ndarray]  # of some places along the first axes


@contextmanager
def _opened(path: Path, file: BinaryIO, name: str) -> Generator[tuple[Sequence[int], Load]]:
    """Open a file's array; yield its shape and what reads a part of it."""
    suffix = path.suffix.lower()
    if name and suffix in (NPY, *TIF):
        raise UnfitError(f"has one array, no {name!r}; expected numbers alone, as [12]")
    if suffix == NPY:
        with NPY_HEADERS:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        yield array.shape, lambda places: array[places]
    elif suffix == ".npz":
        packed = _unpacked(path, name, path.stat().st_mtime_ns)
        yield packed.shape, lambda places: packed[places]
    elif suffix in HDF5:
        with _hdf5(path) as found:
            array = _named(lambda: _names(found), name, found)
            yield array.shape, lambda places: array[places]
    elif suffix in TIF:
        with tifffile.TiffFile(file) as tif:
            yield tif.series[0].shape, lambda places: _of_pages(tif, places)
    else:
        raise UnfitError(f"is no volume; a part can be that of {', '.join([NPY, '.npz', *HDF5, *TIF, ZIP])}")


@lru_cache(maxsize=2)  # it is unpacked whole, and read slice after slice by `data.cache`
def _unpacked(path: Path, name: str, changed: int) -> np.ndarray:
    with NPY_HEADERS, np.load(path, allow_pickle=False) as found:
        return _named(lambda: found.files, name, found)


def _hdf5(path: Path) -> Any:
    """Open a file for as long as one slice is read: what is open does not live on in a fork."""
    try:
        import h5py
    except ImportError:
        raise UnfitError("is HDF5, which h5py reads: uv sync --extra h5") from None
    return h5py.File(path, "r")


def _names(found: Any) -> list[str]:
    names: list[str] = []
    found.visititems(lambda name, one: names.append(name) if hasattr(one, "shape") else None)
    return names


def _named(list_names: Callable[[], list[str]], name: str, found: Any) -> Any:
    """Return an array by its name, which may be left out where there is one."""
    if name and name in found:
        return found[name]
    names = list_names()
    if not name and len(names) == 1:
        return found[names[0]]
    some = ", ".join([*names[:FEW], *(["..."] if len(names) > FEW else [])])
    raise UnfitError(
        f"holds the arrays {some}, none called {name!r}; expected the name of one first, as [{names[0]},12]"
    )


def _of_archive(path: Path, name: str, max_pixels: int, *, upright: bool) -> np.ndarray:
    archive = _archive(path, path.stat().st_mtime_ns, os.getpid())
    try:
        packed = archive.read(name)
    except KeyError:
        raise UnfitError(f"holds no file {name!r}, but {len(archive.namelist())} others") from None
    return decode(io.BytesIO(packed), Path(name).suffix.lower(), max_pixels, upright=upright)


@lru_cache(maxsize=4)
def _archive(path: Path, changed: int, process: int) -> zipfile.ZipFile:
    """Read what an archive holds, once in each process: a fork would move the place of the others in the file."""
    return zipfile.ZipFile(path)


def _of_pages(tif: tifffile.TiffFile, places: tuple[slice, ...]) -> np.ndarray:
    """Read pages of a tif alone where its first axis is that of pages."""
    series = tif.series[0]
    if len(series.pages) != series.shape[0] or not places:
        return series.asarray()[places]
    first = range(*places[0].indices(series.shape[0]))
    pages = tif.asarray(key=first, series=0)
    return pages.reshape(len(first), *series.shape[1:])[(slice(None), *places[1:])]


def _selected(shape: Sequence[int], load: Load, ranges: Sequence[Range], part: str, max_pixels: int) -> np.ndarray:
    if len(ranges) > len(shape):
        raise UnfitError(f"is of shape {tuple(shape)}, and [{part}] says more axes")
    wanted = [_places(one, size, part) for one, size in zip(ranges, shape, strict=False)]
    sides = sorted([*map(len, wanted), *shape[len(ranges) :]])[-2:]
    refuse_large(sides[0], sides[-1], max_pixels)
    pixels = np.asarray(load(tuple(slice(int(one.min()), int(one.max()) + 1) for one in wanted)))
    for axis, places in enumerate(wanted):
        if len(places) != pixels.shape[axis]:  # beyond an end
            pixels = np.take(pixels, places - places.min(), axis=axis)
    is_channels = [axis for axis, one in enumerate(ranges) if not one.is_one and (one.start, one.end) != (0, None)]
    pixels = np.moveaxis(pixels, is_channels[:1], [-1] * len(is_channels[:1]))
    gone = [axis - sum(other < axis for other in is_channels[:1]) for axis, one in enumerate(ranges) if one.is_one]
    return np.ascontiguousarray(pixels.squeeze(tuple(gone)))


def _places(asked: Range, size: int, part: str) -> np.ndarray:
    """Return the places along an axis; beyond an end of it those of a range are its last ones."""
    if not asked.is_one:
        places = np.arange(asked.start, size if asked.end is None else asked.end)
        if not len(places):
            raise UnfitError(f"[{part}] is empty; it has {size} slices")
        return places.clip(0, size - 1)
    if not 0 <= asked.start < size:
        raise UnfitError(f"has {size} slices, none that is number {asked.start} of [{part}]; they are counted from 0")
    return np.array([asked.start])
