"""How the columns of a csv file make an image id and a class: apart, or joined as in `img.jpg_Fish`. No torch."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import AfterValidator

from competition.config.section import names_in
from competition.files.csv_file import row_faults
from competition.support.errors import CompetitionError

PARTS = ("image_id", "class_id")


def _check_patterns(keys: dict[str, str]) -> dict[str, str]:
    names = [name for pattern in keys.values() for name in names_in(pattern)]
    if names.count("image_id") != 1 or names.count("class_id") > 1 or set(names) - set(PARTS):
        raise ValueError(
            "expected {image_id} once and {class_id} at most once, as in 'Image_Label': '{image_id}_{class_id}'"
        )
    return keys


# By column, how its text is put together from {image_id} and {class_id}.
Keys = Annotated[dict[str, str], AfterValidator(_check_patterns)]


def split_keys(
    frame: pd.DataFrame, keys: Keys, path: Path, classes: Sequence[str] = ()
) -> tuple[pd.Series, pd.Series | None]:
    """Return the image id of each row, and its class where the columns tell it.

    Where an id is joined from both, the class is one of `classes` if it can be, as `patient_overall`, else what stands
    behind the last separator. Raises CompetitionError that names the rows that do not follow the pattern.
    """
    found: dict[str, pd.Series] = {}
    for column, pattern in keys.items():
        names = re.findall(r"\{(\w+)\}", pattern)
        if pattern in [f"{{{name}}}" for name in names]:
            found[names[0]] = frame[column]
            continue
        parts = frame[column].str.extract(_expression(pattern))
        if classes and "class_id" in names:
            parts.update(frame[column].str.extract(_expression(pattern, classes)))
        faults = row_faults(path, np.flatnonzero(parts.isna().any(axis=1)), frame[column], f"expected {pattern!r}")
        if faults:
            raise CompetitionError("\n".join(faults))
        found |= {name: parts[name] for name in names}
    return found["image_id"].rename("image_id"), found.get("class_id")


def join_keys(keys: Keys, image_id: str, class_id: str = "") -> list[str]:
    """Return the values of the key columns of one row: the inverse of `split_keys`."""
    return [pattern.format(image_id=image_id, class_id=class_id) for pattern in keys.values()]


def has_class(keys: Keys) -> bool:
    """Return whether the key columns tell a class."""
    return any("{class_id}" in pattern for pattern in keys.values())


def _expression(pattern: str, classes: Sequence[str] = ()) -> str:
    """Turn a pattern into a regular expression; the first part takes as much as it can, but for one of `classes`, of
    which the longest is taken."""
    pieces: Sequence[str] = re.split(r"(\{\w+\})", pattern)
    known = "|".join(re.escape(name) for name in sorted(classes, key=len, reverse=True))
    texts = {"{image_id}": "(?P<image_id>.+?)" if classes else "(?P<image_id>.+)"}
    texts["{class_id}"] = f"(?P<class_id>{known or '.+'})"
    return "^" + "".join(texts.get(piece, re.escape(piece)) for piece in pieces) + "$"
