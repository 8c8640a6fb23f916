"""What lies in a competition's folder: which files may be its tables, and what is packed. No torch."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from competition.config.data_settings import Data
from competition.files.csv_file import read_csv, read_header
from competition.files.file_patterns import field_names, is_hidden
from competition.files.image_folder import SUFFIXES, may_be_id
from competition.files.image_search import is_there
from competition.files.joined_tables import has_table
from competition.files.other_tables import LONGEST_LIST, READERS
from competition.support.errors import CompetitionError
from competition.support.optional_rooms import has_room

DEEPEST = 2  # folders below data.dir that tables are looked for in
MOST_TABLES = 8  # that are tried
LABEL_IN_NAME = re.compile(r"(?P<label>[A-Za-z]+)(?P<between>[._-])\d+(?P<suffix>\.\w+)")  # as cat.12.jpg
MOST_NAMES = 10_000  # of a folder that are looked at
MOST_LABELS = 20  # that names of files begin with
NO_TRAIN = re.compile(r"sample|submission|test|solution|answer|folds|near_duplicates|depths|meta_?data", re.IGNORECASE)
OF_LABELS = re.compile(r"train|label", re.IGNORECASE)
BEGINNING = 20_000  # characters of a json file, in which a record with an array is told
ARRAY = re.compile(rf"\s*\[\s*\{{[^\]\}}]*\[(\s*[-+.\deE]+\s*,){{{LONGEST_LIST // 2}}}")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVES = (".zip", ".7z", *TARS, ".gz", ".rar")


def possible_tables(data: Data) -> Iterator[dict[str, str]]:
    """Yield the keys that say which files are train.csv and the sample submission, the likeliest first: none where
    those of `data` are there or were given."""
    samples = _samples(data)
    trains = [""] if "train_csv" in data.model_fields_set or has_table(data.dir / data.train_csv) else _trains(data)
    for sample in samples[:2]:
        of_sample = {"sample_submission": sample} if sample else {}
        for train in [
            *trains,
            *(_folder_patterns(data, sample) if trains != [""] else []),
            *([""] if trains != [""] else []),
        ]:
            yield of_sample | ({"train_csv": train} if train else {})


def table_of_test_images(data: Data, sample: pd.DataFrame) -> dict[str, str]:
    """Return the keys that say which table has the columns by which test images are named; none where the sample has
    them, or none are."""
    columns, asked = set(field_names(data.image_file)) - {"image_id"}, list(sample.columns)
    columns -= set(field_names(data.id_parts or ""))
    if not columns and data.test_csv is None:
        return _table_of_file_names(data, sample)
    if not columns or columns <= set(asked) or data.test_csv is not None or data.test_image_file is not None:
        return {}
    for name in _tables(data.dir):
        if re.search("test", name, re.IGNORECASE):
            try:
                header = {column.strip() for column in read_header(data.dir / name)}
            except CompetitionError:
                continue
            if columns <= header:
                return {"test_csv": name, "test_images": data.train_images}
    return {}


def _table_of_file_names(data: Data, sample: pd.DataFrame) -> dict[str, str]:
    """Return the keys that say which table names the test images, where their ids do not and it has the same ids."""
    ids = [] if sample.empty else sample.iloc[:5, 0].tolist()
    pattern = data.test_image_file or data.image_file
    if not ids or is_there(data, data.test_images, pattern, ids[0]):
        return {}
    for name in _tables(data.dir):
        if not re.search("test", name, re.IGNORECASE) or name in (data.train_csv, data.sample_submission):
            continue
        try:
            frame = read_csv(data.dir / name, [one.strip() for one in read_header(data.dir / name)])
        except CompetitionError:
            continue
        known = next((column for column in frame if set(ids) <= set(frame[column])), None)
        rows = frame if known is None else frame[frame[known].isin(ids)]
        for column in frame if known is not None else ():
            for folder in (data.test_images, str(Path(name).parent), ".", *_folders_of_test(data)):
                if may_be_id(rows[column].iloc[0]) and all((data.dir / folder / one).is_file() for one in rows[column]):
                    return {"test_csv": name, "test_images": folder, "test_image_file": f"{{{column}}}"}
    return {}


def _folders_of_test(data: Data) -> list[str]:
    return [
        path.relative_to(data.dir).as_posix() for path in _folders(data.dir) if re.search("test", str(path.name), re.I)
    ]


def _samples(data: Data) -> list[str]:
    is_known = "sample_submission" in data.model_fields_set or has_table(data.dir / data.sample_submission)
    called = [] if is_known else [name for name in _tables(data.dir) if re.search("submission", name, re.IGNORECASE)]
    return sorted(called, key=lambda name: ("sample" not in name.lower(), len(name))) or [""]


def _trains(data: Data) -> list[str]:
    """Return the tables that may be that of training images; metadata in a folder of training images is one, too."""
    found = [
        name
        for name in _tables(data.dir)
        if not NO_TRAIN.search(name) or re.search(r"train/[^/]*$|train_?meta_?data[^/]*$", name)
    ]
    found.sort(key=lambda name: (not OF_LABELS.search(name), name.count("/"), len(name), name))
    return found[:MOST_TABLES]


def _tables(folder: Path) -> list[str]:
    """Return the files below a folder that may be tables, as paths in it."""
    found, level = list[str](), [folder]
    for _ in range(DEEPEST + 1):
        below = list[Path]()
        for place in level:
            entries = shown_in(place)[:5000]
            found += [one.relative_to(folder).as_posix() for one in entries if _is_table(one)]
            below += [one for one in entries[:200] if one.is_dir()]
        level = below[:200]
    return found


def _is_table(path: Path) -> bool:
    name = path.name.lower()
    is_packed = name.endswith((".zip", ".gz"))
    has_ending = name.endswith((".csv.zip", ".csv.gz")) if is_packed else name.endswith((".csv", *READERS))
    return has_ending and path.is_file()


def _folder_patterns(data: Data, sample: str) -> Iterator[str]:
    """Yield patterns of training images in a folder a label, under the names that the sample has for id and label."""
    try:
        header = [name.strip() for name in read_header(data.dir / (sample or data.sample_submission))]
    except (CompetitionError, OSError):
        header = []
    names = header if len(header) == 2 and all(name.isidentifier() for name in header) else ["image_id", "label"]
    parents = Counter(
        path.parent
        for path in _folders(data.dir)
        if any(one.suffix.lower() in SUFFIXES for one in _first_files(path)) and path.parent != data.dir
    )
    likely = [folder for folder, number in parents.items() if number > 1 and not re.search("test", folder.name, re.I)]
    for folder in sorted(likely, key=lambda one: (not OF_LABELS.search(one.name), len(one.parts), str(one))):
        yield f"{folder.relative_to(data.dir).as_posix()}/{{{names[1]}}}/{{{names[0]}}}"
    for folder in _folders(data.dir) if not likely else ():
        files = _first_files(folder, MOST_NAMES)
        found = [one for one in (LABEL_IN_NAME.fullmatch(file.name) for file in files) if one]
        labels = {one["label"] for one in found}
        if len(found) == len(files) and 1 < len(labels) <= MOST_LABELS and not re.search("test", folder.name, re.I):
            name = f"{{{names[1]}}}{found[0]['between']}{{{names[0]}}}{found[0]['suffix']}"
            yield f"{folder.relative_to(data.dir).as_posix()}/{name}"


def _folders(folder: Path) -> Iterator[Path]:
    for one in shown_in(folder)[:1000]:
        if one.is_dir():
            yield one
            yield from (below for below in shown_in(one)[:1000] if below.is_dir())


def shown_in(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted, without what is hidden."""
    return sorted(one for one in folder.iterdir() if not is_hidden(one.name))


def _first_files(folder: Path, number: int = 5) -> list[Path]:
    shown = (one for one in folder.iterdir() if not is_hidden(one.name))
    return [one for one, _ in zip(shown, range(number), strict=False)]


def archives(folder: Path) -> list[str]:
    """Return a line on the archives in a folder that are not unpacked: no folder beside them bears their name."""
    found = []
    for path in shown_in(folder):
        ending = next((one for one in sorted(ARCHIVES, key=len, reverse=True) if path.name.lower().endswith(one)), None)
        name = path.name[: -len(ending)] if ending else ""
        if ending and path.is_file() and not (folder / name).exists() and not name.lower().endswith(".csv"):
            found.append(path.name)
    way_on = f"competition unpack {folder}" if has_room("kaggle") else "unpack them there"
    packed = (
        [f"{folder}: packed are {', '.join(found[:8])}; images in archives are not read: {way_on}"] if found else []
    )
    arrays = [path.name for path in sorted(folder.glob("*.json")) if _has_arrays(path)]
    arrays += [path.name for path in sorted(folder.glob("*.bson"))]
    arrays = [name for name in arrays if not (folder / f"{Path(name).stem}_images").is_dir()]
    return packed + [f"{folder}: {', '.join(arrays)}: images are arrays in it; files of them: {way_on}"] * bool(arrays)


def _has_arrays(path: Path) -> bool:
    """Return whether a json file begins with a record that has a long list of numbers."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return ARRAY.match(file.read(BEGINNING)) is not None
