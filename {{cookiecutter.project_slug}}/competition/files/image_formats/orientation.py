"""Which way up the pixels of a file are, by the orientation in its EXIF data: `data.exif_orientation`. No torch."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

ORIENTATION = 0x0112  # the tag's number, in EXIF data as in a tif
AS_STORED = 1
SWAPS_SIDES = 5  # this orientation and those behind it lie on their side


def orientation_of(image: Image.Image) -> int:
    """Return the orientation that a file's header notes, from 1 to 8, of a file that is open and not loaded yet."""
    try:
        # Not `image.getexif()`: that of a png decodes all pixels to look for what may stand behind them.
        return _known(Image.Image.getexif(image).get(ORIENTATION))
    except Exception:  # whatever is wrong with what is noted, the pixels may be whole
        return AS_STORED


def orientation_of_tif(tif: tifffile.TiffFile) -> int:
    """Return the orientation that a tif notes, from 1 to 8."""
    return _known(tif.pages.first.tags.valueof(ORIENTATION))


def orientation_of_file(path: Path) -> int:
    """Return the orientation that a file notes, from 1 to 8; 1 of a file that notes none, or is none."""
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            with tifffile.TiffFile(path) as tif:
                return orientation_of_tif(tif)
        with Image.open(path) as image:
            return orientation_of(image)
    except Exception:  # what is wrong with it is said where it is read
        return AS_STORED


def _known(noted: object) -> int:
    return noted if isinstance(noted, int) and 1 <= noted <= 8 else AS_STORED


def without_orientation(data: bytes, tif: tifffile.TiffFile) -> bytes:
    """Return a tif's bytes with no orientation in them: other libraries turn some of its kinds, some halfway."""
    pages = (page for page in tif.series[0].pages if isinstance(page, tifffile.TiffPage))
    tags = [page.tags[ORIENTATION] for page in pages if ORIENTATION in page.tags]
    places = [tag.valueoffset for tag in tags if _known(tag.value) != AS_STORED]
    if not places:
        return data
    plain, order = bytearray(data), "little" if tif.byteorder == "<" else "big"
    for place in places:
        plain[place : place + 2] = AS_STORED.to_bytes(2, order)
    return bytes(plain)


def turned_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels (H, W) or (H, W, C) as a viewer shows them."""
    if orientation == AS_STORED:
        return pixels
    if orientation >= SWAPS_SIDES:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def size_upright(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Return height and width of such pixels."""
    return (width, height) if orientation >= SWAPS_SIDES else (height, width)
