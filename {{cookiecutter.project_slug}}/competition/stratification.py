"""How images are spread over folds: by strata, by the amount on them, or every label of several evenly. No torch."""

import numpy as np

from competition.errors import CompetitionError

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
