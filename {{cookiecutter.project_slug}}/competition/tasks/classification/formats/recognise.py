"""Which `format:` the files of a competition have, by their columns and first rows. No torch."""

import re
from typing import Any

import pandas as pd

from competition.config.data_settings import Data
from competition.config.loading import format_presets
from competition.files.csv_file import NUMBER

# Columns of masks and boxes, of which other tasks know more.
OTHERS = re.compile(r"rle|encod|pixels|segment|annotation|bbox|mask|predictionstring|^x$|^y$|^x_?min$", re.IGNORECASE)
FEW = 20  # distinct whole numbers: up to so many are classes, more are a quantity
LONG_ID = re.compile(r"^(.+)_([^_]+)$")


def recognise(train: pd.DataFrame, sample: pd.DataFrame, data: Data | None = None) -> dict[str, Any] | None:
    """Return the part of a config that reads these files: a known competition by its columns, else what they show."""
    train, sample = _stripped(train), _stripped(sample)
    if any(OTHERS.search(column) for column in [*train.columns, *sample.columns]) or len(sample.columns) < 2:
        return None
    return _preset(train, sample) or _by_content(train, sample)


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
    "petfinder": (("Id", "Pawpularity"), ("Id", "Pawpularity")),
}


def _preset(train: pd.DataFrame, sample: pd.DataFrame) -> dict[str, Any] | None:
    for name, (needed, asked) in COLUMNS.items():
        if set(needed) <= set(train.columns) and tuple(sample.columns) == asked:
            return _named(name)
    return None


def _named(name: str) -> dict[str, Any]:
    """Return a known format by its name, which stands for its settings."""
    assert name in format_presets("classification")
    return {"format": name}


def _by_content(train: pd.DataFrame, sample: pd.DataFrame) -> dict[str, Any] | None:
    """Tell the layouts from the texts of the columns."""
    id_column = next((name for name in sample.columns if name in train.columns), None)
    if id_column is None:
        return None
    values = [name for name in sample.columns if name != id_column]
    if len(values) > 1:
        return _table(train, id_column, values)
    if _is_long(train[id_column]) and values[0] in train.columns:
        return _long(train, id_column, values[0])
    return _one_column(train, sample, id_column, values[0])


def _table(train: pd.DataFrame, id_column: str, classes: list[str]) -> dict[str, Any] | None:
    """Recognise a column a class in the sample: the same in train.csv, or a column of labels there."""
    if set(classes) <= set(train.columns):
        texts = train[classes]
        layout = {"keys": _keys(id_column), "layout": "columns"}
        if not _are_flags(texts):
            return {"format": {"target": "regression", "train": layout}} if _are_numbers(texts) else None
        is_single = (texts.apply(pd.to_numeric).sum(axis=1) == 1).all()
        return {"format": {"target": "single" if is_single else "multi", "train": layout}}
    for column in train.columns:
        labels = set(train[column]) - {""}
        if column != id_column and labels and labels <= set(classes):
            return _of_labels(id_column, column, {})
    return None


def _is_long(ids: pd.Series) -> bool:
    parts = ids.str.extract(LONG_ID)
    # Each image has several rows, and all have the same few endings.
    return bool(parts.notna().all(axis=None)) and parts[0].nunique() < len(ids) and 1 < parts[1].nunique() <= FEW


def _long(train: pd.DataFrame, id_column: str, value: str) -> dict[str, Any] | None:
    if (id_column, value) == ("ID", "Label"):
        return _named("rsna_hemorrhage")
    is_flag = _are_flags(train[[value]])
    if not is_flag and not _are_numbers(train[[value]]):
        return None
    keys = {id_column: "{image_id}_{class_id}"}
    form: dict[str, Any] = {
        "target": "multi" if is_flag else "regression",
        "train": {"keys": keys, "layout": "rows", "column": value},
        "submission": {"layout": "rows"},
    }
    if "any" in set(train[id_column].str.extract(LONG_ID)[1]):
        form["class_weights"] = {"any": 2}
    return {"format": form}


def _one_column(train: pd.DataFrame, sample: pd.DataFrame, id_column: str, value: str) -> dict[str, Any] | None:
    """Recognise one column of answers by what train.csv has in that of the same name, or in its likeliest one."""
    column = value if value in train.columns else _label_column(train, id_column)
    if column is None:
        return None
    texts = train[column]
    if _most_words(texts) > 1:
        return _of_label_strings(id_column, column)
    if (top := _most_words(sample[value])) > 1:
        return _of_labels(id_column, column, {"layout": "top", "top": top})
    if _are_flags(train[[column]]):
        layout = {"keys": _keys(id_column), "layout": "columns"}
        return {"data": {"classes": [column]}, "format": {"target": "multi", "train": layout}}
    if _are_numbers(train[[column]]) and (texts.nunique() > FEW or texts.str.contains(r"\.").any()):
        layout = {"keys": _keys(id_column), "layout": "columns"}
        return {"data": {"classes": [column]}, "format": {"target": "regression", "train": layout}}
    return _of_labels(id_column, column, {"layout": "label"})


def _label_column(train: pd.DataFrame, id_column: str) -> str | None:
    """Return the column that is left beside the ids, or the first that is called like a label."""
    others = [name for name in train.columns if name != id_column]
    called = re.compile(r"label|target|class|categor|individual|diagnos|disease", re.IGNORECASE)
    return others[0] if len(others) == 1 else next((name for name in others if called.search(name)), None)


def _of_labels(id_column: str, column: str, submission: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a label an image, by name where they are those of a known format."""
    if (id_column, column) == ("image_id", "label") and submission in ({}, {"layout": "label"}):
        return _named("cassava" if submission else "sample")
    form: dict[str, Any] = {"target": "single", "train": {"keys": _keys(id_column), "column": column}}
    return {"format": form | ({"submission": submission} if submission else {})}


def _of_label_strings(id_column: str, column: str) -> dict[str, Any]:
    if (id_column, column) == ("image", "labels"):
        return _named("plant2021")
    layout = {"keys": _keys(id_column), "layout": "label_string", "column": column}
    return {"format": {"target": "multi", "train": layout, "submission": {"layout": "label_string"}}}


def _most_words(texts: pd.Series) -> int:
    return max((len(str(text).split()) for text in texts), default=0)


def _keys(id_column: str) -> dict[str, str]:
    return {id_column: "{image_id}"}


def _are_flags(texts: pd.DataFrame) -> bool:
    return bool(texts.isin(["0", "1", "0.0", "1.0", "True", "False"]).all(axis=None))


def _are_numbers(texts: pd.DataFrame) -> bool:
    return all(NUMBER.fullmatch(str(text)) for column in texts.columns for text in texts[column])
