"""Folds: evenly spread, groups whole, the same every time; and a folds.csv that does not fit its train.csv."""

import csv
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.config import load_config
from competition.errors import CompetitionError
from competition.folds import folds_path, make_folds, merge_rare, read_folds, split
from competition.settings import Config
from competition.task import Task

STRATA = st.lists(st.integers(0, 4), min_size=12, max_size=80).map(np.array)
NUM_FOLDS = st.integers(2, 6)
some_settings = settings(max_examples=50, deadline=None)


@given(STRATA, NUM_FOLDS, st.integers(0, 9))
@some_settings
def test_folds_are_of_equal_size_and_share_every_stratum_evenly(strata: np.ndarray, num_folds: int, seed: int) -> None:
    folds = split(strata, num_folds, seed=seed)
    assert set(folds) == set(range(num_folds))
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 1
    merged = merge_rare(strata, num_folds)
    for stratum in set(merged):
        inside = np.bincount(folds[merged == stratum], minlength=num_folds)
        assert inside.max() - inside.min() <= 1


@given(STRATA, NUM_FOLDS, st.integers(6, 12), st.integers(0, 9))
@some_settings
def test_no_group_is_torn_and_no_fold_is_empty(strata: np.ndarray, num_folds: int, num_groups: int, seed: int) -> None:
    groups = np.random.default_rng(seed).permutation(np.arange(len(strata)) % num_groups)
    folds = split(strata, num_folds, groups=groups, seed=seed)
    assert set(folds) == set(range(num_folds))
    for group in range(num_groups):
        assert len(set(folds[groups == group])) == 1


def test_groups_are_spread_so_that_their_labels_are_too() -> None:
    """Of 40 patients with 5 images each, 10 are ill: every fifth of the folds gets 2 of them."""
    groups = np.arange(200) // 5
    folds = split((groups < 10).astype(int), 5, groups=groups)
    assert np.bincount(folds).tolist() == [40] * 5
    assert np.bincount(folds[groups < 10]).tolist() == [10] * 5


@given(STRATA, NUM_FOLDS, st.integers(0, 9))
@some_settings
def test_the_same_seed_gives_the_same_folds(strata: np.ndarray, num_folds: int, seed: int) -> None:
    np.testing.assert_array_equal(split(strata, num_folds, seed=seed), split(strata, num_folds, seed=seed))


def test_another_seed_gives_other_folds() -> None:
    strata = np.zeros(50, dtype=int)
    assert (split(strata, 5, seed=0) != split(strata, 5, seed=1)).any()


def test_rare_strata_are_put_together() -> None:
    strata = np.array([7] * 10 + [1, 2, 3, 4])
    merged = merge_rare(strata, 4)
    assert len(set(merged[:10])) == 1
    assert len(set(merged[10:])) == 1
    assert merged[0] != merged[10]


def test_a_rare_stratum_that_cannot_be_in_every_fold_joins_the_commonest() -> None:
    assert len(set(merge_rare(np.array([7] * 10 + [8] * 5 + [1]), 4)[[0, -1]])) == 1


@pytest.mark.parametrize(("groups", "what"), [(None, "3 images"), (np.array([0, 0, 1]), "2 groups")])
def test_more_folds_than_images_or_groups_are_refused(groups: np.ndarray | None, what: str) -> None:
    with pytest.raises(CompetitionError) as refused:
        split(np.zeros(3, dtype=int), 4, groups=groups)
    assert str(refused.value) == f"data.num_folds: found 4; there are only {what}, expected no more"


# -- folds.csv


@pytest.fixture
def own_config(words: list[str]) -> Config:
    """Return the config on data that may be changed."""
    return load_config([Path(words[0])], words[1:])


def add_patients(train_csv: Path, values: Callable[[str], int]) -> None:
    """Add a column `patient`, given the image id of each row."""
    frame = pd.read_csv(train_csv, dtype=str, keep_default_na=False)
    patients = pd.Series([values(image_id) for image_id in frame["image_id"]], index=frame.index)
    frame.assign(patient=patients).to_csv(train_csv, index=False)


def patient_of(image_id: str) -> int:
    """Return the patient of `train_000012.png`: three images each."""
    return int(image_id[6:12]) // 3


def test_every_image_has_a_fold_and_the_balance_is_told(own_config: Config) -> None:
    report = make_folds(own_config)
    table = Task(own_config.task).table.read_table(own_config)
    folds = read_folds(own_config, table)
    with folds_path(own_config).open(newline="") as file:
        written = {row["image_id"]: int(row["fold"]) for row in csv.DictReader(file)}
    assert written == dict(zip(table.image_ids, folds.tolist(), strict=True))
    assert [line.partition(" images")[0] for line in report] == [
        f"fold {fold}: {count}" for fold, count in enumerate(np.bincount(folds))
    ]


def test_a_group_column_keeps_patients_together(own_config: Config) -> None:
    add_patients(own_config.data.dir / "train.csv", patient_of)
    config = own_config.model_copy(update={"data": own_config.data.model_copy(update={"group": "patient"})})
    report = make_folds(config)
    table = Task(config.task).table.read_table(config)
    patients = np.array([patient_of(image_id) for image_id in table.image_ids])
    folds = read_folds(config, table)
    assert all(len(set(folds[patients == patient])) == 1 for patient in set(patients))
    assert sum(int(line.split(" groups")[0].split()[-1]) for line in report) == len(set(patients))


def test_a_group_column_that_is_missing_is_refused(own_config: Config) -> None:
    config = own_config.model_copy(update={"data": own_config.data.model_copy(update={"group": "patient"})})
    with pytest.raises(CompetitionError, match=r"train\.csv: column 'patient' is missing"):
        make_folds(config)


def make_and_edit(config: Config, edit: Callable[[list[str]], list[str]]) -> str:
    """Write folds.csv, change its lines and return the message with which it is refused."""
    make_folds(config)
    path = folds_path(config)
    path.write_text("".join(f"{line}\n" for line in edit(path.read_text().splitlines())))
    with pytest.raises(CompetitionError) as refused:
        read_folds(config, Task(config.task).table.read_table(config))
    assert "\n" not in str(refused.value)
    return str(refused.value).removeprefix(f"{path}: ")


def test_a_folds_csv_that_does_not_fit_is_refused_with_the_image(own_config: Config) -> None:
    first = str(Task(own_config.task).table.read_table(own_config).image_ids[0])
    assert make_and_edit(own_config, lambda lines: lines[:1] + lines[2:]).startswith(f"image '{first}' has ")
    assert make_and_edit(own_config, lambda lines: [*lines, lines[1]]).startswith(f"image '{first}' stands there twice")
    for fold in ("9", "-1", "x", "0.5", ""):
        message = make_and_edit(own_config, lambda lines, fold=fold: [lines[0], f"{first},{fold}", *lines[2:]])
        assert message.startswith(f"image '{first}' has ")
        assert "expected 0 to 1 (data.num_folds)" in message


def test_a_fold_without_images_is_refused(own_config: Config) -> None:
    message = make_and_edit(own_config, lambda lines: [line.replace(",0", ",1") for line in lines])
    assert message == "fold 0 has no image to validate on, or none to train on"


def test_a_missing_folds_csv_is_refused_with_the_command_that_makes_it(own_config: Config) -> None:
    with pytest.raises(CompetitionError, match="no such file; make it with `competition folds CONFIG`"):
        read_folds(own_config, Task(own_config.task).table.read_table(own_config))


def test_folds_may_be_written_elsewhere(
    words: list[str], data_dir: Path, tmp_path: Path, command: Callable[..., CompletedProcess[str]]
) -> None:
    done = command("folds", *words, "data.folds=mine/folds.csv")
    assert done.returncode == 0, done.stderr
    assert "written to mine/folds.csv" in done.stdout
    assert (tmp_path / "mine" / "folds.csv").is_file()
    assert not (data_dir / "folds.csv").exists()
