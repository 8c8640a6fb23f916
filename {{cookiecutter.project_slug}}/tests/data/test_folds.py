"""Folds: evenly spread, groups whole, the same every time; and a folds.csv that does not fit its train.csv."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.config.data_settings import GroupFile
from competition.config.loading import load_config, task_names, validate
from competition.config.settings import Config
from competition.data.folds import amount_bins, folds_path, make_folds, merge_rare, read_folds, split, spread_labels
from competition.data.groups import groups_of_ids, hint_at_groups, join_groups, read_groups
from competition.files.csv_file import read_csv
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task

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


PRESENT = st.integers(12, 60).flatmap(
    lambda n: st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=n, max_size=n).map(np.array)
)


@given(PRESENT, NUM_FOLDS, st.integers(0, 9))
@some_settings
def test_labels_of_several_are_spread_and_folds_stay_of_about_equal_size(
    present: np.ndarray, num_folds: int, seed: int
) -> None:
    folds = spread_labels(present, num_folds, seed=seed)
    assert set(folds) == set(range(num_folds))
    np.testing.assert_array_equal(folds, spread_labels(present, num_folds, seed=seed))
    labels = np.stack([np.bincount(folds[present[:, label]], minlength=num_folds) for label in range(3)])
    # The rarest label is dealt out first, by itself: as evenly as can be. The others follow closely.
    rarest = int(np.where(present.any(axis=0), present.sum(axis=0), len(present) + 1).argmin())
    assert np.ptp(labels[rarest]) <= 1
    assert np.ptp(labels, axis=1).max() <= 4
    assert np.ptp(np.bincount(folds)) <= 6


def test_a_single_label_an_image_is_spread_exactly() -> None:
    labels = np.repeat([0, 1, 2], [40, 10, 5])
    folds = spread_labels(labels[:, None] == np.arange(3), 5, seed=1)
    assert [np.bincount(folds[labels == label]).tolist() for label in range(3)] == [[8] * 5, [2] * 5, [1] * 5]


def test_rare_labels_are_spread_better_than_at_random() -> None:
    """Of 10 labels with 1 % to 50 %, drawn apart: the spread over folds, in images, label by label."""
    present = np.random.default_rng(0).random((1000, 10)) < np.geomspace(0.01, 0.5, 10)

    def spread(folds: np.ndarray) -> float:
        return float(np.mean([np.ptp(np.bincount(folds[one], minlength=5)) for one in present.T]))

    assert spread(spread_labels(present, 5)) < 2
    assert spread(split(np.zeros(1000, dtype=int), 5)) > 8


@given(PRESENT, st.integers(2, 4), st.integers(4, 8))
@some_settings
def test_no_group_is_torn_where_labels_are_spread(present: np.ndarray, num_folds: int, num_groups: int) -> None:
    groups = np.arange(len(present)) % num_groups
    folds = spread_labels(present, num_folds, groups=groups)
    assert len(set(zip(groups, folds, strict=True))) == num_groups
    assert set(folds) == set(range(num_folds))


@given(st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.5, 7.0, 900.0, -3.0]), min_size=1, max_size=80).map(np.array))
@some_settings
def test_bins_of_amounts_keep_their_order_and_nothing_apart(amounts: np.ndarray) -> None:
    bins = amount_bins(amounts, 2)
    assert (bins[amounts == 0] == 0).all()
    assert (bins[amounts != 0] > 0).all()
    some = amounts != 0
    order = np.argsort(amounts[some], kind="stable")
    assert (np.diff(bins[some][order]) >= 0).all()
    assert all(len(set(bins[amounts == value])) == 1 for value in set(amounts))


def test_folds_by_amount_have_about_the_same_amount() -> None:
    amounts = np.random.default_rng(0).lognormal(0, 2, 1000)
    folds = split(amount_bins(amounts, 5), 5)
    medians = [np.median(amounts[folds == fold]) for fold in range(5)]
    assert max(medians) / min(medians) < 1.1


def test_images_that_are_linked_by_any_column_are_one_group() -> None:
    patients = np.array(["p", "p", "q", "q", "", ""], dtype=object)
    twins = np.array(["", "1", "1", "", "", "2"], dtype=object)
    groups = join_groups([patients, twins])
    assert len(set(groups[:4])) == 1
    assert len(set(groups)) == 3
    assert len(set(join_groups([patients]))) == 4


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


@pytest.mark.parametrize("kind", ["kfold", "group", "stratified_group", "multilabel", "amount"])
def test_every_way_to_split_gives_each_image_one_fold(own_config: Config, kind: str) -> None:
    update: dict[str, object] = {"split": kind}
    if kind != "kfold":
        add_patients(own_config.data.dir / "train.csv", patient_of)
        update["group"] = "patient"
    config = own_config.model_copy(update={"data": own_config.data.model_copy(update=update)})
    report = make_folds(config)
    table = Task(config.task).table.read_table(config)
    folds = read_folds(config, table)
    assert len(report) == 2
    assert min(np.bincount(folds)) >= 6
    assert ("groups" in report[0]) == (kind != "kfold")
    if kind != "kfold":
        patients = [patient_of(image_id) for image_id in table.image_ids]
        assert len(set(zip(patients, folds.tolist(), strict=True))) == len(set(patients))


def test_groups_may_come_from_a_file_of_their_own(own_config: Config, tmp_path: Path) -> None:
    table = Task(own_config.task).table.read_table(own_config)
    twins = [str(table.image_ids[index]) for index in (0, 7, 13)]
    (tmp_path / "groups.csv").write_text("image_id,group\n" + "".join(f"{image_id},a\n" for image_id in twins))
    for seed in range(4):
        data = own_config.data.model_copy(update={"group_file": GroupFile(file=tmp_path / "groups.csv")})
        config = own_config.model_copy(update={"data": data, "seed": seed})
        make_folds(config)
        assert len(set(read_folds(config, table)[[0, 7, 13]])) == 1


def test_a_file_of_groups_may_have_other_columns_lie_in_the_data_and_name_images_by_their_files(
    words: list[str], data_dir: Path
) -> None:
    config = load_config([Path(words[0])], words[1:])
    table = Task(config.task).table.read_table(config)
    lines = [f"{image_id}.png,{patient_of(image_id)}\n" for image_id in table.image_ids]
    (data_dir / "tiles.csv").write_text("".join(["tile,slide\n", *lines]))
    asked = "data.group_file={file: tiles.csv, image_id: tile, group: slide}"
    grouped = load_config([Path(words[0])], [*words[1:], asked, "data.image_file='{image_id}.png'"])
    make_folds(grouped)
    folds, slides = read_folds(grouped, table), [patient_of(image_id) for image_id in table.image_ids]
    assert len(set(zip(slides, folds.tolist(), strict=True))) == len(set(slides)) == 8
    (data_dir / "tiles.csv").unlink()
    with pytest.raises(
        CompetitionError, match=r"data/tiles\.csv: no such file; expected the csv of data\.group_file, "
    ):
        make_folds(grouped)


PATTERNS = {
    r"case\d+": ["case1", "case1", "case22", "case22"],
    r"case(\d)": ["1", "1", "2", "2"],
    r"day2|s(4)": ["day2", "", "day2", "4"],
}


@pytest.mark.parametrize(("pattern", "expected"), PATTERNS.items())
def test_a_pattern_finds_the_group_in_an_image_id(pattern: str, expected: list[str]) -> None:
    ids = np.array(["case1_day2_s1", "case1_day3_s1", "case22_day2_s1", "case22_day9_s4"], dtype=object)
    assert groups_of_ids(pattern, ids).tolist() == expected


def test_parts_of_image_ids_keep_images_together_and_an_id_without_one_is_told(own_config: Config) -> None:
    """The ids end in a number of two digits here: ten images are of one group."""
    with_pattern = own_config.data.model_copy(update={"group_pattern": r"\d{5}(?=\d\.png)"})
    config = own_config.model_copy(update={"data": with_pattern})
    make_folds(config)
    table = Task(config.task).table.read_table(config)
    assert len(set(zip([one[:11] for one in table.image_ids], read_folds(config, table).tolist(), strict=True))) == 3
    wrong = own_config.data.model_copy(update={"group_pattern": "case"})
    with pytest.raises(
        CompetitionError, match=r"data\.group_pattern: 'case' finds no group in the image id 'train_0000"
    ):
        make_folds(own_config.model_copy(update={"data": wrong}))


UW = [f"case{case}_day{day}_slice_{n:04d}" for case in range(8) for day in (0, 20) for n in (1, 2, 3)]
HINTS = {
    r"case\d+": (UW, "data.group_pattern: 'case\\d+' keeps"),
    r"video_\d+": (
        [f"video_{video}/{frame}" for video in range(6) for frame in (3, 4)],
        r"'video_\d+' finds 6 values in",
    ),
    "frames": (
        [f"{name}_{n:03d}.png" for name in ("a7", "b1", "cc", "x") for n in range(3)],
        "as 'a7' of 'a7_000.png'",
    ),
    "one beginning": ([f"train_{n}.png" for n in range(20)], ""),
    "names of classes": ([f"{name}_{n}.png" for name in ("disc", "ring", "cross") for n in range(5)], ""),
    "nothing": ([f"{n:08x}" for n in range(0, 9**7, 9**5)], ""),
}


@pytest.mark.parametrize(("ids", "told"), HINTS.values(), ids=HINTS)
def test_what_looks_like_a_group_in_image_ids_is_told(config: Config, ids: list[str], told: str) -> None:
    entries: dict[str, Any] = {"image_ids": np.array(ids, dtype=object), "lines": np.arange(len(ids)) + 2}
    entries |= {"classes": ("ring", "disc"), "groups": None}
    lines = hint_at_groups(config, cast(Any, SimpleNamespace(**entries)))
    assert len(lines) == bool(told)
    assert told in "".join(lines)
    with_pattern = config.data.model_copy(update={"group_pattern": ".+"})
    assert not hint_at_groups(config.model_copy(update={"data": with_pattern}), cast(Any, SimpleNamespace(**entries)))


# Known competitions whose images are of fewer patients, cases or slides, and which do not say so in a column.
IN_IDS = {
    "uw_madison": (UW, lambda image_id: image_id.partition("_")[0]),
    "sennet": (
        [f"kidney_{part}_{n:04d}" for part in ("1_dense", "1_voi", "2", "3_dense", "3_sparse") for n in range(4)],
        lambda image_id: image_id[:8],
    ),
}


@pytest.mark.parametrize("name", IN_IDS)
def test_no_case_of_a_known_competition_is_torn(name: str) -> None:
    if "segmentation" not in task_names():
        pytest.skip("its competitions are those of segmentation")
    ids, group_of = IN_IDS[name]
    config = validate({"name": "t", "task": "segmentation", "format": {"like": name}, "data": {"num_folds": 3}}, {}, "")
    table: Any = SimpleNamespace(image_ids=np.array(ids, dtype=object), groups=None)
    groups = read_groups(config, table)
    folds = split(np.zeros(len(ids), dtype=int), 3, groups=groups)
    assert len(set(zip(map(group_of, ids), folds.tolist(), strict=True))) == len(set(map(group_of, ids)))
    assert set(folds) == {0, 1, 2}


def test_a_given_folds_file_may_have_other_columns_and_images_in_another_order(own_config: Config) -> None:
    table = Task(own_config.task).table.read_table(own_config)
    lines = [f"{index % 2},x,{image_id}" for index, image_id in enumerate(table.image_ids)]
    folds_path(own_config).write_text("\n".join(["fold,source,image_id", "1,x,other.png", *reversed(lines)]))
    assert read_folds(own_config, table).tolist() == [index % 2 for index in range(len(lines))]


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
    assert make_and_edit(own_config, lambda lines: lines[:1] + lines[2:]).startswith(f"image '{first}' has no fold; ")
    assert make_and_edit(own_config, lambda lines: [*lines, lines[1]]).startswith(f"image '{first}' stands there twice")
    for fold in ("9", "-1", "x", "0.5", ""):
        message = make_and_edit(own_config, lambda lines, fold=fold: [lines[0], f"{first},{fold}", *lines[2:]])
        assert message.startswith(f"image '{first}' has ")
        assert "expected 0 to 1 (data.num_folds)" in message


def test_other_folds_than_before_are_told_of(own_config: Config) -> None:
    other, path = own_config.model_copy(update={"seed": own_config.seed + 1}), folds_path(own_config)
    kept = path.with_name("folds.before.csv")
    for _ in range(2):
        assert not make_folds(own_config)[-1].startswith("warning: ")
        assert not kept.exists()
    before = path.read_bytes()
    assert make_folds(other)[-1].startswith("warning: ")
    assert kept.read_bytes() == before != path.read_bytes()


def test_a_fold_without_images_is_refused(own_config: Config) -> None:
    message = make_and_edit(own_config, lambda lines: [line.replace(",0", ",1") for line in lines])
    assert message.startswith("no image has fold 0; expected each of 0 to 1 (data.num_folds); delete it and make it")


def test_folds_of_a_smaller_number_are_refused_before_anything_is_trained(own_config: Config) -> None:
    make_folds(own_config)
    more = own_config.model_copy(update={"data": own_config.data.model_copy(update={"num_folds": 5})})
    with pytest.raises(CompetitionError, match=r"no image has fold 2; .* or set data\.num_folds=2$"):
        read_folds(more, Task(more.task).table.read_table(more))


def test_given_folds_that_tear_a_group_are_refused_with_two_of_its_images(own_config: Config) -> None:
    add_patients(own_config.train_csv, patient_of)
    make_folds(own_config)  # which knows nothing of patients
    config = own_config.model_copy(update={"data": own_config.data.model_copy(update={"group": "patient"})})
    with pytest.raises(CompetitionError, match=r"'train_0.*' \(fold \d\) and 'train_0.*' \(fold \d\) are of one group"):
        read_folds(config, Task(config.task).table.read_table(config))


def test_another_table_beside_train_csv_has_folds_of_its_own(own_config: Config) -> None:
    make_folds(own_config)
    before = folds_path(own_config).read_bytes()
    shutil.copy(own_config.train_csv, own_config.data.dir / "half.csv")
    data = own_config.data.model_copy(update={"train_csv": "half.csv", "num_folds": 2})
    other = own_config.model_copy(update={"data": data})
    make_folds(other)
    assert folds_path(other) == own_config.data.dir / "folds_half.csv"
    assert folds_path(own_config).read_bytes() == before


def test_folds_of_other_images_are_neither_read_nor_written_over(own_config: Config) -> None:
    path = folds_path(own_config)
    path.write_text("image_id,fold\nstudy_1,0\nstudy_2,1\n")
    before = path.read_bytes()
    for look in (make_folds, lambda config: read_folds(config, Task(config.task).table.read_table(config))):
        with pytest.raises(CompetitionError, match=r"are of other images, as 'study_1'.*data\.folds=folds_train\.csv"):
            look(own_config)
    assert path.read_bytes() == before


def test_folds_are_read_once(own_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folds(own_config)
    read: list[Path] = []
    monkeypatch.setattr(
        "competition.data.folds.read_csv", lambda path, columns: (read.append(path), read_csv(path, columns))[1]
    )
    read_folds(own_config, Task(own_config.task).table.read_table(own_config))
    assert read == [folds_path(own_config)]


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
