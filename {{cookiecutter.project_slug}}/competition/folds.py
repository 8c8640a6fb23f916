"""`competition folds CONFIG`: which image is validated in which fold, written to folds.csv. No torch."""

from pathlib import Path

import numpy as np
import pandas as pd

from competition.csv_file import read_csv, read_image_column
from competition.errors import CompetitionError
from competition.files import write_csv
from competition.places import here
from competition.settings import Config
from competition.task import Table, Task

COLUMNS = ("image_id", "fold")


def folds_path(config: Config) -> Path:
    """Return where folds.csv stands: beside train.csv, unless `data.folds` names a file or a notebook has none."""
    return config.data.folds or here().folds(config.data.dir)


def make_folds(config: Config) -> list[str]:
    """Split the images into folds, write folds.csv and return lines that show how even the folds are."""
    table = Task(config.task).table.read_table(config)
    groups = (
        None if config.data.group is None else read_image_column(config.train_csv, config.data.group, table.image_ids)
    )
    folds = split(table.strata(), config.data.num_folds, groups=groups, seed=config.seed)
    path = folds_path(config)
    try:
        write_csv(path, COLUMNS, zip(table.image_ids.tolist(), folds.tolist(), strict=True))
    except OSError as error:
        raise CompetitionError(
            f"{path}: cannot be written ({error.strerror}); name a file elsewhere with data.folds=folds.csv"
        ) from None
    return describe_folds(folds, table.strata(), groups)


def split(strata: np.ndarray, num_folds: int, *, groups: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Return the fold (n,) of each image: every stratum spread evenly, no group in two folds.

    Raises CompetitionError if there are fewer images, or groups, than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    what, number = ("images", len(strata)) if groups is None else ("groups", len(np.unique(groups)))
    if number < num_folds:
        raise CompetitionError(f"data.num_folds: found {num_folds}; there are only {number} {what}, expected no more")
    strata = merge_rare(strata, num_folds)
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = np.full(len(strata), -1, dtype=np.int64)
    splitter = kind(num_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(strata, strata, groups)):
        folds[held_out] = fold
    assert (folds >= 0).all()
    if groups is not None:
        assert len(set(zip(groups, folds, strict=True))) == number, "a group lies in two folds"
    return folds


def merge_rare(strata: np.ndarray, num_folds: int) -> np.ndarray:
    """Put strata of fewer images than folds together, as each cannot be in every fold by itself."""
    _, codes, counts = np.unique(strata, return_inverse=True, return_counts=True)
    rare = counts[codes] < num_folds
    codes = np.where(rare, -1, codes)
    # Too few to spread even together: give them to the commonest stratum.
    return np.where(rare, counts.argmax(), codes) if 0 < rare.sum() < num_folds else codes


def read_folds(config: Config, table: Table) -> np.ndarray:
    """Return the fold (n,) of each image of the table from folds.csv."""
    path = folds_path(config)
    if not path.is_file():
        raise CompetitionError(f"{path}: no such file; make it with `competition folds CONFIG`")
    frame = read_csv(path, COLUMNS)
    by_id = pd.Series(pd.to_numeric(frame["fold"], errors="coerce").to_numpy(), index=frame["image_id"])
    if by_id.index.has_duplicates:
        twice = by_id.index[by_id.index.duplicated()][0]
        raise CompetitionError(f"{path}: image {twice!r} stands there twice; make it again with `competition folds`")
    folds = by_id.reindex(table.image_ids).to_numpy()
    expected = np.isin(folds, np.arange(config.data.num_folds))
    if not expected.all():
        wrong = int(np.flatnonzero(~expected)[0])
        raise CompetitionError(
            f"{path}: image {table.image_ids[wrong]!r} has fold {folds[wrong]}; expected 0 to "
            f"{config.data.num_folds - 1} (data.num_folds) for every image of train.csv; make it again "
            f"with `competition folds CONFIG`"
        )
    folds = folds.astype(np.int64)
    validated = is_validated(config, folds)
    if validated.all() or (config.fold != "all" and not validated.any()):
        raise CompetitionError(f"{path}: fold {config.fold} has no image to validate on, or none to train on")
    return folds


def is_validated(config: Config, folds: np.ndarray) -> np.ndarray:
    """Return (n,) bool: which images `config.fold` validates on; the others it trains on."""
    return np.zeros(len(folds), dtype=bool) if config.fold == "all" else folds == config.fold


def describe_folds(folds: np.ndarray, strata: np.ndarray, groups: np.ndarray | None) -> list[str]:
    """Say how many images, and how much of the commonest strata, each fold has."""
    values, counts = np.unique(strata, return_counts=True)
    commonest = values[np.argsort(-counts, kind="stable")[:6]]
    lines = []
    for fold in range(folds.max() + 1):
        inside = folds == fold
        shares = " ".join(f"{int((strata[inside] == value).sum())}" for value in commonest)
        grouped = "" if groups is None else f", {len(np.unique(groups[inside]))} groups"
        lines.append(f"fold {fold}: {int(inside.sum())} images{grouped}; of the commonest strata: {shares}")
    return lines
