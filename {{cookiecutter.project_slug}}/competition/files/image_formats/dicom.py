"""DICOM images (.dcm, .dicom), by pydicom, an extra of the project: as a viewer shows them. No torch."""

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

SUFFIXES = (".dcm", ".dicom")
Windows = Sequence[tuple[float, float]]  # centre and width of each, in rescaled values, as Hounsfield units


class NoReaderError(Exception):
    """Its text says which package reads the file, or why none does as asked."""


def read_size(file: BinaryIO) -> tuple[int, int]:
    """Return height and width from the header."""
    found = _pydicom().dcmread(file, stop_before_pixels=True, force=True)
    return int(found.Rows), int(found.Columns)


def read_dicom(file: BinaryIO, windows: Windows = ()) -> np.ndarray:
    """Return (H, W, channels): colours as they are, shades as uint16, of several frames each a channel.

    Shades are rescaled (modality LUT), seen through `windows`, of which each makes a channel, or else the first window
    of the file, or without one from their lowest to their highest value; and turned round where they begin at white
    (MONOCHROME1).
    """
    pydicom = _pydicom()
    found = pydicom.dcmread(file, force=True)
    try:
        pixels = np.asarray(found.pixel_array)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        if "PixelData" in found and ("decompress" in reason or "plugin" in reason or "decode" in reason):
            raise NoReaderError(
                f"is a DICOM file that pydicom needs more for ({reason}); uv add 'pylibjpeg[all]'"
            ) from None
        raise ValueError(reason) from None
    if int(found.SamplesPerPixel) == 3:
        if windows:
            raise NoReaderError("has colours; expected shades, which data.dicom_window is for")
        return _colours(found, pixels)
    shades = pydicom.pixels.apply_modality_lut(pixels, found).astype(np.float64)
    shades = shades[:, :, None] if shades.ndim == 2 else shades.transpose(1, 2, 0)
    ends = [_ends(*window) for window in windows] or [_window(found) or (float(shades.min()), float(shades.max()))]
    shares = np.concatenate([np.clip((shades - low) / max(high - low, 1e-12), 0, 1) for low, high in ends], axis=2)
    if found.PhotometricInterpretation == "MONOCHROME1":
        shares = 1 - shares
    return np.round(shares * 65535).astype(np.uint16)


def _ends(center: float, width: float) -> tuple[float, float]:
    return center - width / 2, center + width / 2


def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError:
        raise NoReaderError("is a DICOM file, which the package pydicom reads: uv sync --extra dicom") from None
    return pydicom


def _window(found: Any) -> tuple[float, float] | None:
    """Return the lowest and highest value of the first window; none where the file has no such."""
    try:
        center, width = (np.atleast_1d(found[key].value).astype(float)[0] for key in ("WindowCenter", "WindowWidth"))
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return _ends(center, width) if width > 0 else None


def _colours(found: Any, pixels: np.ndarray) -> np.ndarray:
    if str(found.PhotometricInterpretation).startswith("YBR"):
        from pydicom.pixels import convert_color_space

        return convert_color_space(pixels, found.PhotometricInterpretation, "RGB")
    return pixels
