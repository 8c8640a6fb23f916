"""`competition folds CONFIG`: which image is validated in which fold, written to folds.csv. No torch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from competition.config.settings import Config
from competition.data.groups import read_groups
from competition.files.csv_file import read_csv
from competition.files.csv_numbers import numbers_in
from competition.files.joined_tables import table_name
from competition.files.series import is_series, one_by_one
from competition.support.atomic_files import replacing, write_csv
from competition.support.errors import CompetitionError
from competition.support.paths import here
from competition.tasks.contract import Table, Task

COLUMNS = ("image_id", "fold")
TRAIN_CSV = "train.csv"
NUM_SHOWN = 6  # of classes or strata, the commonest


def folds_path(config: Config) -> Path:
    """Return where folds.csv stands: beside train.csv, unless `data.folds` names a file or a notebook has none.

    Another table beside a train.csv has folds of its own.
    """
    if config.data.folds is not None:
        return config.data.folds
    path, table = here().folds(config.data.dir), config.train_csv
    is_second = config.data.train_csv != TRAIN_CSV and (config.data.dir / TRAIN_CSV).is_file()
    return path.with_name(f"folds_{table_name(table)}.csv") if is_second else path


def make_folds(config: Config) -> list[str]:
    """Split the images into folds, write folds.csv and return lines that show how even the folds are."""
    config = one_by_one(config)
    table = Task(config.task).table.read_table(config)
    groups = read_groups(config, table)
    folds = split_table(config, table, groups)
    path = folds_path(config)
    if path.is_file():
        _keep_folds_of_others(config, table)
    before = path.read_bytes() if path.is_file() else None
    kept = path.with_name(f"{path.stem}.before{path.suffix}")
    way_on = "make room there, or name a file elsewhere with data.folds=folds.csv"
    write_csv(path, COLUMNS, zip(table.image_ids.tolist(), folds.tolist(), strict=True), way_on)
    lines = describe_folds(config, table, folds, groups)
    if before is not None and before != path.read_bytes():
        with replacing(kept) as temporary:
            temporary.write_bytes(before)
        lines.append(
            f"warning: {path} had other folds before: what was trained by them cannot go on, nor be compared; they are "
            f"in {kept}"
        )
    return lines


def split_table(config: Config, table: Table, groups: np.ndarray | None) -> np.ndarray:
    """Return the fold (n,) of each image of the table as `data.split` asks; no group (n,) is in two folds."""
    number, seed = config.data.num_folds, config.seed
    if config.data.split == "multilabel":
        folds = spread_labels(table.present(), number, groups=groups, seed=seed)
    else:
        folds = split(_strata(config, table), number, groups=groups, seed=seed)
    if groups is not None:
        assert len(set(zip(groups, folds, strict=True))) == len(np.unique(groups)), "a group lies in two folds"
    return folds


def _strata(config: Config, table: Table) -> np.ndarray:
    if config.data.split in ("kfold", "group"):
        return np.zeros(len(table.image_ids), dtype=np.int64)
    if config.data.split == "amount":
        return amount_bins(table.amounts(), config.data.num_folds)
    return table.strata()


def read_folds(config: Config, table: Table) -> np.ndarray:
    """Return the fold (n,) of each image of the table from folds.csv; of each group that of its images."""
    if is_series(config):
        of_images = getattr(table, "of_images")  # noqa: B009 - of tables of groups
        folds = dict(zip(of_images.groups, read_folds(one_by_one(config), of_images), strict=True))
        return np.array([folds[group] for group in table.image_ids], dtype=np.int64)
    path = folds_path(config)
    if not path.is_file():
        raise CompetitionError(f"{path}: no such file; make it with `competition folds CONFIG`")
    frame = read_csv(path, COLUMNS)
    _refuse_other_images(config, table, frame)
    by_id = pd.Series(numbers_in(frame["fold"]), index=frame["image_id"])
    if by_id.index.has_duplicates:
        twice = by_id.index[by_id.index.duplicated()][0]
        raise CompetitionError(f"{path}: image {twice!r} stands there twice; make it again with `competition folds`")
    folds = by_id.reindex(table.image_ids).to_numpy()
    expected = np.isin(folds, np.arange(config.data.num_folds))
    if not expected.all():
        wrong = int(np.flatnonzero(~expected)[0])
        found = "no fold" if np.isnan(folds[wrong]) else f"fold {folds[wrong]:g}"
        raise CompetitionError(
            f"{path}: image {table.image_ids[wrong]!r} has {found}; expected 0 to "
            f"{config.data.num_folds - 1} (data.num_folds) for every image of train.csv; make it again "
            f"with `competition folds CONFIG`"
        )
    folds = folds.astype(np.int64)
    _check_whole(config, table, folds, path)
    validated = is_validated(config, folds)
    if validated.all() or (config.fold != "all" and not validated.any()):
        raise CompetitionError(f"{path}: fold {config.fold} has no image to validate on, or none to train on")
    return folds


def _keep_folds_of_others(config: Config, table: Table) -> None:
    """Raise CompetitionError where new folds would be written over those of another table."""
    try:
        frame = read_csv(folds_path(config), COLUMNS)
    except CompetitionError:  # no folds at all, which are made anew
        return
    _refuse_other_images(config, table, frame)


def _refuse_other_images(config: Config, table: Table, folds: pd.DataFrame) -> None:
    """Raise CompetitionError where the folds that are there are of another table: neither should take the other's."""
    path, known = folds_path(config), set(folds["image_id"])
    if known and known.isdisjoint(table.image_ids.tolist()):
        own = path.with_name(f"folds_{table_name(config.train_csv)}.csv")
        raise CompetitionError(
            f"{path}: its folds are of other images, as {min(known)!r}, and of none of {config.data.train_csv}, as "
            f"{table.image_ids[0]!r}; name a file for this table, data.folds={own.name}, or delete that one"
        )


def _check_whole(config: Config, table: Table, folds: np.ndarray, path: Path) -> None:
    """Raise CompetitionError if a fold has no image, or a group lies in two: the file may be of another config."""
    empty = np.setdiff1d(np.arange(config.data.num_folds), folds)
    if len(empty):
        raise CompetitionError(
            f"{path}: no image has fold {empty[0]}; expected each of 0 to {config.data.num_folds - 1} "
            f"(data.num_folds); delete it and make it again with `competition folds CONFIG`, or set "
            f"data.num_folds={folds.max() + 1}"
        )
    groups = read_groups(config, table)
    if groups is None:
        return
    first_fold = pd.Series(folds).groupby(groups).transform("first").to_numpy()
    if (torn := np.flatnonzero(folds != first_fold)).size:
        other = int(np.flatnonzero(groups == groups[torn[0]])[0])
        raise CompetitionError(
            f"{path}: images {table.image_ids[other]!r} (fold {folds[other]}) and {table.image_ids[torn[0]]!r} (fold "
            f"{folds[torn[0]]}) are of one group (data.group or format.group), which must not be torn; delete it "
            "and make it again with `competition folds CONFIG`"
        )


def is_validated(config: Config, folds: np.ndarray) -> np.ndarray:
    """Return (n,) bool: which images `config.fold` validates on; the others it trains on."""
    return np.zeros(len(folds), dtype=bool) if config.fold == "all" else folds == config.fold


def describe_folds(config: Config, table: Table, folds: np.ndarray, groups: np.ndarray | None) -> list[str]:
    """Say for each fold how many images it has, and how much of what should be even over the folds."""
    balance = _balance(config, table)
    lines = []
    for fold in range(folds.max() + 1):
        inside = folds == fold
        grouped = "" if groups is None else f", {len(np.unique(groups[inside]))} groups"
        lines.append(f"fold {fold}: {int(inside.sum())} images{grouped}; {balance(inside)}")
    return lines


def _balance(config: Config, table: Table) -> Callable[[np.ndarray], str]:
    """Return a function that describes the images of a fold, given as (n,) bool."""
    if config.data.split == "amount":
        amounts = table.amounts()
        return lambda inside: f"amount: mean {amounts[inside].mean():.6g}, median {np.median(amounts[inside]):.6g}"
    if config.data.split == "multilabel":
        present = table.present()
        shown = np.argsort(-present.sum(axis=0), kind="stable")[:NUM_SHOWN]
        names = [table.classes[column] for column in shown]
        return lambda inside: (
            "images with "
            + ", ".join(
                f"{name} {number}" for name, number in zip(names, present[inside].sum(axis=0)[shown], strict=True)
            )
        )
    strata = table.strata()
    values, counts = np.unique(strata, return_counts=True)
    commonest = values[np.argsort(-counts, kind="stable")[:NUM_SHOWN]]
    return lambda inside: (
        "by kind of answer, the commonest first: "
        + " ".join(f"{int((strata[inside] == value).sum())}" for value in commonest)
    )


MOST_BINS = 20


def split(strata: np.ndarray, num_folds: int, *, groups: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Return the fold (n,) of each image: every stratum spread evenly, no group in two folds.

    Raises CompetitionError if there are fewer images, or groups, than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    _refuse_too_many_folds(num_folds, len(strata), groups)
    strata = merge_rare(strata, num_folds)
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = np.full(len(strata), -1, dtype=np.int64)
    splitter = kind(num_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(strata, strata, groups)):
        folds[held_out] = fold
    assert (folds >= 0).all()
    return folds


def merge_rare(strata: np.ndarray, num_folds: int) -> np.ndarray:
    """Put strata of fewer images than folds together, as each cannot be in every fold by itself."""
    _, codes, counts = np.unique(strata, return_inverse=True, return_counts=True)
    rare = counts[codes] < num_folds
    codes = np.where(rare, -1, codes)
    # Too few to spread even together: give them to the commonest stratum.
    return np.where(rare, counts.argmax(), codes) if 0 < rare.sum() < num_folds else codes


def amount_bins(amounts: np.ndarray, num_folds: int) -> np.ndarray:
    """Return (n,) strata of about equal size by the amount (n,) on an image; nothing at all is a stratum by itself."""
    some = amounts != 0
    num_bins = int(np.clip(some.sum() // (2 * num_folds), 1, MOST_BINS))
    edges = np.quantile(amounts[some], np.linspace(0, 1, num_bins + 1)[1:-1]) if some.any() else np.empty(0)
    return np.where(some, 1 + np.searchsorted(np.unique(edges), amounts, side="left"), 0)


def spread_labels(
    present: np.ndarray, num_folds: int, *, groups: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """Return the fold (n,) of each image so that each label of `present` (n, labels) is spread evenly, rarest first.

    Iterative stratification: Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-label Data", ECML 2011.
    A group is dealt out as a whole. Raises CompetitionError if there are fewer images, or groups, than folds.
    """
    _refuse_too_many_folds(num_folds, len(present), groups)
    units = np.arange(len(present)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(units)
    counts = np.zeros((len(sizes), present.shape[1]), dtype=np.int64)
    np.add.at(counts, units, present.astype(np.int64))
    return _deal(counts, sizes, num_folds, np.random.default_rng(seed))[units]


def _deal(counts: np.ndarray, sizes: np.ndarray, num_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Return the fold (units,) of units with `counts` (units, labels) images of each label and `sizes` (units,)."""
    # What each fold still lacks, times the number of folds, so that it is whole numbers and ties are ties.
    lacks_label = np.repeat(counts.sum(axis=0)[None], num_folds, axis=0)
    lacks = np.full(num_folds, sizes.sum())
    left = counts.sum(axis=0)
    folds = np.full(len(sizes), -1, dtype=np.int64)

    def deal(unit: int, wishes: np.ndarray) -> None:
        # Of folds that lack as much of the rarest label, the one that lacks most of the unit's other labels.
        others = lacks_label @ (counts[unit] > 0)
        fold = max(rng.permutation(num_folds).tolist(), key=lambda fold: (wishes[fold], others[fold], lacks[fold]))
        folds[unit] = fold
        lacks_label[fold] -= num_folds * counts[unit]
        lacks[fold] -= num_folds * sizes[unit]
        left[:] -= counts[unit]

    while left.any():
        rarest = int(np.where(left > 0, left, left.max() + 1).argmin())
        units = rng.permutation(np.flatnonzero((folds < 0) & (counts[:, rarest] > 0)))
        for unit in units[np.argsort(-sizes[units], kind="stable")].tolist():
            deal(unit, lacks_label[:, rarest])
    units = rng.permutation(np.flatnonzero(folds < 0))
    for unit in units[np.argsort(-sizes[units], kind="stable")].tolist():
        deal(unit, lacks)
    return folds


def _refuse_too_many_folds(num_folds: int, num_images: int, groups: np.ndarray | None) -> None:
    what, number = ("images", num_images) if groups is None else ("groups", len(np.unique(groups)))
    if number < num_folds:
        raise CompetitionError(f"data.num_folds: found {num_folds}; there are only {number} {what}, expected no more")
