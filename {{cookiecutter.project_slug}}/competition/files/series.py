"""Series: images of a group that are one sample, which the network joins (`model.join` with `format.group`). No torch.

Folds and `check` look at a series' images one by one; tables, samples and predictions are of whole groups.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from competition.config.section import IN_BRACES, names_in
from competition.config.settings import Config
from competition.files.csv_file import read_csv
from competition.files.csv_keys import split_keys
from competition.files.joined_tables import TableState, state_of_table
from competition.support.errors import CompetitionError

AnyConfig = TypeVar("AnyConfig", bound=Config)
Members = Mapping[str, list[str]]


def is_series(config: Config) -> bool:
    """Return whether a sample is a group of images."""
    return getattr(config.model, "join", None) is not None


def one_by_one(config: AnyConfig) -> AnyConfig:
    """Return the config by which the images of series are samples by themselves; any other as it is."""
    if not is_series(config):
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"join": None})})


def members(config: Config, *, of_test: bool) -> Members:
    """Return the images of each group, in the order of the table that names them."""
    path = config.data.dir / config.format.test_csv if of_test else config.train_csv
    keys = tuple((column, key) for column, key in (config.train_keys or {}).items() if "{image_id}" in key)
    return _members(path, keys, config.format.group, state_of_table(path))


def images_of_groups(config: Config, groups: np.ndarray | list[str], *, of_test: bool) -> Members:
    """Return the images of some groups; raise CompetitionError for one without."""
    known = members(config, of_test=of_test)
    if lost := next((group for group in groups if group not in known), None):
        name = config.format.test_csv if of_test else config.data.train_csv
        raise CompetitionError(f"{config.data.dir / name}: has no image of group {lost!r} (format.group)")
    return {group: known[group] for group in groups}


def describe_groups(config: Config) -> list[str]:
    """Say how many images the groups of train.csv have; nothing where samples are single images."""
    if not is_series(config):
        return []
    sizes = [len(images) for images in members(config, of_test=False).values()]
    drawn = config.data.group_images
    return [
        f"groups: {len(sizes)} of {min(sizes)} to {max(sizes)} images; training draws {drawn} of a larger one "
        "(data.group_images)"
    ]


def image_of(config: Config, item: str) -> str:
    """Return the image that stands for an item of train.csv: of a series its first one."""
    return members(config, of_test=False)[item][0] if is_series(config) else item


def group_names(frame: pd.DataFrame, pattern: str) -> np.ndarray:
    """Return (n,) str: the group of each row of a frame that has the columns of a pattern, as `{patient}_{side}`."""
    template = IN_BRACES.sub("{}", pattern)
    columns = (frame[column] for column in names_in(pattern))
    return np.array([template.format(*row) for row in zip(*columns, strict=True)], dtype=object)


@lru_cache(maxsize=4)
def _members(path: Path, keys: tuple[tuple[str, str], ...], pattern: str, changed: TableState) -> Members:
    frame = read_csv(path, list(dict.fromkeys([*(column for column, _ in keys), *names_in(pattern)])))
    ids, _ = split_keys(frame, dict(keys), path)
    found: dict[str, list[str]] = {}
    for group, image_id in dict.fromkeys(zip(group_names(frame, pattern), ids, strict=True)):
        found.setdefault(group, []).append(image_id)
    return found
