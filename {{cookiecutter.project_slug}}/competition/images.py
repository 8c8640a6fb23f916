"""Reading an image file of any format competitions hand out into an array (height, width, channels)."""

import io
import logging
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image

from competition.errors import CompetitionError
from competition.image_folder import suffix_of
from competition.whole_file import JPEG_START, PNG_START, is_whole

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is said once, by us
cv2.setNumThreads(0)  # the data loader's workers are the parallelism; threads in each would fight over the cores


def read_image(path: Path, channels: int) -> np.ndarray:
    """Read an image as (height, width, channels), uint8 or float32.

    8 bit stays uint8; 16 bit becomes float32 from 0 to 1; floats (npy, tif) stay as they are. Grey is repeated to
    three channels, colour is turned grey for one, an alpha channel is dropped. The orientation noted in a photo's
    EXIF data is not applied: masks and boxes of competitions are drawn on the stored pixels.

    Raises CompetitionError if the file is missing, truncated, no image, or has another number of channels.
    """
    pixels = _decode(path)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise CompetitionError(f"{path}: expected height x width x channels, found shape {pixels.shape}")
    pixels = _match_channels(pixels, channels, path)
    return as_network_sees(pixels, str(path))


def as_network_sees(pixels: np.ndarray, name: str) -> np.ndarray:
    """Return pixels as uint8, or as float32: 16 bit from 0 to 1, floats as they are; refuse other types."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return pixels.astype(np.float32) / 65535
    if pixels.dtype.kind not in "fiub":
        raise CompetitionError(f"{name}: found pixels of type {pixels.dtype}; expected uint8, uint16 or floats")
    return pixels.astype(np.float32)


def read_image_size(path: Path, channels: int) -> tuple[int, int]:
    """Return height and width of an image, from its header where Pillow knows the format; errors as of `read_image`."""
    if path.suffix.lower() not in (".npy", ".tif", ".tiff"):
        try:
            with Image.open(path) as image:
                return image.height, image.width
        except (OSError, ValueError, Image.DecompressionBombError):
            pass  # what is wrong with it is said where it is read
    height, width, _ = read_image(path, channels).shape
    return height, width


def _decode(path: Path) -> np.ndarray:
    """Decode to (H, W) or (H, W, C) in RGB order."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        suffix = suffix_of(path)
        hint = f"; {path.name}{suffix} is there: set data.image_file to '{{image_id}}{suffix}'" if suffix else ""
        raise CompetitionError(f"{path}: no such image file{hint}") from None
    except OSError as error:
        raise CompetitionError(f"{path}: cannot be read ({error.strerror})") from None
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return np.load(io.BytesIO(data), allow_pickle=False)
        if suffix in (".tif", ".tiff"):
            return _channels_last(tifffile.imread(io.BytesIO(data)))
        if not data.startswith((PNG_START, JPEG_START)):
            return np.asarray(_pillow(data))
        if not is_whole(data):
            raise ValueError("it ends in its middle")
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except Exception as error:  # each decoder has errors of its own; all of them mean the file is no good
        raise CompetitionError(
            f"{path}: truncated or no image ({len(data)} bytes; {' '.join(str(error).split())[:100]})"
        ) from None
    if pixels is None:
        raise CompetitionError(f"{path}: truncated or no image ({len(data)} bytes)")
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    return pixels


def _pillow(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
    except OSError:  # its message names the object in memory
        raise ValueError("of no image format known here") from None
    image.load()
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
    if found in (2, 4) and channels in (1, 3):  # grey or colour with alpha
        pixels, found = pixels[:, :, : found - 1], found - 1
    if found == 1:
        return np.repeat(pixels, channels, axis=2)
    if found == channels:
        return pixels
    if found == 3 and channels == 1:
        return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)[:, :, None]
    raise CompetitionError(f"{path}: has {found} channels; data.channels says {channels}")
