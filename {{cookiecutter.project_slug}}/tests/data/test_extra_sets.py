"""Further sets of images: trained on by every fold, never validated; twins of what is scored left out; weights."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from competition.checking.check import check
from competition.config.loading import task_names
from competition.config.sampler_settings import PositiveColumn, Sampler
from competition.config.settings import Config
from competition.data.extra_sets import duplicates_path, extra_files, pseudo_of_fold, read_extras
from competition.data.folds import make_folds, read_folds
from competition.data.training_part import training_part
from competition.files.item_source import train_source
from competition.files.maps import INDEX, MAPS, write_maps
from competition.runs.provenance import data_fingerprint
from competition.sampling.build import fold_sampler
from competition.sampling.sampler import RatioSampler
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table, Task
from competition.tasks.made_up_images import write_sample
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule


@pytest.fixture
def more(task: str, tmp_path: Path) -> Path:
    """Make a second set of 20 images that have the ids of training images, and other names for the classes."""
    write_sample(task, tmp_path / "more", size=20, seed=1)
    frame = pd.read_csv(tmp_path / "more" / "train.csv", dtype=str, keep_default_na=False)
    column = "label" if "label" in frame else "class_id"
    frame[column] = [f"a {name}" if name else "" for name in frame[column]]
    frame.assign(trust=[str(0.25 + 0.5 * (number % 2)) for number in _numbers(frame)]).to_csv(
        tmp_path / "more" / "train.csv", index=False
    )
    return tmp_path / "more"


@pytest.mark.parametrize("task", task_names()[:1], indirect=True)
def test_images_of_a_set_are_looked_at_by_a_run_of_theirs_though_those_of_train_csv_have_their_ids(
    config: Config, more: Path, tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, said in (("first", 0.2), ("second", 0.8)):
        images = [("train", str(one), np.full((1, 128, 96), said), (128, 96)) for one in table.image_ids]
        write_maps(Path("outputs", name, MAPS), ["here"], images[0 if name == "first" else 1 :])
    one = {"dir": str(more), "csv": "train.csv", "classes": their_names(table), "maps": "second"}
    own = {"maps": {"run": "first", "classes": ["here"]}, "channels": 6, "mean": config.data.mean}
    looking = with_data(config, **own, std=config.data.std, extra=[one])
    (extra,) = read_extras(looking, table)
    assert extra.source(1).read()[0, 0, 3:].tolist() == [204] * 3
    assert extra.table.image_ids[1] in table.image_ids
    assert train_source(looking, extra.table.image_ids[1]).read()[0, 0, 3:].tolist() == [51] * 3
    with pytest.raises(
        CompetitionError, match=r"image 'train_000.*outputs/second/maps \(data\.maps\) says nothing of it"
    ):
        extra.source(0)
    indices = {path.parents[1].name for path in extra_files(looking) if path.name == INDEX}
    assert indices == {"first", "second"}
    (Path("outputs/second") / MAPS / INDEX).unlink()
    with pytest.raises(CompetitionError, match=r"second/maps/maps\.csv: no such file \(data\.maps\); make it with"):
        read_extras(looking, table)


def _numbers(frame: pd.DataFrame) -> list[int]:
    return [int(one.split("_")[1].split(".")[0]) for one in frame["image_id"]]


def with_data(config: Config, **keys: Any) -> Config:
    """Return a config with some keys of `data:`."""
    values = config.data.model_dump(mode="json") | {key: _plain(value) for key, value in keys.items()}
    return config.model_copy(update={"data": type(config.data).model_validate_json(json.dumps(values))})


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def their_names(table: Table) -> dict[str, str]:
    return {f"a {name}": name for name in table.classes}


@pytest.fixture
def table(config: Config) -> Table:
    return Task(config.task).table.read_table(config)


def test_a_further_set_is_in_every_training_part_and_in_no_validation(
    config: Config, data_dir: Path, more: Path, table: Table
) -> None:
    """Its images have the ids of training images; its classes have other names, and some are left out."""
    one = {"csv": "train.csv", "dir": str(more), "weight": "trust", "classes": their_names(table)}
    extended = with_data(config, dir=data_dir, extra=[one])
    make_folds(extended)
    folds = read_folds(extended, table)
    theirs = Task(config.task).table.read_table(with_data(config, dir=more, classes=list(their_names(table))))
    for fold in range(config.data.num_folds):
        of_fold = extended.model_copy(update={"fold": fold})
        data = FoldData(of_fold, table, folds)
        assert len(data.train_set) == (folds != fold).sum() + 20
        assert set(data.val_set.image_ids) == set(table.image_ids[folds == fold])
    at = len(table.image_ids)
    assert str(data.train_set.source(len(data.train_set) - 20).files[0]) == str(
        more / "train_images" / "train_000000.png"
    )
    assert (data.train_table.present()[at:] == theirs.present()).all()
    sample = data.train_set[len(data.train_set) - 19]
    assert sample["weight"] == 0.75
    assert data.train_set[0]["weight"] == 1
    sampler = RatioSampler(np.array(data.train_table.present()).max(axis=1)[data.train_rows], seed=0)
    plain = of_fold.model_copy(update={"sampler": Sampler(positive="mask", share="natural")})
    counted = fold_sampler(plain, data.train_table, data.train_rows)
    assert isinstance(counted, RatioSampler)
    assert counted.counts(0) == sampler.counts(0)  # the set's images are positive as any other
    assert data_fingerprint(extended) != data_fingerprint(with_data(extended, extra=[]))


def test_classes_of_a_further_set_can_be_left_out(config: Config, data_dir: Path, more: Path, table: Table) -> None:
    names = their_names(table) | {f"a {table.classes[-1]}": None}
    extended = with_data(config, dir=data_dir, extra=[{"csv": "train.csv", "dir": str(more), "classes": names}])
    make_folds(extended)
    data = FoldData(extended, table, read_folds(extended, table))
    present = data.train_table.present()[len(table.image_ids) :]
    assert not present[:, -1].any()
    assert present[:, :-1].any()
    for row in range(len(data.train_set) - len(present), len(data.train_set)):
        target = data.train_set.target(row, *data.train_set.read_size(row))
        found = target["labels"] if "bboxes" in target else target.get("label", 0)
        assert np.max(found, initial=-1) < len(table.classes) - 1
        assert "mask" not in target or not target["mask"][..., -1].any()


def test_a_column_that_tells_positives_is_in_the_csv_of_every_set(
    config: Config, data_dir: Path, more: Path, table: Table
) -> None:
    frame = pd.read_csv(data_dir / "train.csv", dtype=str, keep_default_na=False)
    frame.assign(found=[str(number % 2) for number in _numbers(frame)]).to_csv(data_dir / "train.csv", index=False)
    one = {"csv": "train.csv", "dir": str(more), "classes": their_names(table)}
    extended = with_data(config, dir=data_dir, extra=[one])
    ruled = extended.model_copy(update={"sampler": Sampler(positive=PositiveColumn(column="found"))})
    make_folds(ruled)
    table = Task(config.task).table.read_table(ruled)
    data = FoldData(ruled, table, read_folds(ruled, table))
    with pytest.raises(CompetitionError, match=r"train.csv: has no column 'found', by which sampler.positive"):
        fold_sampler(ruled, data.train_table, data.train_rows)
    theirs = pd.read_csv(more / "train.csv", dtype=str, keep_default_na=False)
    theirs.assign(found="1").to_csv(more / "train.csv", index=False)
    data = FoldData(ruled, table, read_folds(ruled, table))
    counts = getattr(fold_sampler(ruled, data.train_table, data.train_rows), "counts")(0)  # noqa: B009
    assert counts


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"csv": "none.csv"}, ["none.csv: no such file"]),
        ({"csv": "train.csv", "classes": {"a disk": "dsk"}}, ["classes: 'dsk' is no class of train.csv", "null"]),
        ({"csv": "train.csv"}, ["train.csv: line", "'a ", "expected one of our classes"]),
        ({"csv": "train.csv", "weight": "label2"}, ["label2"]),
        ({"csv": "train.csv", "format": {"colour": 1}}, ["data.extra: train.csv: format: ", "colour"]),
        (
            {"csv": "train.csv", "format": {"like": "whales"}},
            ["data.extra: train.csv: format: ", "whales", "is no format"],
        ),
    ],
)
def test_what_is_wrong_with_a_further_set_is_said(
    config: Config, data_dir: Path, more: Path, table: Table, keys: dict[str, Any], words: list[str]
) -> None:
    names = {} if "classes" in keys or (len(keys) == 1 and keys["csv"] == "train.csv") else their_names(table)
    extended = with_data(config, dir=data_dir, extra=[{"dir": str(more), "classes": names, **keys}])
    with pytest.raises(CompetitionError) as error:
        check(extended)
    for word in words:
        assert word in str(error.value)


def test_twins_of_validation_and_test_images_are_left_out(config: Config, data_dir: Path, table: Table) -> None:
    """Copies in another compression: of a training image, which a fold validates, and of a test image."""
    more = data_dir / "more"
    frame = pd.read_csv(data_dir / "train.csv", dtype=str, keep_default_na=False)
    ids = frame["image_id"].unique()[[0, 5, 9]]
    picked = frame[frame["image_id"].isin(ids)]
    write_sample(config.task, data_dir / "fresh", size=20, seed=7)
    more.mkdir()
    tests = sorted(path.name for path in (data_dir / "test_images").iterdir())
    sources = [data_dir / "train_images" / ids[0], data_dir / "test_images" / tests[1]]
    for name, source in zip(ids, [*sources, data_dir / "fresh" / "train_images" / "train_000003.png"], strict=True):
        pixels = np.array(cv2.imread(str(source)))
        cv2.imwrite(str(more / name), cv2.GaussianBlur(pixels, (3, 3), 0))
    picked.drop(columns=["width", "height"], errors="ignore").to_csv(data_dir / "more.csv", index=False)
    extended = with_data(config, dir=data_dir, extra=[{"csv": "more.csv", "images": "more"}])
    make_folds(extended)
    folds = read_folds(extended, table)
    validates = int(folds[table.image_ids == ids[0]][0])
    other = next(fold for fold in range(config.data.num_folds) if fold != validates)
    part = training_part(extended, table, folds)
    assert "nobody has looked" in part.notes[0]
    said = "\n".join(check(extended))
    assert f"{data_dir / 'more.csv'}: 3 images more in the training part of each fold" in said
    assert "of training images: 1, left out of the folds that validate these; of test images: 1, left out" in said
    for fold, number in ((validates, 1), (other, 2)):
        part = training_part(extended.model_copy(update={"fold": fold}), table, folds)
        assert len(part.rows) == (folds != fold).sum() + number
        assert f"{3 - number} images are left out: near-duplicates of validation or test images" in part.notes[0]
    unlooked = training_part(with_data(extended, near_duplicates=False), table, folds)
    assert len(unlooked.rows) == (folds != 0).sum() + 3
    (data_dir / "more.csv").write_text((data_dir / "more.csv").read_text() + "\n")
    assert "nobody has looked" in training_part(extended, table, folds).notes[0]
    assert duplicates_path(extended).is_file()


def test_weights_by_a_csv_leave_out_and_reweigh_what_is_trained_on(
    config: Config, data_dir: Path, table: Table, tmp_path: Path
) -> None:
    path = tmp_path / "weights.csv"
    weighed = with_data(config, dir=data_dir, weights_csv=path)
    make_folds(with_data(config, dir=data_dir))
    folds = read_folds(weighed, table)
    trained = table.image_ids[folds != 0]
    path.write_text(
        f"image_id,weight,why\n{trained[0]},0,odd\n{trained[1]},0.5,\n{table.image_ids[folds == 0][0]},0,\n"
    )
    data = FoldData(weighed, table, folds)
    assert trained[0] not in data.train_set.image_ids
    assert data.notes == ["weights: 1 images of weight 0 are left out of training"]
    assert data.train_set[0]["weight"] == 0.5
    assert len(data.val_set) == (folds == 0).sum()  # what is scored hangs on no weight
    for text, words in (("nobody,1", "line 2: found 'nobody'; no image of train.csv"), (f"{trained[0]},-1", "weight")):
        path.write_text(f"image_id,weight\n{text}\n")
        with pytest.raises(CompetitionError, match=words):
            check(weighed)


def test_weights_multiply_the_losses_of_images_and_nothing_else(config: Config, data_dir: Path, table: Table) -> None:
    """The step follows the sum of what images count times their losses, through the number of images: halves of a
    batch, on two processes or one after the other, add up to it."""
    frame = pd.read_csv(data_dir / "train.csv", dtype=str, keep_default_na=False)
    frame.assign(trust=[f"{number % 3 + 0.5}" for number in _numbers(frame)]).to_csv(
        data_dir / "train.csv", index=False
    )
    weighed = with_data(config, dir=data_dir, weight="trust", augmentation={})
    make_folds(weighed)
    folds = read_folds(weighed, table)
    torch.manual_seed(0)
    module = CompetitionModule(weighed.model_dump(mode="json"), list(table.classes)).eval()
    batch = FoldData(weighed, table, folds).batch()
    plain = FoldData(with_data(weighed, weight=None), table, folds).batch()
    assert batch["image_id"] == plain["image_id"]
    torch.testing.assert_close(batch["weight"], torch.tensor(np.array(_numbers_of(batch)) % 3 + 0.5).float())
    if config.task == "detection":
        module.train()
    with torch.no_grad():
        weighted, alone = module.image_losses(batch), module.image_losses(plain)
    torch.testing.assert_close(weighted, alone * batch["weight"])


def test_images_that_count_alike_do_so_once_they_are_mixed(config: Config, data_dir: Path, table: Table) -> None:
    """And a mixed image counts no less than the least, and no more than the most, of those that it is made of."""
    mix = getattr(config, "mix")  # noqa: B009 - each task has its own
    ways = dict.fromkeys((name for name in type(mix).model_fields if name != "probability"), 1.0)
    mixing = config.model_copy(update={"mix": type(mix)(**{**mix.model_dump(), **ways})})
    make_folds(with_data(mixing, dir=data_dir))
    batch = FoldData(with_data(config, dir=data_dir), table, read_folds(with_data(config, dir=data_dir), table)).batch()
    dataset, number = Task(config.task).dataset, len(batch["image_id"])
    for seed in range(6):
        rng = np.random.default_rng(seed)
        alike = dataset.mix_batch(batch | {"weight": torch.full((number,), 0.5)}, mixing, rng)
        torch.testing.assert_close(alike["weight"], torch.full((number,), 0.5))
        other = dataset.mix_batch(batch | {"weight": torch.arange(number).float()}, mixing, rng)
        assert other["weight"].min() >= 0
        assert other["weight"].max() <= number - 1


def _numbers_of(batch: dict[str, Any]) -> list[int]:
    return [int(one.split("_")[1].split(".")[0]) for one in batch["image_id"]]


# -- pseudo-labels


def test_a_fold_learns_from_pseudo_labels_of_its_own_network_alone(tmp_path: Path) -> None:
    path = tmp_path / "pseudo.csv"
    path.touch()
    assert pseudo_of_fold(path, 1) == path  # as earlier versions wrote it
    (tmp_path / "pseudo_fold0.csv").touch()
    assert pseudo_of_fold(path, 0) == tmp_path / "pseudo_fold0.csv"
    assert pseudo_of_fold(path, "all") == path
    with pytest.raises(CompetitionError, match="networks that have trained on what fold 1"):
        pseudo_of_fold(path, 1)
