"""Which keys of `data:` find the images of a competition, told from its files and the ids of its csv files. No torch.

A cell of a csv file names an image where a file is called so, with or without its ending; where a folder is; or where a
file is called as the cell begins, up to `_` or `-`: what follows is a class, or the same word in all.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from pathlib import Path

import pandas as pd

from competition.config.data_settings import Data
from competition.files.file_patterns import files_below
from competition.files.image_folder import SUFFIXES, image_path, may_be_id, test_pattern
from competition.files.joined_tables import PATH
from competition.support.errors import CompetitionError

MOST_FILES = 1_000_000  # that are looked at
MOST_CELLS = 300  # of a column that files are looked for by
LEAST_SHARE = 0.5  # of the cells must name a file
OTHER_PICTURES = re.compile(r"mask|label|annot|segm|ground|truth|gt(?![a-z])|thumb", re.IGNORECASE)
IDS = ("image_id", "imageid", "id", "image", "file", "filename")  # columns of ids, in small letters
OF_TEST = re.compile(r"test", re.IGNORECASE)
OF_TRAIN = re.compile(r"train", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where images are: a folder below data.dir, and the pattern of their names in it."""

    folder: str
    pattern: str
    parts: str | None = None  # `data.id_parts`


@dataclass(frozen=True)
class _Files:
    """The images below a folder, as paths in it."""

    names: list[str]
    by_name: dict[str, list[str]]  # by the last part, with and without its ending
    by_folder: dict[str, list[str]]  # by each folder on the way

    @classmethod
    def below(cls, folder: Path) -> "_Files":
        images = (name for name in files_below(folder) if name.lower().endswith(SUFFIXES))
        names = sorted(islice(images, MOST_FILES))
        by_name, by_folder = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
        for name in names:
            *places, last = name.split("/")
            by_name[last].append(name)
            stem = last[: -len(Path(last).suffix)]
            by_name[stem].append(name)
            for place in dict.fromkeys(places):
                by_folder[place].append(name)
        return cls(names, dict(by_name), dict(by_folder))


def find_images(data: Data, train: pd.DataFrame, sample: pd.DataFrame) -> dict[str, str]:
    """Return the keys of `data:` by which the images are found, but for those that hold as they are."""
    if data.test_csv is None and _holds(data, train, sample):
        return {}
    files = _Files.below(data.dir)
    if not files.names:
        return {}
    if PATH in train and not any(train[name].is_unique for name in train if name in sample and name != PATH):
        train = train[[PATH]]  # no other column tells which file is meant
    of_train = _find(files, train, list(sample.columns), OF_TRAIN, OF_TEST)
    of_test = _find(files, sample, list(train.columns), OF_TEST, OF_TRAIN)
    is_whole = any(cell.lower().endswith(SUFFIXES) for cell in _ids(sample))  # ids have the ending
    of_train = of_train or _called(files, OF_TRAIN, of_test, is_whole)
    of_test = of_test or _called(files, OF_TEST, of_train, is_whole)
    if of_train is None or of_test is None:
        return _keys(data, of_train, of_test)
    as_train = data.model_copy(update={"id_parts": of_train.parts})
    if any(is_there(as_train, of_test.folder, of_train.pattern, cell) for cell in _ids(sample)):
        of_test = Place(of_test.folder, of_train.pattern, of_train.parts)  # one pattern for both, if it can be
    return _keys(data, of_train, of_test)


def _keys(data: Data, train: Place | None, test: Place | None) -> dict[str, str]:
    """Return the keys that differ from those of `data`."""
    either = train or test
    if either is None:
        return {}
    wanted = {
        "train_images": None if train is None else train.folder,
        "test_images": None if test is None else test.folder,
        "image_file": either.pattern,
        "test_image_file": None if test is None or test.pattern == either.pattern else test.pattern,
        "id_parts": either.parts or (None if test is None else test.parts),
    }
    return {key: value for key, value in wanted.items() if value is not None and value != getattr(data, key)}


def _holds(data: Data, train: pd.DataFrame, sample: pd.DataFrame) -> bool:
    """Return whether the images of the first rows are found by the keys as they are.

    A file name beside a column of ids, as COCO's json has both, is no id.
    """
    of_train = train[_id_columns(train, list(sample.columns)) or list(train.columns)]
    tables = ((of_train, data.train_images, data.image_file), (sample, data.test_images, test_pattern(data)))
    return all(
        frame.empty or any(is_there(data, folder, pattern, cell) for cell in _ids(frame))
        for frame, folder, pattern in tables
    )


def _likely_first(frame: pd.DataFrame, others: Sequence[str]) -> list[str]:
    """Return the columns of a table, first those that the other one has, too, and that are called as ids are."""
    return sorted(frame.columns, key=lambda name: (name not in others, name.lower() not in IDS))


def _id_columns(frame: pd.DataFrame, others: Sequence[str]) -> list[str]:
    """Return the column that is that of ids by its name, if there is one."""
    return [name for name in _likely_first(frame, others) if name in others or name.lower() in IDS][:1]


def is_there(data: Data, folder: str, pattern: str, cell: str) -> bool:
    """Return whether a pattern names a file by an id alone; where columns name it, too, they are not known here."""
    try:
        return image_path(data, folder, pattern, cell).is_file()
    except (CompetitionError, KeyError, OSError):
        return False


def _ids(frame: pd.DataFrame) -> list[str]:
    """Return the cells of the first row that may be an image's id."""
    return [] if frame.empty else [cell for cell in frame.iloc[0] if may_be_id(cell)]


def _find(
    files: _Files, frame: pd.DataFrame, others: Sequence[str], mine: re.Pattern[str], not_mine: re.Pattern[str]
) -> Place | None:
    """Return where the images are that a column names: of those that the other table has, too, or of any."""
    columns, ids = _likely_first(frame, others), _id_columns(frame, others)
    for column in columns:
        cells = [cell for cell in frame[column].unique().tolist() if may_be_id(cell)]
        if column not in ids and len(cells) < LEAST_SHARE * len(frame):  # labels, which files may be called by, too
            continue
        cells = cells[:: -(-len(cells) // MOST_CELLS) or 1]
        # A folder that is called as a label is no image's.
        within = files if column in (ids or columns[:1]) else replace(files, by_folder={})
        found = _named_by(within, cells, mine, not_mine)
        if (by_parts := _by_parts(within, cells, mine, not_mine)) is not None:
            return by_parts
        if not found or len(found) < LEAST_SHARE * len(cells) or len(set(found.values())) < min(2, len(cells)):
            continue
        place = _place(found, column if ids and column not in ids and column.isidentifier() else None)
        if place is not None:
            return place
    return None


def _named_by(
    files: _Files, cells: Sequence[str], mine: re.Pattern[str], not_mine: re.Pattern[str]
) -> dict[tuple[str, str], str]:
    """Return by cell and what of it names a file the path of that file, the likeliest where there are several."""
    found: dict[tuple[str, str], str] = {}
    for cell in cells:
        for text in _beginnings(cell):
            last = text.rpartition("/")[2]
            paths = [path for path in files.by_name.get(last, []) if _ends_so(path, text)]
            paths = paths or files.by_folder.get(text, [])
            if paths:
                found[cell, text] = min(paths, key=lambda path: (*_rank(path, mine, not_mine), path))
                break
    return found


def _beginnings(cell: str) -> Iterator[str]:
    """Yield a cell, and what of it stands before each `_` and `-`, the longest first."""
    yield cell
    for match in reversed(list(re.finditer(r"(?<=[^_-])[_-]+", cell))):
        if match.start() > 2:
            yield cell[: match.start()]


def _ends_so(path: str, text: str) -> bool:
    ending = f"/{text}"
    return f"/{path}".endswith(ending) or f"/{path}".removesuffix(Path(path).suffix).endswith(ending)


def _rank(path: str, mine: re.Pattern[str], not_mine: re.Pattern[str]) -> tuple[bool, bool, bool]:
    folder = path.rpartition("/")[0]
    return not_mine.search(folder) is not None, OTHER_PICTURES.search(path) is not None, mine.search(folder) is None


def _place(found: dict[tuple[str, str], str], column: str | None) -> Place | None:
    """Return the folder and the pattern of files by what names them."""
    after = {cell[len(text) :] for cell, text in found}
    parts = f"{{name}}{next(iter(after))}" if len(after) == 1 and after != {""} else None
    field = f"{{{column}}}" if column else "{name}" if parts else "{image_id}"
    patterns = Counter[tuple[str, str]]()
    for (_, text), path in found.items():
        patterns[_generalised(path, text, field)] += 1
    folders, names = {folder for folder, _ in patterns}, {name for _, name in patterns}
    if len(names) > 1:  # of several endings: what most are called
        names = {max(names, key=lambda name: sum(n for (_, one), n in patterns.items() if one == name))}
    (name,) = names
    common = _common_folder(folders)
    return Place(common or ".", _below(common, folders, found, field) + name, parts)


def _by_parts(files: _Files, cells: Sequence[str], mine: re.Pattern[str], not_mine: re.Pattern[str]) -> Place | None:
    """Return where images are of which a folder is called as ids begin, and the file as they go on:
    `case1/case1_day2/scans/slice_0003_68_60.png` of case1_day2_slice_0003."""
    tokens = [cell.split("_") for cell in cells]
    if not tokens or len(tokens[0]) < 3 or len({len(each) for each in tokens}) > 1:
        return None
    varies = [len(set(column)) > 1 for column in zip(*tokens, strict=True)]
    fields = [
        f"{{part{at + 1}}}" if changes else text
        for at, (text, changes) in enumerate(zip(tokens[0], varies, strict=True))
    ]
    found = Counter[tuple[str, str]]()
    for cell, words in zip(cells, tokens, strict=True):
        path = _path_by_parts(files, cell, mine, not_mine)
        if path is not None:
            *folders, last = path.split("/")
            at = next(number for number, name in enumerate(folders) if words[0] in name.split("_"))
            named = dict(zip(words, fields, strict=True))
            inside = ["_".join(named.get(word, word) for word in name.split("_")) for name in folders[at:]]
            rest = cell[len(next(name for name in reversed(folders) if cell.startswith(f"{name}_"))) + 1 :]
            begin = "_".join(named[word] for word in rest.split("_"))
            more = last[len(rest) : -len(Path(last).suffix)]
            found["/".join(folders[:at]), "/".join([*inside, f"{begin}{'_*' if more else ''}{Path(last).suffix}"])] += 1
    if not found or sum(found.values()) < LEAST_SHARE * len(cells):
        return None
    (folder, pattern), _ = found.most_common(1)[0]
    return Place(folder or ".", pattern, "_".join(fields))


def _path_by_parts(files: _Files, cell: str, mine: re.Pattern[str], not_mine: re.Pattern[str]) -> str | None:
    for text in list(_beginnings(cell))[1:]:
        rest = cell[len(text) + 1 :]
        inside = [
            path
            for path in files.by_folder.get(text, [])
            if re.match(rf"{re.escape(rest)}[_.]", path.rpartition("/")[2])
        ]
        if inside:
            return min(inside, key=lambda path: (*_rank(path, mine, not_mine), path))
    return None


def _generalised(path: str, text: str, field: str) -> tuple[str, str]:
    """Return the folder of a file that a text names, and its name from there, with a field for the text."""
    folder, _, last = path.rpartition("/")
    if text in folder.split("/"):  # a folder is called so
        places = path.split("/")
        at = places.index(text)
        return "/".join(places[:at]), "/".join([field, *places[at + 1 :]]).replace(text, field)
    if "/" in text:
        at = f"/{path}".rindex(f"/{text}")
        return path[:at].rstrip("/"), path[at:].replace(text, field, 1)
    return folder, last.replace(text, field, 1)


def _common_folder(folders: set[str]) -> str:
    levels = zip(*(folder.split("/") for folder in folders), strict=False)
    common = takewhile(lambda names: len(set(names)) == 1, levels)
    return "/".join(names[0] for names in common)


def _below(common: str, folders: set[str], found: dict[tuple[str, str], str], field: str) -> str:
    """Return what stands between the folder that all are in and the files: nothing, a letter of the id, or any."""
    depths = {len(folder.split("/")) - len(common.split("/")) * bool(common) for folder in folders if folder != common}
    if not depths:
        return ""
    inside = [(text, path[len(common) :].lstrip("/").split("/")[0]) for (_, text), path in found.items()]
    if depths == {1} and common not in folders and all(place == text[:1] for text, place in inside):
        return f"{field[:-1]}[0]}}/"
    return "*/" * depths.pop() if len(depths) == 1 and common not in folders else "**/"


def _called(files: _Files, mine: re.Pattern[str], other: Place | None, is_whole: bool) -> Place | None:
    """Return the place of images that no csv file names: the folder called so that has most, of the other ones' ending
    where that is known."""
    suffix = None if other is None else Path(other.pattern).suffix or None
    names = [name for name in files.names if not OTHER_PICTURES.search(name) and suffix in (None, Path(name).suffix)]
    folders = Counter(name.rpartition("/")[0] for name in names)
    called = [folder for folder in folders if mine.search(folder)]
    if other is None and not called and mine is OF_TRAIN:
        called = [folder for folder in folders if folder.rpartition("/")[2] == "images"]
    best = max(called, key=lambda folder: folders[folder], default=None)
    if best is None:
        return None
    if other is not None:
        return Place(best, other.pattern.rpartition("/")[2], other.parts)
    suffixes = Counter(Path(name).suffix for name in names if name.rpartition("/")[0] == best)
    return Place(best, "{image_id}" + ("" if is_whole else suffixes.most_common(1)[0][0]))
