"""What an image's pixels come of: one file, or several whose channels follow each other. No torch.

Whoever needs an image asks `train_source` or `test_source`: the dataset and its cache, `check`, pages and the bundle
know nothing of where files are, nor of how many there are to an image.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from competition.config.data_settings import Data
from competition.config.optional_data import Stack
from competition.config.settings import Config
from competition.files.crops import Shares, cut, shares_of, size_of_cut
from competition.files.image_folder import ImageFolder, test_folder, train_folder
from competition.files.image_formats.dicom import SUFFIXES
from competition.files.image_formats.orientation import AS_STORED, orientation_of_file
from competition.files.images import (
    NPY,
    as_image,
    as_network_sees,
    count_channels,
    no_dicom,
    read_image,
    read_image_size,
)
from competition.files.maps import map_files
from competition.files.stacks import neighbours, place_within
from competition.files.volumes import HDF5, at_slice, number_of_slices, read_part, slice_of
from competition.support.errors import CompetitionError

# Which package, an extra of the project, reads files of a suffix.
READERS = {**dict.fromkeys(HDF5, "h5py"), **dict.fromkeys(SUFFIXES, "pydicom")}


@dataclass(frozen=True, order=True)
class ImageFile:
    """A file that has channels of an image, or a part of one, as a slice of a volume."""

    path: Path
    part: str = ""
    windows: tuple[tuple[float, float], ...] = ()  # of a DICOM file
    seen: Shares = ()  # what is seen of it; all, where there is nothing
    upright: bool = False  # turned by its EXIF orientation

    def __str__(self) -> str:
        return f"{self.path}[{self.part}]" if self.part else str(self.path)

    def read(self, channels: int, max_pixels: int) -> np.ndarray:
        """Read (H, W, channels) of what is seen; errors as of `read_image`."""
        if not self.part:
            whole = read_image(self.path, channels, max_pixels, windows=self.windows, upright=self.upright)
            return cut(whole, self.seen)
        if self.windows:
            raise no_dicom(self.path)
        part = read_part(self.path, self.part, max_pixels, upright=self.upright)
        return cut(as_image(part, channels, self.path), self.seen)

    def read_size(self, channels: int, max_pixels: int) -> tuple[int, int]:
        """Read height and width of what is seen, from the header where there is one."""
        if not self.part:
            return size_of_cut(*read_image_size(self.path, channels, max_pixels, upright=self.upright), self.seen)
        height, width = read_part(self.path, self.part, max_pixels, upright=self.upright).shape[:2]
        return size_of_cut(height, width, self.seen)

    @property
    def is_turned(self) -> bool:
        """Whether it notes an EXIF orientation by which a viewer turns it; parts of files are not looked at."""
        return not self.part and orientation_of_file(self.path) != AS_STORED

    def count_channels(self, max_pixels: int) -> int:
        """Return how many channels it seems to have."""
        if not self.part:
            return count_channels(self.path, max_pixels)
        return (*read_part(self.path, self.part, max_pixels).shape, 1)[2]


@dataclass(frozen=True)
class ImageSource:
    """The files of an image in the order of their channels, of which each has as many; none is black."""

    files: tuple[ImageFile | None, ...]
    channels: int  # of each file
    max_pixels: int
    maps: int = 0  # how many of the files, the last ones, are what another run says of its pixels

    @property
    def own(self) -> tuple[ImageFile | None, ...]:
        """The files of the image and its neighbours."""
        return self.files[: len(self.files) - self.maps]

    def present(self) -> list[ImageFile]:
        """Return the files, each once."""
        return list(dict.fromkeys(file for file in self.files if file is not None))

    def own_file(self, data: Data) -> ImageFile | None:
        """Return the first file that is the image's own, where the others are neighbours."""
        return self.own[0 if data.stack is None else data.stack.own * len(self.own) // len(data.stack.take)]

    def read(self) -> np.ndarray:
        """Read (H, W, channels of all), uint8 or float32.

        Raises CompetitionError that names the file which is missing, broken, or of another size or type than another.
        """
        read = {file: file.read(self.channels, self.max_pixels) for file in self.present()}
        pieces = [None if file is None else read[file] for file in self.files]
        pieces = beside_maps(pieces[: len(self.own)], pieces[len(self.own) :])
        self.refuse_misfits(pieces)
        return joined(pieces)

    def read_file(self, file: ImageFile) -> np.ndarray:
        """Read one of the files as it is within the image."""
        pixels = file.read(self.channels, self.max_pixels)
        if file in self.own:
            return pixels
        first = self.present()[0].read(self.channels, self.max_pixels)
        return joined(beside_maps([first], [pixels])[1:])

    def read_size(self) -> tuple[int, int]:
        """Read height and width of the first file."""
        return self.present()[0].read_size(self.channels, self.max_pixels)

    def count_channels(self) -> int:
        """Return how many channels the files seem to have together."""
        return len(self.files) * self.present()[0].count_channels(self.max_pixels)

    def of_channels(self, channels: int) -> "ImageSource":
        """Return the same files, read as so many channels in all."""
        return replace(self, channels=channels // len(self.files))

    def packages(self) -> set[str]:
        """Return the packages that read the files and are not among the project's own requirements."""
        return {READERS[suffix] for file in self.present() if (suffix := file.path.suffix.lower()) in READERS}

    def copy_to(self, folder: Path, name: str) -> list[str | None]:
        """Copy the files into a folder, by names that begin with `name`; return these for `copied_source`."""
        copies = {}
        for number, file in enumerate(self.present()):
            is_part = bool(file.part or file.seen)
            copies[file] = f"{name}_{number}{NPY if is_part else file.path.suffix}"
            if is_part:  # the rest of a volume or an image is of no use
                np.save(folder / copies[file], file.read(self.channels, self.max_pixels))
            else:
                shutil.copy(file.path, folder / copies[file])
        return [None if file is None else copies[file] for file in self.files]

    def refuse_misfits(self, pieces: Sequence[np.ndarray | None]) -> None:
        """Raise CompetitionError where what was read of the files cannot be one image."""
        known = [(file, piece) for file, piece in zip(self.files, pieces, strict=True) if piece is not None]
        first, expected = known[0]
        for file, piece in known[1:]:
            for found, wanted in ((_size(piece), _size(expected)), (_type(piece), _type(expected))):
                if found != wanted:
                    raise CompetitionError(
                        f"{file}: is of {found}, {first} of {wanted}; expected the files of one image to be alike"
                    )


def copied_source(data: Data, folder: Path, names: Sequence[str | None]) -> ImageSource:
    """Return an image whose files `ImageSource.copy_to` has copied."""

    def copied(name: str) -> ImageFile:
        is_dicom = Path(name).suffix.lower() in SUFFIXES  # else it was read by its windows already, or is a map
        return ImageFile(folder / name, windows=data.windows if is_dicom else (), upright=data.turns_upright)

    files = tuple(None if name is None else copied(name) for name in names)
    return ImageSource(files, data.file_channels, data.max_pixels, len(data.maps.classes) if data.maps else 0)


def beside_maps(own: Sequence[np.ndarray | None], maps: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """Return the pieces of an image with what maps say of it: from 0 to 255, or from 0 to 1 beside floats, which 16
    bits are read as."""
    if all(piece is None or piece.dtype == np.uint8 for piece in own):
        return [*own, *maps]
    return [*own, *(None if one is None else one.astype(np.float32) / 255 for one in maps)]


def joined(pieces: Sequence[np.ndarray | None]) -> np.ndarray:
    """Return arrays (H, W, c) of one size and type as one of all their channels; none is black."""
    known = [piece for piece in pieces if piece is not None]
    if len(pieces) == 1:
        return known[0]
    black = np.zeros_like(known[0]) if len(known) < len(pieces) else None
    return np.concatenate([black if piece is None else piece for piece in pieces], axis=2)


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[0]} x {pixels.shape[1]} pixels"


def _type(pixels: np.ndarray) -> str:
    return "8 bits" if pixels.dtype == np.uint8 else "16 bits or floats"


def train_source(config: Config, image_id: str) -> ImageSource:
    """Return what a training image is made of; raise CompetitionError where its id leads out of the folder."""
    return _source(train_folder(config), image_id, of_test=False)


def test_source(config: Config, image_id: str) -> ImageSource:
    """Return what a test image is made of; raise CompetitionError where its id leads out of the folder."""
    return _source(test_folder(config), image_id, of_test=True)


def _source(folder: ImageFolder, image_id: str, *, of_test: bool) -> ImageSource:
    data = folder.data
    patterns = data.files or [folder.pattern]
    seen = shares_of(data, image_id, of_test=of_test)  # of its neighbours the same

    def files_of(one: str) -> list[ImageFile]:
        return [
            ImageFile(folder.file(one, each), folder.part(one, each), data.windows, seen, data.turns_upright)
            for each in patterns
        ]

    if data.stack is None:
        files: list[ImageFile | None] = [*files_of(image_id)]
    elif data.stack.is_of_volumes:
        files = _slices(files_of(image_id), data.stack)
    else:
        black: list[None] = [None] * len(patterns)
        ids = neighbours(folder, data.stack, image_id)
        files = [file for one in ids for file in (black if one is None else files_of(one))]
    maps = [ImageFile(path, seen=seen) for path in map_files(data, image_id, of_test=of_test)]
    return ImageSource((*files, *maps), data.file_channels, data.max_pixels, len(maps))


def seen_of(data: Data, image_id: str, pixels: np.ndarray) -> np.ndarray:
    """Return of a test image's pixels (H, W, channels), which are not read from its file, what would be seen of them;
    raise CompetitionError where what other runs say of it does not go with them."""
    seen = shares_of(data, image_id, of_test=True)
    files = [ImageFile(path, seen=seen) for path in map_files(data, image_id, of_test=True)]
    own = cut(as_network_sees(pixels, f"image {image_id!r}"), seen)
    return joined(beside_maps([own], [file.read(data.file_channels, data.max_pixels) for file in files]))


def _slices(own: Sequence[ImageFile], stack: Stack) -> list[ImageFile | None]:
    """Return the slices of volumes that `stack.take` means, of all volumes one after the other."""
    found: list[ImageFile | None] = []
    for step in stack.take:
        for file in own:
            here, number = slice_of(file.path, file.part), number_of_slices(file.path, file.part)
            is_there = 0 <= here < number  # if not, it is told where it is read
            place = place_within(here + step, number, stack) if is_there else here
            found.append(None if place is None else replace(file, part=at_slice(file.part, place)))
    return found


def own_part(pixels: np.ndarray, data: Data) -> np.ndarray:
    """Return the channels (H, W, c) of an image's own files, which stand for it where it is looked at: the others are
    other images of a stack, or maps."""
    places, own = (1, 0) if data.stack is None else (len(data.stack.take), data.stack.own)
    each = data.own_channels // places
    return pixels[:, :, own * each : (own + 1) * each]
