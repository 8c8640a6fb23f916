"""Files as scanners write them."""

from pathlib import Path

import numpy as np
import pytest


def write_dicom(path: Path, pixels: np.ndarray, **values: object) -> Path:
    """Write shades (H, W) or, of 16 bit, frames (n, H, W), or colours (H, W, 3) of 8 bit."""
    pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    is_color = pixels.dtype == np.uint8 and pixels.ndim > 2
    bits = pixels.dtype.itemsize * 8
    given = {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "Rows": pixels.shape[-3 if is_color else -2],
        "Columns": pixels.shape[-2 if is_color else -1],
        "SamplesPerPixel": 3 if is_color else 1,
        "PhotometricInterpretation": "RGB" if is_color else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        **({"PlanarConfiguration": 0} if is_color else {}),
        **({"NumberOfFrames": len(pixels)} if pixels.ndim == 3 and not is_color else {}),
        **values,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    for key, value in given.items():
        setattr(file, key, value)
    file.PixelData = pixels.tobytes()
    file.save_as(path, enforce_file_format=True)
    return path
