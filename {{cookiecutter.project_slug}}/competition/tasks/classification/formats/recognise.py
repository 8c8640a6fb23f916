"""Which `format:` the files of a competition have, by their columns and first rows. No torch."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from competition.config.data_settings import Data
from competition.config.loading import format_presets
from competition.config.settings import Config
from competition.files.csv_file import NUMBER
from competition.files.file_patterns import field_names, files_below
from competition.files.image_folder import SUFFIXES
from competition.files.joined_tables import AND, PATH
from competition.tasks.classification.formats.answers import OTHER_SEPARATORS, joined_labels, parted
from competition.tasks.contract import Table

# Columns of masks and boxes, of which other tasks know more.
OTHERS = re.compile(r"rle|encod|segment|annotation|bbox|mask|predictionstring|^x$|^y$|^x_?min$", re.IGNORECASE)
FEW = 20  # distinct whole numbers: up to so many are classes, more are a quantity
BETWEEN = re.compile(r"_+|-+")  # image and class in an id
ID_NAMES = ("imageid", "image", "id", "file", "filename", "imagename", "path", "img")  # without _ and blanks
# Of two words the one that says there is nothing.
NO_WORDS = re.compile(
    r"(no|none|not|non|false|real|negative|normal|healthy|benign|absent|empty|background|clean)\b.*", re.I
)


def recognise(train: pd.DataFrame, sample: pd.DataFrame, data: Data | None = None) -> dict[str, Any] | None:
    """Return the part of a config that reads these files: a known competition by its columns, else what they show."""
    return next(iter(readings(train, sample, data)), None)


def readings(train: pd.DataFrame, sample: pd.DataFrame, data: Data | None = None) -> list[dict[str, Any]]:
    """Return all that fit, the likeliest first."""
    train, sample = _stripped(train), _stripped(sample)
    if any(OTHERS.search(column) for column in [*train.columns, *sample.columns]) or len(sample.columns) < 2:
        return []
    known = _preset(train, sample)
    found = [known] if known is not None else _by_content(train, sample)
    return [*(every for one in found for every in _of_every_file(one, train, data)), *found]


def settle(config: Config, table: Table) -> tuple[dict[str, Any], list[str]]:
    """Return nothing: columns and rows tell all there is."""
    return {}, []


def _of_every_file(form: dict[str, Any], train: pd.DataFrame, data: Data | None) -> list[dict[str, Any]]:
    """Return the settings by which each file of a folder that an id names is an image, and the id is answered by the
    mean of its files'; none where an id names a single file."""
    if data is None or isinstance(form["format"], str) or train.empty:
        return []
    first, *rest = data.image_file.split("/")
    keys = form["format"]["train"]["keys"]
    column, pattern = next((pair for pair in keys.items() if "{image_id}" in pair[1]), ("", ""))
    if (
        first != "{image_id}"
        or pattern != first
        or not rest
        or not column.isidentifier()
        or field_names("/".join(rest))
    ):
        return []
    suffix = Path(rest[-1]).suffix
    folders = (data.dir / data.train_images / str(one) for one in train[column].unique()[:FEW])
    if all(sum(Path(name).suffix == suffix for name in files_below(folder)) < 2 for folder in folders):
        return []
    files = "/".join([f"{{{column}}}", *("*" for _ in rest[1:]), f"*{suffix}"])
    asked = form["format"].get("submission", {})
    grouped = {
        **form["format"],
        "train": {**form["format"]["train"], "keys": {PATH: "{image_id}"}},
        "submission": {"keys": {column: "{image_id}"}, **asked},
        "group": f"{{{column}}}",
        "test_csv": f"{data.test_images}/{files}",
    }
    of_data = {"train_csv": f"{data.train_csv}{AND}{data.train_images}/{files}", "image_file": "{image_id}"}
    return [form | {"data": form.get("data", {}) | of_data, "format": grouped}]


def _stripped(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns=lambda name: str(name).strip())


# Columns of train.csv that must be there, and those of the sample, by known competition.
COLUMNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "melanoma": (("image_name", "patient_id", "target"), ("image_name", "target")),
    "rsna_breast": (("patient_id", "image_id", "laterality", "cancer"), ("prediction_id", "cancer")),
    "plant2020": (
        ("image_id", "healthy", "multiple_diseases", "rust", "scab"),
        ("image_id", "healthy", "multiple_diseases", "rust", "scab"),
    ),
    "hpa": (("Id", "Target"), ("Id", "Predicted")),
    "happywhale": (("image", "individual_id"), ("image", "predictions")),
    "bengali": (("image_id", "grapheme_root", "vowel_diacritic", "consonant_diacritic"), ("row_id", "target")),
    "petfinder": (("Id", "Pawpularity"), ("Id", "Pawpularity")),
}


def _preset(train: pd.DataFrame, sample: pd.DataFrame) -> dict[str, Any] | None:
    for name, (needed, asked) in COLUMNS.items():
        if set(needed) <= set(train.columns) and tuple(sample.columns) == asked:
            return _named(name)
    names = ["image", "labels"]
    if list(train.columns) == list(sample.columns) == names and train["labels"].str.strip().str.contains(" ").any():
        return _named("plant2021")
    return None


def _named(name: str) -> dict[str, Any]:
    """Return a known format by its name, which stands for its settings."""
    assert name in format_presets("classification")
    return {"format": name}


def _by_content(train: pd.DataFrame, sample: pd.DataFrame) -> list[dict[str, Any]]:
    """Tell the layouts from the texts of the columns."""
    id_column = next((name for name in sample.columns if name in train.columns), None)
    if id_column is None:
        return _asked_by_rows(train, sample) or _under_other_names(train, sample)
    if PATH in train and id_column != PATH and not train[id_column].is_unique:  # files of several folders, or labels
        return _by_paths(train, sample, str(id_column))
    values = [name for name in sample.columns if name != id_column]
    if len(values) > 1:
        return _table(train, id_column, values)
    if values[0] in train.columns and (found := _long(train, id_column, values[0])):
        return [found]
    return _one_column(train, sample, id_column, values[0])


def _by_paths(train: pd.DataFrame, sample: pd.DataFrame, asked: str) -> list[dict[str, Any]]:
    """Recognise a table of file names whose field that is called as the ids tells not which file is meant."""
    found = _by_content(train.drop(columns=asked).rename(columns={PATH: asked}), sample)
    for one in found if not any(isinstance(one["format"], str) for one in found) else ():
        one["format"]["train"]["keys"] = _keys(PATH)
        one["format"]["submission"] = {"keys": _keys(asked), **one["format"].get("submission", {})}
    return [one for one in found if not isinstance(one["format"], str)]


def _under_other_names(train: pd.DataFrame, sample: pd.DataFrame) -> list[dict[str, Any]]:
    """Recognise ids that the sample has under another name than train.csv."""
    asked = str(sample.columns[0])
    called = [name for name in train.columns if re.sub(r"[_\s]", "", name.lower()) in ID_NAMES]
    is_whole = _has_ending(sample[asked])
    called.sort(key=lambda name: (name.lower() != asked.lower(), _has_ending(train[name]) != is_whole))
    ids = next(iter(called), None)
    if ids is None or asked in train.columns:
        return []
    found = _by_content(train, sample.rename(columns={asked: ids}))
    for one in found:
        if isinstance(one["format"], str):  # a known competition has its own names
            return []
        layout = one["format"].setdefault("submission", {})
        keys = one["format"]["train"]["keys"]
        one["format"]["submission"] = {"keys": {asked: keys[ids]}, **layout}
    return found


def _has_ending(texts: pd.Series) -> bool:
    return not texts.empty and Path(str(texts.iloc[0])).suffix.lower() in SUFFIXES


def _asked_by_rows(train: pd.DataFrame, sample: pd.DataFrame) -> list[dict[str, Any]]:
    """Recognise a column a class in train.csv, and a row an image and class in the sample."""
    row_id, *values = sample.columns
    parts = _parted_ids(sample[row_id])
    if parts is None or len(values) != 1 or not set(parts[1]) <= set(train.columns):
        return []
    between, classes = parts
    texts, left = train[classes], [name for name in train.columns if name not in classes]
    id_column = next((name for name in left if train[name].is_unique), None)
    if id_column is None or not (_are_flags(texts) or _are_numbers(texts)):
        return []
    form = {
        "target": "multi" if _are_flags(texts) else "regression",
        "train": {"keys": _keys(id_column), "layout": "columns"},
        "submission": {"keys": {row_id: f"{{image_id}}{between}{{class_id}}"}, "layout": "rows"},
    }
    return [{"data": {"classes": classes}, "format": form}]


def _table(train: pd.DataFrame, id_column: str, classes: list[str]) -> list[dict[str, Any]]:
    """Recognise a column a class in the sample: the same in train.csv, or a column of labels there."""
    if set(classes) <= set(train.columns):
        texts = train[classes]
        layout = {"keys": _keys(id_column), "layout": "columns"}
        if not _are_flags(texts):
            return [{"format": {"target": "regression", "train": layout}}] if _are_numbers(texts) else []
        is_single = (texts.isin(TRUE_WORDS).sum(axis=1) == 1).all()
        return [{"format": {"target": "single" if is_single else "multi", "train": layout}}]
    for column in train.columns:
        labels = set(train[column]) - {""}
        # Others than the sample's are a mistake, which is told with its line when this is tried.
        if column != id_column and 2 * len(labels & set(classes)) > len(labels):
            return [_of_labels(id_column, column, {})]
    return []


def _parted_ids(ids: pd.Series) -> tuple[str, list[str]] | None:
    """Return what stands between image and class in ids, and the classes: every image has each, at most the last of
    the first rows was cut off."""
    texts = [str(text) for text in ids]
    for match in BETWEEN.finditer(texts[0]) if texts else ():
        begin = texts[0][: match.end()]
        classes = list(dict.fromkeys(text[match.end() :] for text in texts if text.startswith(begin)))
        ends = tuple(f"{match[0]}{name}" for name in classes)
        if not 1 < len(classes) <= FEW or not all(text.endswith(ends) for text in texts):
            continue
        longest = sorted(ends, key=len, reverse=True)
        images = {text.removesuffix(next(end for end in longest if text.endswith(end))) for text in texts}
        if len(images) > 1 and len(images) * len(classes) - len(set(texts)) < len(classes):
            return match[0], classes
        if len(images) == 1 and len(classes) == len(texts) and not any(name[:1].isdigit() for name in classes):
            return match[0], classes
    return None


def _long(train: pd.DataFrame, id_column: str, value: str) -> dict[str, Any] | None:
    parts = _parted_ids(train[id_column])
    if parts is None:
        return None
    if (id_column, value) == ("ID", "Label"):
        return _named("rsna_hemorrhage")
    is_flag = _are_flags(train[[value]])
    if not is_flag and not _are_numbers(train[[value]]):
        return None
    between, classes = parts
    form: dict[str, Any] = {
        "target": "multi" if is_flag else "regression",
        "train": {"keys": {id_column: f"{{image_id}}{between}{{class_id}}"}, "layout": "rows", "column": value},
        "submission": {"layout": "rows"},
    }
    if "any" in classes:
        form["class_weights"] = {"any": 2}
    return {"format": form} | ({"data": {"classes": classes}} if any(between in name for name in classes) else {})


def _one_column(train: pd.DataFrame, sample: pd.DataFrame, id_column: str, value: str) -> list[dict[str, Any]]:
    """Recognise one column of answers by what train.csv has in that of the same name, or in its likeliest one."""
    column = value if value in train.columns else _label_column(train, id_column, _are_numbers(sample[[value]]))
    if column is None:
        return []
    texts, asked = train[column], sample[value]
    if (separator := _separator(texts)) is not None:
        return [_of_label_strings(id_column, column, separator, texts)]
    if (top := _most_words(asked)) > 1 and _most_words(texts) == 1:
        return [_of_labels(id_column, column, {"layout": "top", "top": top})]
    if _are_flags(train[[column]]):
        layout = {"keys": _keys(id_column), "layout": "columns"}
        return [{"data": {"classes": [column]}, "format": {"target": "multi", "train": layout}}]
    if _are_numbers(train[[column]]):
        if texts.nunique() > FEW or texts.str.contains(r"\.").any():
            layout = {"keys": _keys(id_column), "layout": "columns"}
            return [{"data": {"classes": [column]}, "format": {"target": "regression", "train": layout}}]
    elif texts.nunique() == 2 and _are_numbers(sample[[value]]):
        return _of_two_words(id_column, column, sorted(set(texts)))
    return [_of_labels(id_column, column, {"layout": "label"})]


def _of_two_words(id_column: str, column: str, words: list[str]) -> list[dict[str, Any]]:
    """Return two readings: the sample asks for a number, the probability of one of two words."""
    layout: dict[str, Any] = {"keys": _keys(id_column), "layout": "label_string", "column": column, "separator": "|"}
    form = {"target": "multi", "train": layout, "submission": {"layout": "columns"}}
    absent = sorted(words, key=lambda word: NO_WORDS.fullmatch(word) is None)
    return [{"format": form | {"none": word}} for word in absent]


def _separator(texts: pd.Series) -> str | None:
    """Return what parts the labels of a text; none where a text is one label, which may have blanks."""
    distinct = [str(text).strip() for text in texts.unique() if str(text).strip()]
    for separator in OTHER_SEPARATORS:
        if joined_labels(distinct, separator):
            return separator
    words = {word for text in distinct for word in text.split()}
    several = [text for text in distinct if len(text.split()) > 1]
    if not several:
        return None
    stand_alone = any(set(text.split()) <= set(distinct) for text in several)
    is_parted = stand_alone or len(distinct) > len(words) or all(NUMBER.fullmatch(word) for word in words)
    return " " if is_parted else None


def _label_column(train: pd.DataFrame, id_column: str, are_numbers: bool) -> str | None:
    """Return the column that is left beside the ids, or the first that is called like a label, of numbers where such
    are asked for."""
    others = [name for name in train.columns if name != id_column]
    called = re.compile(r"label|target|class|categor|individual|diagnos|disease", re.IGNORECASE)
    labels = [name for name in others if called.search(name)]
    labels.sort(key=lambda name: _are_numbers(train[[name]]) != are_numbers)
    return others[0] if len(others) == 1 else next(iter(labels), None)


def _of_labels(id_column: str, column: str, submission: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a label an image, by name where they are those of a known format."""
    if (id_column, column) == ("image_id", "label") and submission in ({}, {"layout": "label"}):
        return _named("cassava" if submission else "sample")
    form: dict[str, Any] = {"target": "single", "train": {"keys": _keys(id_column), "column": column}}
    return {"format": form | ({"submission": submission} if submission else {})}


def _of_label_strings(id_column: str, column: str, separator: str, texts: pd.Series) -> dict[str, Any]:
    layout = {"keys": _keys(id_column), "layout": "label_string", "column": column}
    layout |= {} if separator == " " else {"separator": separator}
    form = {"target": "multi", "train": layout, "submission": {"layout": "label_string"}}
    labels = [parted(text, separator) for text in texts.unique()]
    beside = {label for each in labels if len(each) > 1 for label in each}
    alone = sorted({each[0] for each in labels if len(each) == 1} - beside)
    none = next((label for label in alone if NO_WORDS.fullmatch(label) and separator != " "), None)
    return {"format": form if none is None else form | {"none": none}}


def _most_words(texts: pd.Series) -> int:
    return max((len(str(text).split()) for text in texts), default=0)


def _keys(id_column: str) -> dict[str, str]:
    return {id_column: "{image_id}"}


TRUE_WORDS, FALSE_WORDS = ("1", "1.0", "True", "true", "TRUE"), ("0", "0.0", "False", "false", "FALSE")


def _are_flags(texts: pd.DataFrame) -> bool:
    return bool(texts.isin([*TRUE_WORDS, *FALSE_WORDS]).all(axis=None))


def _are_numbers(texts: pd.DataFrame) -> bool:
    return all(NUMBER.fullmatch(str(text)) for column in texts.columns for text in texts[column])
