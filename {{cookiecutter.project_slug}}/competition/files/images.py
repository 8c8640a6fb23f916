"""Reading an image file of any format competitions hand out into an array (height, width, channels)."""

import io
import logging
import math
import stat
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import cv2
import numpy as np
import tifffile
from PIL import Image

from competition.config.data_settings import MAX_PIXELS
from competition.files.image_folder import suffix_of
from competition.files.image_formats import dicom
from competition.files.image_formats.orientation import (
    AS_STORED,
    orientation_of,
    orientation_of_tif,
    size_upright,
    turned_upright,
    without_orientation,
)
from competition.files.image_formats.whole_files import JPEG_START, PNG_START, is_whole
from competition.support.errors import CompetitionError

# What is wrong with a file is said once, by us; how large one may be, too.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module="PIL")
Image.MAX_IMAGE_PIXELS = None
cv2.setNumThreads(0)  # the data loader's workers are the parallelism; threads in each would fight over the cores

TIF, NPY = (".tif", ".tiff"), ".npy"
MOST_BYTES_A_PIXEL = 16  # of a file that is no array: four channels of 16 bits, and more than that
MOST_BYTES_BESIDE = 1 << 26  # such as thumbnails, and what a program wrote behind the image
PHOTOMETRIC = tifffile.PHOTOMETRIC
PLANARCONFIG = tifffile.PLANARCONFIG
# The head of an array is Python, which numpy has parsed: up to Python 3.11.7 two threads must not do so at once, or one
# gets a SystemError (python/cpython#106905), and a whole file is called damaged.
NPY_HEADERS = threading.Lock()


class UnfitError(Exception):
    """A whole file that cannot be taken as it is; its text says why, after the file's name."""


def read_image(
    path: Path, channels: int, max_pixels: int = MAX_PIXELS, *, windows: dicom.Windows = (), upright: bool = False
) -> np.ndarray:
    """Read an image as (height, width, channels), uint8 or float32.

    An array whose first side is `channels`, and the last is not, has its channels first.
    8 bit stays uint8; 16 bit becomes float32 from 0 to 1; floats (npy, tif) stay as they are. Grey is repeated to
    three channels, colour is turned grey for one, an alpha channel is dropped. The orientation noted in a photo's
    EXIF data is applied if `upright`, else not: masks and boxes of competitions are mostly drawn on the stored pixels.
    Of a DICOM file each of `windows` makes a channel.

    Raises CompetitionError if the file is missing, truncated, no image, larger than `max_pixels`, or has another number
    of channels or values that are no numbers.
    """
    return as_image(_read_channels(path, max_pixels, windows, upright=upright), channels, path)


def _read_channels(path: Path, max_pixels: int, windows: dicom.Windows = (), *, upright: bool = False) -> np.ndarray:
    """Read an image as (H, W, C), or an array with its channels first as it is."""
    suffix = path.suffix.lower()
    if windows and suffix not in dicom.SUFFIXES and path.is_file():
        raise no_dicom(path)
    read = decoded(path, lambda file: decode(file, suffix, max_pixels, windows, upright=upright), "image")
    return _with_channels(read, path)


def no_dicom(path: Path) -> CompetitionError:
    """Return what is said of a file of another format where `data.dicom_window` is set."""
    return CompetitionError(f"{path}: is no DICOM file, which data.dicom_window is for; leave it out")


def as_image(pixels: np.ndarray, channels: int, path: Path) -> np.ndarray:
    """Return (height, width) or (height, width, channels) that a file has as `read_image` does; errors as of it."""
    return as_network_sees(_match_channels(_with_channels(pixels, path), channels, path), str(path))


def _with_channels(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise CompetitionError(f"{path}: expected height x width x channels, found shape {pixels.shape}")
    return pixels


def count_channels(path: Path, max_pixels: int = MAX_PIXELS) -> int:
    """Return how many channels a file seems to have: of an array the shortest side, if that is the first or last."""
    shape = _read_channels(path, max_pixels).shape
    return min(shape[0], shape[2]) if path.suffix.lower() == NPY else shape[2]


def as_network_sees(pixels: np.ndarray, name: str) -> np.ndarray:
    """Return pixels as uint8, or as float32: 16 bit from 0 to 1, floats as they are; refuse other types."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return pixels.astype(np.float32) / 65535
    if pixels.dtype.kind not in "fiub":
        raise CompetitionError(f"{name}: found pixels of type {pixels.dtype}; expected uint8, uint16 or floats")
    with np.errstate(over="ignore"):  # it is told below
        pixels = pixels.astype(np.float32)
    if not (is_number := np.isfinite(pixels)).all():
        wrong = pixels.size - np.count_nonzero(is_number)
        raise CompetitionError(
            f"{name}: {wrong} of {pixels.size} values are no numbers (NaN or infinite), nor is what a network "
            f"makes of them; write numbers in their place, as numpy.nan_to_num does"
        )
    return pixels


def read_image_size(
    path: Path, channels: int, max_pixels: int = MAX_PIXELS, *, upright: bool = False
) -> tuple[int, int]:
    """Return height and width of an image, from its header where Pillow knows the format; errors as of `read_image`."""
    if path.suffix.lower() not in (NPY, *TIF) and path.is_file():
        try:
            with Image.open(path) as image:
                return size_upright(image.height, image.width, orientation_of(image) if upright else AS_STORED)
        except Exception:  # what is wrong with it is said where it is read
            pass
    height, width, _ = read_image(path, channels, max_pixels, upright=upright).shape
    return height, width


def decoded(path: Path, decode: Callable[[BinaryIO], np.ndarray], what: str) -> np.ndarray:
    """Return what `decode` makes of a file; raise CompetitionError in one line where it is no such image or mask."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device may never end
            raise CompetitionError(f"{path}: cannot be read (it is no file, but a folder, a pipe or a device)")
        file = path.open("rb")
    except FileNotFoundError:
        suffix = suffix_of(path)
        hint = f"; {path.name}{suffix} is there: set data.image_file to '{{image_id}}{suffix}'" if suffix else ""
        raise CompetitionError(f"{path}: no such image file{hint}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in its name
        name, reason = str(path).replace("\0", "\\0"), getattr(error, "strerror", None) or error
        raise CompetitionError(f"{name}: cannot be read ({reason})") from None
    with file:
        size = path.stat().st_size
        try:
            return decode(file)
        except UnfitError as error:
            raise CompetitionError(f"{path}: {error}") from None
        except Exception as error:  # each decoder has errors of its own; all of them mean the file is no good
            reason = " ".join(str(error).split())[:100]
            raise CompetitionError(f"{path}: truncated or no {what} ({size} bytes; {reason})") from None


def refuse_large(height: int, width: int, max_pixels: int) -> None:
    """Raise UnfitError for an image of more pixels than `data.max_pixels`."""
    if height * width > max_pixels:
        raise UnfitError(
            f"has {height} x {width} pixels, more than data.max_pixels {max_pixels}; set data.max_pixels to "
            f"{height * width} where there is the memory"
        )


def decode(
    file: BinaryIO, suffix: str, max_pixels: int, windows: dicom.Windows = (), *, upright: bool = False
) -> np.ndarray:
    """Decode what a file with such an ending has to (H, W) or (H, W, C) in RGB order; errors are of any kind."""
    if suffix in dicom.SUFFIXES:
        return _dicom(file, windows, max_pixels)
    if suffix == NPY:
        return read_npy(file, max_pixels)
    if suffix in TIF:
        pixels = _channels_last(read_tif(file, max_pixels))
        return turned_upright(pixels, _orientation_of_tif(file)) if upright else pixels
    try:
        height, width, mode, orientation = _pillow_header(file, upright=upright)
    except Exception:  # OpenCV may know more of it
        height, width, mode, orientation = 0, 0, "", AS_STORED
    refuse_large(height, width, max_pixels)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    data = file.read(min(size, height * width * MOST_BYTES_A_PIXEL + MOST_BYTES_BESIDE))
    return turned_upright(_by_pillow_or_opencv(data, mode), orientation)


def _by_pillow_or_opencv(data: bytes, mode: str) -> np.ndarray:
    if not data.startswith((PNG_START, JPEG_START)):
        return np.asarray(_pillow(io.BytesIO(data)))
    if not is_whole(data):
        raise ValueError("it ends in its middle")
    return _opencv(data, is_rgb=mode == "RGB" and data.startswith(JPEG_START))


def _orientation_of_tif(file: BinaryIO) -> int:
    file.seek(0)
    with tifffile.TiffFile(file) as tif:
        return orientation_of_tif(tif)


def _opencv(data: bytes, *, is_rgb: bool) -> np.ndarray:
    """Decode png or jpeg; what `is_rgb` of 8 bit is decoded so at once, as turning the channels later is a copy."""
    as_rgb = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), as_rgb if is_rgb else cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("it cannot be decoded")
    if not is_rgb and pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    return pixels


def _dicom(file: BinaryIO, windows: dicom.Windows, max_pixels: int) -> np.ndarray:
    try:
        refuse_large(*dicom.read_size(file), max_pixels)
        file.seek(0)
        return dicom.read_dicom(file, windows)
    except dicom.NoReaderError as error:
        raise UnfitError(str(error)) from None


def _pillow_header(file: BinaryIO, *, upright: bool) -> tuple[int, int, str, int]:
    """Return height, width, mode, and how the pixels are to be turned."""
    with Image.open(file) as image:
        return image.height, image.width, image.mode, orientation_of(image) if upright else AS_STORED


def read_npy(file: BinaryIO, max_pixels: int) -> np.ndarray:
    """Read an array as numpy.save writes it."""
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(b"PK"):
        raise UnfitError("is an npz archive of arrays; expected one array, as numpy.save writes it")
    with NPY_HEADERS:
        major, _ = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, is_by_columns, dtype = header(file)
    _refuse_large_shape(shape, max_pixels)
    if dtype.hasobject:
        raise ValueError("it holds Python objects; expected numbers")
    here = file.tell()
    if math.prod(shape) * dtype.itemsize > file.seek(0, io.SEEK_END) - here:
        raise ValueError("it ends in its middle")
    file.seek(here)
    array = np.empty(shape[::-1] if is_by_columns else shape, dtype)
    if array.nbytes:
        cast("io.BufferedIOBase", file).readinto(array.reshape(-1).view(np.uint8).data)
    return array.T if is_by_columns else array


def _refuse_large_shape(shape: Sequence[int], max_pixels: int) -> None:
    """Take the longest two sides for height and width."""
    if len(shape) > 1:
        places = sorted(np.argsort(shape)[-2:].tolist())
        refuse_large(shape[places[0]], shape[places[1]], max_pixels)


def read_tif(file: BinaryIO, max_pixels: int, *, as_stored: bool = False) -> np.ndarray:
    """Read a tif: colours and shades as they look, or the numbers `as_stored`, as those of a mask.

    Raises UnfitError where its colours, or how it is compressed, are not known here.
    """
    with tifffile.TiffFile(file) as tif:
        first = tif.pages.first
        _refuse_large_shape(tif.series[0].shape, max_pixels)
        _refuse_cut_short(tif, file.seek(0, io.SEEK_END))
        kind = first.photometric
        if not as_stored and kind in (PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB, PHOTOMETRIC.ITULAB):
            raise UnfitError(
                f"has colours as {PHOTOMETRIC(kind).name}; expected a tif of grey, RGB, a palette, YCbCr or CMYK"
            )
        if not as_stored and len(tif.series[0].pages) == 1 and _is_plain_ycbcr(first):
            pixels = tif.asarray()
            pixels = np.moveaxis(pixels, 0, -1) if first.planarconfig == PLANARCONFIG.SEPARATE else pixels
            return np.asarray(_plain(Image.frombytes("YCbCr", pixels.shape[1::-1], pixels.tobytes())))
        if not as_stored and kind in (PHOTOMETRIC.PALETTE, PHOTOMETRIC.SEPARATED, PHOTOMETRIC.YCBCR):
            return _by_other_libraries(file, tif, as_stored=False)
        try:
            pixels = tif.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            return _by_other_libraries(file, tif, as_stored=as_stored)
    if kind == PHOTOMETRIC.MINISWHITE and not as_stored and pixels.dtype.kind in "bu":
        return ~pixels
    return pixels


def _is_plain_ycbcr(page: tifffile.TiffPage) -> bool:
    """Return whether a page has a Y, Cb and Cr for each pixel as they are: Pillow 11 takes it for cut short."""
    is_raw = page.photometric == PHOTOMETRIC.YCBCR and page.compression == tifffile.COMPRESSION.NONE
    has_all = page.tags.valueof("YCbCrSubSampling") == (1, 1) and page.samplesperpixel == 3
    return is_raw and has_all and page.dtype == np.uint8 and page.ndim == 3


def _refuse_cut_short(tif: tifffile.TiffFile, size: int) -> None:
    """Raise ValueError where a part of the picture would lie behind the file's end, which libtiff tells as it likes."""
    for page in filter(None, tif.series[0].pages):
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if offset + count > size:
                raise ValueError("it ends in its middle")


def _by_other_libraries(file: BinaryIO, tif: tifffile.TiffFile, *, as_stored: bool) -> np.ndarray:
    """Read what tifffile does not read by itself: Pillow knows the colours, OpenCV more than 8 bits; both have libtiff,
    which knows LZW, JPEG and fax."""
    first, pages = tif.pages.first, len(tif.series[0].pages)
    file.seek(0)
    data = without_orientation(file.read(), tif)
    if first.bitspersample in (1, 8) and first.samplesperpixel <= 4:
        image = Image.open(io.BytesIO(data))
        layers = []
        for number in range(pages):
            image.seek(number)
            layers.append(np.asarray(image if as_stored else _plain(image)))
        return layers[0] if pages == 1 else np.stack(layers)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if pages == 1 else None
    if pixels is None or pixels.shape != first.shape or pixels.dtype != first.dtype:
        raise UnfitError(
            f"is a tif compressed by {tifffile.COMPRESSION(first.compression).name}, of {pages} pages of shape "
            f"{first.shape} and type {first.dtype}, which the package imagecodecs reads (uv add imagecodecs)"
        )
    return pixels[:, :, [2, 1, 0, *range(3, pixels.shape[2])]] if pixels.ndim == 3 and pixels.shape[2] > 2 else pixels


def _pillow(file: BinaryIO) -> Image.Image:
    try:
        image = Image.open(file)
    except OSError:  # its message names the object in memory
        raise ValueError("of no image format known here") from None
    image.load()
    return _plain(image)


def _plain(image: Image.Image) -> Image.Image:
    """Return an image in grey or RGB, with its alpha channel if it has one."""
    if image.mode in ("P", "CMYK", "YCbCr"):
        return image.convert("RGB")
    return image.convert("L") if image.mode == "1" else image


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    """A tif with its channels as pages comes as (C, H, W): the channels are the shortest side."""
    if pixels.ndim == 3 and pixels.shape[0] < min(pixels.shape[1:]):
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return pixels


def _match_channels(pixels: np.ndarray, channels: int, path: Path) -> np.ndarray:
    found = pixels.shape[2]
    if found == channels:
        return pixels
    if pixels.shape[0] == channels and path.suffix.lower() == NPY:  # an array (C, H, W)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))
    if found in (2, 4) and channels in (1, 3) and path.suffix.lower() != NPY:  # grey or colour with alpha
        pixels, found = pixels[:, :, : found - 1], found - 1
    if found == 1:
        return np.repeat(pixels, channels, axis=2)
    if found == channels:
        return pixels
    if found == 3 and channels == 1:
        return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)[:, :, None]
    raise CompetitionError(f"{path}: has {found} channels; data.channels says {channels}")
