"""DICOM images (.dcm, .dicom), by pydicom, an extra of the project: as a viewer shows them. No torch."""

from typing import Any, BinaryIO

import numpy as np

SUFFIXES = (".dcm", ".dicom")


class NoReaderError(Exception):
    """Its text says which package reads the file."""


def read_size(file: BinaryIO) -> tuple[int, int]:
    """Return height and width from the header."""
    found = _pydicom().dcmread(file, stop_before_pixels=True, force=True)
    return int(found.Rows), int(found.Columns)


def read_dicom(file: BinaryIO) -> np.ndarray:
    """Return (H, W), (H, W, 3) or, of several frames, (H, W, frames): colours as they are, shades as uint16.

    Shades are rescaled (modality LUT), seen through the first window of the file, or without one from their lowest to
    their highest value, and turned round where they begin at white (MONOCHROME1).
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
        return _colours(found, pixels)
    shades = pydicom.pixels.apply_modality_lut(pixels, found).astype(np.float64)
    low, high = _window(found) or (float(shades.min()), float(shades.max()))
    shares = np.clip((shades - low) / max(high - low, 1e-12), 0, 1)
    if found.PhotometricInterpretation == "MONOCHROME1":
        shares = 1 - shares
    whole = np.round(shares * 65535).astype(np.uint16)
    return whole if whole.ndim == 2 else np.ascontiguousarray(whole.transpose(1, 2, 0))


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
    return (center - width / 2, center + width / 2) if width > 0 else None


def _colours(found: Any, pixels: np.ndarray) -> np.ndarray:
    if str(found.PhotometricInterpretation).startswith("YBR"):
        from pydicom.pixels import convert_color_space

        return convert_color_space(pixels, found.PhotometricInterpretation, "RGB")
    return pixels
