"""What another run says of an image's pixels, which `data.maps` adds as channels: pictures in its maps/. No torch.

A picture is as large as its image and grey: a probability from 0 to 255. Where a training image of that name is none
the run has trained on, it may be one of its test images.
"""

import zlib
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from competition.config.data_settings import Data
from competition.files.crops import (
    absent,
    crops_file,
    folder_of_stage,
    parts_of,
    refuse_absent_crops,
    refuse_older,
    unasked,
)
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError

MAPS, INDEX = "maps", "maps.csv"  # a folder, and the file in it that is written last


def maps_index(data: Data) -> Path | None:
    """Return the file that tells whether what `data.maps` reads is whole; None without it."""
    return None if data.maps is None else folder_of_stage(data.maps.run) / MAPS / INDEX


def stage_files(data: Data) -> list[Path]:
    """Return the files of other runs by which images are cropped or have further channels."""
    return [path for path in (crops_file(data), maps_index(data)) if path is not None]


def refuse_absent_stages(data: Data) -> None:
    """Raise CompetitionError where what other runs found is not there, older than these say now, or at fault."""
    refuse_absent_crops(data)
    if data.maps is None or (index := maps_index(data)) is None:
        return
    run = index.parents[1]
    if not index.is_file():
        raise absent(index, run, "maps", "data.maps")
    refuse_older(index, run, "maps")
    known = sorted({path.name for path in index.parent.glob("*/*") if path.is_dir()})
    if unknown := [name for name in data.maps.classes if quote(name, safe="") not in known]:
        raise CompetitionError(f"data.maps.classes: found {unknown[0]!r}; {index.parent} has {', '.join(known)}")


def describe_maps(data: Data) -> list[str]:
    """Say what further channels images have; nothing without `data.maps`."""
    if data.maps is None:
        return []
    return [f"data.maps: {folder_of_stage(data.maps.run) / MAPS}: {', '.join(data.maps.classes)} as further channels"]


def map_files(data: Data, image_id: str, *, of_test: bool) -> list[Path]:
    """Return the pictures of an image, one a class; raise CompetitionError where its run was not asked about it."""
    if data.maps is None:
        return []
    folder = folder_of_stage(data.maps.run) / MAPS
    for part in parts_of(of_test):
        paths = [map_path(folder, part, name, image_id) for name in data.maps.classes]
        if paths[0].is_file():
            return paths
    raise unasked(image_id, f"{folder} (data.maps)", of_test=of_test)


def map_path(folder: Path, part: str, name: str, image_id: str) -> Path:
    """Return where the picture of an image and class is, in a folder of its own whatever the id holds."""
    return folder / part / quote(name, safe="") / f"{quote(image_id, safe='')}.png"


def write_maps(
    folder: Path, classes: Iterable[str], images: Iterable[tuple[str, str, np.ndarray, tuple[int, int]]]
) -> None:
    """Write pictures of images into a new folder: of each part, image id, (classes, h, w) and height and width.

    The index has a checksum of each image's pictures, so that it is another where they are.
    """
    classes, rows = list(classes), list[tuple[str, str, str]]()
    for part in ("train", "test"):
        for name in classes:
            map_path(folder, part, name, "").parent.mkdir(parents=True)
    for part, image_id, maps, (height, width) in images:
        checksum = 0
        for name, one in zip(classes, maps, strict=True):
            full = cv2.resize(one.astype(np.float32), (width, height))
            _, packed = cv2.imencode(".png", np.rint(np.clip(full, 0, 1) * 255).astype(np.uint8))
            map_path(folder, part, name, image_id).write_bytes(packed.tobytes())
            checksum = zlib.crc32(packed.tobytes(), checksum)
        rows.append((part, image_id, f"{checksum:08x}"))
    write_csv(folder / INDEX, ["part", "image_id", "crc32"], rows)
