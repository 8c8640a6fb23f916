"""Where an image's file is, by `data.image_file`, both ways, or as told from the files that are there. No torch."""

import os
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

import numpy as np

from competition.config.data_settings import Data
from competition.config.settings import Config
from competition.files.csv_file import read_csv
from competition.files.csv_keys import split_keys
from competition.files.file_patterns import (
    expression,
    field_names,
    file_and_part,
    files_below,
    filled,
    find_file,
    refuse_elsewhere,
)
from competition.files.joined_tables import AND, TableState, state_of_table, table_files, whole_table
from competition.files.series import is_series
from competition.support.errors import CompetitionError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".dcm", ".dicom", ".bmp", ".webp")

LONGEST_ID = 200  # bytes; a longer text is no image's id


def suffix_of(path: Path) -> str | None:
    """Return what a file's name lacks to be that of an image in the same folder."""
    try:
        return next((suffix for suffix in SUFFIXES if path.with_name(path.name + suffix).is_file()), None)
    except OSError:  # too long for a name
        return None


@dataclass(frozen=True)
class ImageFolder:
    """Where the images of training, or of test, are, and which table has their columns."""

    data: Data
    folder: str  # in data.dir
    pattern: str
    table: Path
    keys: Mapping[str, str]

    def file(self, image_id: str, pattern: str | None = None) -> Path:
        """Return an image's file, by another pattern where one is given; raise CompetitionError where its id leads out
        of the folder."""
        asked = pattern or self.pattern
        columns = self._columns_in(file_and_part(asked)[0], image_id)
        return image_path(self.data, self.folder, asked, image_id, columns)

    def part(self, image_id: str, pattern: str) -> str:
        """Return the part of an image's file that a pattern means, as a slice of a volume; "" for all of it."""
        _, asked = file_and_part(pattern)
        if not field_names(asked):
            return asked
        return filled(asked, fields_of(self.data, image_id, self._columns_in(asked, image_id)))

    def _columns_in(self, pattern: str, image_id: str) -> dict[str, str]:
        return self.columns(_column_names(self.data, pattern), image_id)

    def columns(self, names: tuple[str, ...], image_id: str) -> dict[str, str]:
        """Return what an image has in columns of the table."""
        if not names:
            return {}
        known = rows_by_image(*self.table_state(), names)
        if image_id not in known and (whole := whole_table(self.table)) is not None:
            known = rows_by_image(*replace(self, table=whole).table_state(), names)
        if image_id not in known:
            raise CompetitionError(
                f"{self.table}: has no row of image {image_id!r}, whose {', '.join(names)} its file is named by"
            )
        return dict(zip(names, known[image_id], strict=True))

    def table_state(self) -> tuple[Path, tuple[tuple[str, str], ...], TableState]:
        """Return the table, its key columns, and what changes whenever it does."""
        return self.table, tuple(self.keys.items()), state_of_table(self.table)


def train_folder(config: Config) -> ImageFolder:
    """Return where training images are."""
    data = config.data
    return ImageFolder(data, data.train_images, data.image_file, config.train_csv, config.train_keys or {})


def test_folder(config: Config) -> ImageFolder:
    """Return where test images are."""
    data = config.data
    table = data.dir / (data.test_csv or data.sample_submission)
    keys = config.train_keys or {} if data.test_csv else config.submission_keys
    return ImageFolder(data, data.test_images, test_pattern(data), table, keys)


def train_image(config: Config, image_id: str) -> Path:
    """Return the file of a training image, the first of several."""
    return train_folder(config).file(image_id)


def test_image(config: Config, image_id: str) -> Path:
    """Return the file of a test image, the first of several."""
    return test_folder(config).file(image_id)


def test_pattern(data: Data) -> str:
    """Return the pattern of test images' files."""
    return data.test_image_file or data.image_file


def image_path(data: Data, folder: str, pattern: str, image_id: str, columns: Mapping[str, str] | None = None) -> Path:
    """Return an image's file in a folder of `data.dir`, by a pattern filled with its id, parts of it and `columns`."""
    return find_file(data.dir / folder, file_and_part(pattern)[0], fields_of(data, image_id, columns or {}))


def fields_of(data: Data, image_id: str, columns: Mapping[str, str]) -> dict[str, str]:
    """Return what a pattern is filled with for an image."""
    return {"image_id": image_id, **id_parts(data, image_id), **columns}


def id_parts(data: Data, image_id: str) -> dict[str, str]:
    """Return the parts of an id by `data.id_parts`."""
    if data.id_parts is None:
        return {}
    found = re.fullmatch(expression(data.id_parts), image_id)
    if found is None:
        raise CompetitionError(f"image {image_id!r}: does not follow data.id_parts {data.id_parts!r}")
    return found.groupdict()


def _column_names(data: Data, pattern: str) -> tuple[str, ...]:
    """Return the columns of a csv file that a pattern names."""
    parts = () if data.id_parts is None else field_names(data.id_parts)
    return tuple(name for name in field_names(pattern) if name != "image_id" and name not in parts)


@lru_cache(maxsize=8)
def rows_by_image(
    path: Path, keys: tuple[tuple[str, str], ...], changed: TableState, names: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Return what each image has in columns of a table, by its id."""
    frame = read_csv(path, list(dict.fromkeys([*(column for column, _ in keys), *names])))
    ids, _ = split_keys(frame, dict(keys), path)
    rows = frame[list(names)].itertuples(index=False, name=None)
    return dict(reversed(list(zip(ids, rows, strict=True))))


def one_of_many(config: Config, image_ids: np.ndarray) -> list[str]:
    """Warn where an id names a folder of images of which one is read: the pattern's last part has no field."""
    if is_series(config):  # its images are all read
        return []
    pattern, part = file_and_part(config.data.image_file)
    last = pattern.rpartition("/")[2]
    if (
        config.data.files is None
        and not part
        and field_names(pattern)
        and "/" in pattern
        and last
        and not field_names(last)
    ):
        for image_id in image_ids[:1]:
            path = train_image(config, image_id)
            beside = [name for name in files_below(_own_folder(config, path)) if Path(name).suffix == path.suffix]
            way_on = (
                "where each is to be an image, and the id is answered by all: format.group='{column}' and "
                f"data.train_csv='TABLE{AND}FOLDER/{{column}}/*{path.suffix}'"
                if config.task == "classification"
                else "where the others matter, name those that are channels of one image in data.files"
            )
            if len(beside) > 1:
                return [f"warning: 1 of {len(beside)} images of an id is read, as {path} of {image_id!r}; {way_on}"]
    return []


def _own_folder(config: Config, path: Path) -> Path:
    """Return the folder of an image's files: what the first part with a field names."""
    plain = [*takewhile(lambda part: not (field_names(part) or "*" in part), config.data.image_file.split("/"))]
    root = config.data.dir / config.data.train_images / Path(*plain)
    return root / path.relative_to(root).parts[0]


def file_name(pattern: str, image_id: str, class_id: str = "") -> str:
    """Return a pattern with {image_id} and {class_id} filled in: wherever a name becomes a path, this makes it.

    Raises CompetitionError where the path would lead elsewhere than the pattern does: a name is data of others, and
    files are written by it, too.
    """
    name = pattern.replace("{image_id}", image_id).replace("{class_id}", class_id)
    refuse_elsewhere(name, pattern, image_id, (image_id, class_id))
    return name


def may_be_id(text: str) -> bool:
    """Return whether a text of any csv file may be an image's id, so that a file can be looked for by it."""
    try:
        return 0 < len(os.fsencode(file_name("{image_id}", text))) < LONGEST_ID
    except (CompetitionError, UnicodeEncodeError):
        return False


def absent_images(config: Config, path: Path, present: np.ndarray) -> np.ndarray:
    """Return (n,) str: the images without a row in a csv file that count as images without mask or box.

    Those of train.csv are training images, those of another file beside it (a solution) test images. Which there are
    the names of files tell, or, where columns name the files, the rows that a ` where ` leaves out.
    """
    data = config.data
    is_train = path == config.train_csv
    folder, pattern = (data.train_images, data.image_file) if is_train else (data.test_images, test_pattern(data))
    if data.absent_images == "ignore" or next(iter(table_files(path)), path).parent != data.dir:
        return np.empty(0, dtype=object)
    found = ids_in(data, folder, pattern, folders_in(present))
    found = found[~np.isin(found.astype(str), present.astype(str))]
    other = data.test_images if is_train else data.train_images
    if "/" in "".join(present):
        tops = {one.partition("/")[0] for one in present}
        found = np.array([one for one in found if _is_own(data, folder, other, one, tops)], dtype=object)
    return np.union1d(found, left_out_images(config, present)) if is_train else found


def _is_own(data: Data, folder: str, other: str, image_id: str, tops: Container[str]) -> bool:
    """Return whether an image, where ids have folders, is none of the other images, whose folder may lie in this one,
    nor a table that lies beside the folders. `tops` are the first folders of ids that are known."""
    root, elsewhere = data.dir / folder, data.dir / other
    if "/" not in image_id:
        return root != data.dir
    if root == elsewhere:  # of both
        return image_id.partition("/")[0] in tops
    return root not in elsewhere.parents or elsewhere not in (root / image_id).parents


def folders_in(image_ids: Iterable[str]) -> frozenset[int]:
    """Return how many folders ids name, as `s1/a.jpg` one: none, and what the ids have."""
    return frozenset([0, *(one.count("/") for one in image_ids)])


def left_out_images(config: Config, present: np.ndarray) -> np.ndarray:
    """Return (n,) str, sorted: the images, whose files are there, of which a ` where ` of train.csv left no row."""
    keys, whole = tuple((config.train_keys or {}).items()), whole_table(config.train_csv)
    if whole is None or not keys:
        return np.empty(0, dtype=object)
    columns = tuple(column for column, _ in keys)
    known, taken = rows_by_image(whole, keys, state_of_table(whole), columns).keys(), set(present)
    # Where an id is made of several columns, or of a file, these keys do not tell it.
    others = sorted(known - taken) if taken <= known else []
    folder = train_folder(config)
    return np.array([one for one in others if _has_file(folder, one)], dtype=object)


def _has_file(folder: ImageFolder, image_id: str) -> bool:
    try:
        return folder.file(image_id).is_file()
    except (CompetitionError, OSError):
        return False


def row_in_words(data: Data, line: int) -> str:
    """Say where a training image stands in train.csv; line 0 is that of images without a row."""
    return f"{data.train_csv} line {line}" if line else f"no row in {data.train_csv}"


def ids_in(data: Data, folder: str, pattern: str, folders: Container[int] = (0,)) -> np.ndarray:
    """Return (n,) str, sorted: the ids of the images in a folder whose names follow the pattern.

    The pattern may name folders below it, and so may ids, as many as `folders` says; others, as of masks beside the
    images, are not looked into.
    """
    return ids_below(data.dir / folder, pattern, data.id_parts, folders)


def ids_below(root: Path, pattern: str, parts: str | None, folders: Container[int] = (0,)) -> np.ndarray:
    """Return (n,) str, sorted: the ids of the images below a folder whose names follow the pattern, by these parts."""
    whole = re.compile(expression(file_and_part(pattern)[0]))
    found = (whole.fullmatch(name) for name in files_below(root))
    ids = {_id_of(one.groupdict(), parts) for one in found if one}
    return np.array(sorted(one for one in ids if one and one.count("/") in folders), dtype=object)


def _id_of(fields: Mapping[str, str], parts: str | None) -> str:
    """Return the id that the fields of a file's name tell; nothing where they do not."""
    if "image_id" in fields:
        return fields["image_id"]
    names = [] if parts is None else field_names(parts)
    return filled(parts, fields) if parts is not None and set(names) <= set(fields) else ""
