"""Images of a group as one sample: how they are joined, drawn and predicted, and a competition only a group tells.

Run as a script, this file trains on two processes, which are forks, unbroken and killed in the middle of an epoch:
python tests/tasks/classification/test_classification_series.py FOLDER
"""

import csv
import os
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny import PROJECT, TINY, bundled
from trainings import (
    assert_ended_like,
    fork_group,
    get_ready,
    kill_at,
    rows,
    run_as_script,
    run_here,
    train_until_killed,
    wait,
)

from competition.config.loading import load_config
from competition.data.dataset import SeededIndex, share_cache
from competition.data.folds import make_folds
from competition.data.loaders import evaluation_loader
from competition.data.series_dataset import open_dataset
from competition.files.images import read_image
from competition.networks.group_join import GroupJoin
from competition.notebook import OpenFold
from competition.pipeline.train_fold import train
from competition.prediction.stored import Predictions
from competition.scoring.out_of_fold import score_predictions
from competition.support.errors import CompetitionError
from competition.tasks.classification.model import JoinedNetwork
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.contract import Task
from competition.training.checkpoint import load_checkpoint
from competition.training.module import CompetitionModule
from competition.training.trainer import build_trainer

Command = Callable[..., CompletedProcess[str]]
FORMAT = "format={train: {keys: {image_id: '{image_id}'}}, submission: {keys: {study: '{image_id}'}}, group: '{study}'}"
WORDS = (FORMAT, "data.image_size=32", "model.join=attention", "data.batch_size=8")
WAYS = ("attention", "gated_attention", "max", "mean", "lse")
SMALLEST = 5  # images of a study, of which one bears the sign that the study is sick


def make_competition(folder: Path, num_train: int, num_test: int) -> Path:
    """Write studies of images of noise: of a sick one a single image has a bright square."""
    rng = np.random.default_rng(0)
    for part, number in (("train", num_train), ("test", num_test)):
        (folder / f"{part}_images").mkdir(parents=True)
        rows, labels = [], {}
        for study in range(number):
            name, is_sick, size = f"{part}{study}", study % 2 == 0, SMALLEST + study % 3
            labels[name] = "sick" if is_sick else "well"
            for image in range(size):
                pixels = rng.integers(0, 100, (32, 32, 3), np.uint8)
                if is_sick and image == study % size:
                    pixels[8:24, 8:24] = 255
                Image.fromarray(pixels).save(folder / f"{part}_images" / f"{name}_{image}.png")
                rows.append([f"{name}_{image}.png", name, labels[name]])
        order = rng.permutation(len(rows))  # images of a study stand apart
        header = ["image_id", "study", *(["label"] if part == "train" else [])]
        with (folder / f"{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *(rows[row][: len(header)] for row in order)])
    sample = pd.DataFrame({"study": list(labels), "sick": 0.5, "well": 0.5})
    sample.to_csv(folder / "sample_submission.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_competition(tmp_path_factory.mktemp("series") / "data", 12, 4)
    make_folds(configure(folder))
    return folder


def configure(data: Path, *words: str) -> TaskConfig:
    config = load_config(
        [PROJECT / "configs" / "classification.yaml"],
        [*TINY, *WORDS, f"data.dir={data}", f"data.folds={data / 'folds.csv'}", *words],
    )
    assert isinstance(config, TaskConfig)
    return config


@pytest.mark.parametrize("way", WAYS)
def test_a_group_is_joined_alike_in_any_order_and_company(way: str) -> None:
    torch.manual_seed(0)
    join, features = GroupJoin(way, 6).double(), torch.randn(7, 6).double()
    sizes = torch.tensor([4, 1, 2])
    together = join(features, sizes)
    alone = torch.cat([join(part, torch.tensor([len(part)])) for part in features.split(sizes.tolist())])
    torch.testing.assert_close(together, alone)
    order = torch.tensor([3, 0, 2, 1, 4, 6, 5])
    torch.testing.assert_close(join(features[order], sizes), together)
    torch.testing.assert_close(together[1], features[4])  # of one image that image
    torch.testing.assert_close(join(features), features)
    first = features[:4]
    assert (together[0] <= first.max(dim=0).values + 1e-9).all()
    assert (together[0] >= first.min(dim=0).values - 1e-9).all()


def test_joins_by_hand() -> None:
    features, sizes = torch.tensor([[1.0, 0], [3, -4], [0, 7]]), torch.tensor([2, 1])
    assert GroupJoin("max", 2)(features, sizes).tolist() == [[3, 0], [0, 7]]
    assert GroupJoin("mean", 2)(features, sizes).tolist() == [[2, -2], [0, 7]]
    expected = torch.stack([torch.log(features[:2].exp().mean(dim=0)), features[2]])
    torch.testing.assert_close(GroupJoin("lse", 2)(features, sizes), expected)


def test_training_draws_some_images_by_the_seed_and_validation_sees_all(data: Path) -> None:
    fold = OpenFold(configure(data, "data.group_images=3"))
    drawn = [fold.train_set[SeededIndex(0, seed, 0)] for seed in (1, 1, 2, 3, 4)]
    names = [[image["image_id"] for image in sample["images"]] for sample in drawn]
    assert all(len(set(each)) == 3 for each in names)
    assert names[0] == names[1]
    assert len({tuple(each) for each in names}) > 1
    for one, again in zip(drawn[0]["images"], drawn[1]["images"], strict=True):
        assert torch.equal(one["image"], again["image"])
    study = str(fold.val_set.image_ids[0])
    table = pd.read_csv(data / "train.csv")
    whole = table.image_id[table.study == study].tolist()
    assert [image["image_id"] for image in fold.val_set[0]["images"]] == whole
    batch = fold.batch()
    assert batch["image"].shape[0] == batch["group_sizes"].sum() == 3 * len(batch["image_id"])
    assert len(fold.module().image_losses(batch)) == len(batch["image_id"])
    assert fold.picture(batch).width > 0


def test_images_of_groups_come_from_the_cache_unchanged(data: Path) -> None:
    plain = OpenFold(configure(data)).train_set
    config = configure(data, "data.cache=disk")
    kept = OpenFold(config).train_set
    share_cache(config, [kept.of_images()])
    assert kept.of_images().kept is not None
    for one, other in zip(plain[SeededIndex(1, 5, 0)]["images"], kept[SeededIndex(1, 5, 0)]["images"], strict=True):
        assert torch.equal(one["image"], other["image"])


def test_folds_are_those_of_single_images_and_no_group_is_torn(data: Path) -> None:
    config = configure(data)
    folds, table = pd.read_csv(data / "folds.csv").set_index("image_id")["fold"], pd.read_csv(data / "train.csv")
    fold = OpenFold(config)
    assert set(folds.index) == set(table.image_id)
    held_out = set(table.study[table.image_id.map(folds) == 0])
    assert set(fold.val_set.image_ids) == held_out
    assert set(fold.train_set.image_ids) == set(table.study) - held_out


def test_batches_of_prediction_hold_a_bounded_number_of_images(data: Path) -> None:
    config = configure(data, "data.batch_size=12")
    table = OpenFold(config).table
    dataset = open_dataset(config, table.image_ids, table=table)
    batches = list(evaluation_loader(dataset))
    assert [name for batch in batches for name in batch["image_id"]] == table.image_ids.tolist()
    assert max(len(batch["image"]) for batch in batches) <= 12
    small = evaluation_loader(open_dataset(configure(data, "data.batch_size=2"), table.image_ids, table=table))
    assert all(len(batch["image_id"]) == 1 for batch in small)


def test_what_a_network_sees_at_once_changes_nothing(data: Path) -> None:
    fold = OpenFold(configure(data))
    network = fold.module().network.eval()
    assert isinstance(network, JoinedNetwork)
    sizes, most = torch.tensor([5, 6]), []
    network.encoder.register_forward_hook(lambda module, images, features: most.append(len(images[0])))
    images = torch.randn(11, 3, 32, 32)
    with torch.no_grad():
        few = network(images, group_sizes=sizes)
        assert max(most) == 6  # of at most 8, in even parts
        network.at_once = 100
        torch.testing.assert_close(network(images, group_sizes=sizes), few)
    assert few.shape == (2, 2)


def test_a_group_has_what_one_of_its_images_has(data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data / "train.csv")
    first = table.groupby("study").head(1).index
    table["a"], table["b"] = 0, 0
    table.loc[first, "a"] = 1
    table.to_csv(tmp_path / "train.csv", index=False)
    layout = "format.train.layout=columns"
    config = configure(
        data, "format.target=multi", layout, f"data.train_csv={tmp_path / 'train.csv'}", "data.classes=[a, b]"
    )
    found = OpenFold(config).table
    assert found.present().tolist() == [[True, False]] * 12
    assert found.groups is None


def test_a_group_of_soft_labels_has_their_mean(data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data / "train.csv")
    first = ~table.duplicated("study")
    table["a"], table["b"] = np.where(first, 1.0, 0.25), np.where(first, 0.0, 0.75)
    table.to_csv(tmp_path / "train.csv", index=False)
    config = configure(data, "format.train.layout=probabilities", f"data.train_csv={tmp_path / 'train.csv'}")
    found = Task("classification").table.read_table(
        config.model_copy(update={"data": config.data.model_copy(update={"classes": ["a", "b"]})})
    )
    sizes = table.groupby("study", sort=False).size().to_numpy()
    for row, size in enumerate(sizes):
        target = found.target(row, 1, 1)
        np.testing.assert_allclose(target["soft"], [(1 + 0.25 * (size - 1)) / size, 0.75 * (size - 1) / size])
        assert target["label"] == int(size > 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["format.group=null"], "model.join needs format.group"),
        (["mix.mixup=0.4"], "mix is of single images, and model.join makes a sample of a group"),
        (["data.window.size=32"], "data.window is of single images"),
        (["data.pseudo=p.csv"], "data.pseudo is of single images"),
    ],
)
def test_what_is_of_single_images_is_refused(words: list[str], said: str, data: Path) -> None:
    with pytest.raises(CompetitionError, match=said):
        configure(data, *words)


def test_check_looks_at_single_images_and_tells_the_groups(data: Path, command: Command) -> None:
    words = [PROJECT / "configs" / "classification.yaml", *TINY, *WORDS, f"data.dir={data}", "data.group_images=5"]
    done = command("check", *words)
    assert done.returncode == 0, done.stderr
    assert "train.csv: 72 images, classes sick, well" in done.stdout
    assert "groups: 12 of 5 to 7 images; training draws 5 of a larger one (data.group_images)" in done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let the whole path run on a competition of which one image of a study tells all."""
    folder = tmp_path_factory.mktemp("trained")
    make_competition(folder / "data", 32, 8)
    words = [*TINY, *WORDS, "name=t", "data.num_folds=2", "trainer.max_epochs=4", "optimizer.lr=0.01"]
    words += ["data.augmentation={horizontal_flip: 0.5}", "data.batch_size=4"]
    done = run_here(folder, [PROJECT / "configs" / "classification.yaml", *words])
    assert done.returncode == 0, done.stdout
    return folder


@pytest.mark.slow
def test_what_one_image_of_a_group_tells_is_learnt_and_bundled(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    score = pd.read_csv("outputs/t/cv.csv", index_col=0)["log_loss"]["pooled"]
    # Whatever single images of 5 are answered, the mean over their study cannot be better: best are 3/8 and 1.
    averaged = -0.5 * (np.log((1 + 4 * 0.375) / 5) + np.log(1 - 0.375))
    assert score < 0.7 * averaged
    assert Predictions(Path("outputs/t/test.npz")).image_ids == [f"test{study}" for study in range(8)]
    bundled("offline").infer(Path("outputs/t/bundle"), Path("data"), Path("found.csv"))
    found, submitted = (pd.read_csv(path, index_col="study") for path in ("found.csv", "outputs/t/submission.csv"))
    np.testing.assert_allclose(found, submitted, atol=1e-5)
    predictor = bundled("predictor").Predictor(Path("outputs/t/bundle"), Path("data"))
    assert predictor("test0")["sick"].item() == pytest.approx(submitted.sick["test0"], abs=1e-5)
    table = pd.read_csv("data/test.csv")
    images = [read_image(Path("data/test_images") / name, 3) for name in table.image_id[table.study == "test0"]]
    assert predictor("new", images[::-1])["sick"].item() == pytest.approx(submitted.sick["test0"], abs=1e-5)
    (Path("data/test_images") / table.image_id[table.study == "test1"].iloc[0]).write_bytes(b"no image")
    bundled("offline").infer(Path("outputs/t/bundle"), Path("data"), Path("found.csv"))
    forgiven = pd.read_csv("found.csv", index_col="study")
    np.testing.assert_allclose(forgiven.drop("test1"), submitted.drop("test1"), atol=1e-5)
    assert forgiven.sick["test1"] == pytest.approx(submitted.sick["test1"], abs=0.4)


def on_two(name: str) -> TaskConfig:
    """Return the config of a training on two processes whose groups are drawn, with columns of their images."""
    words = ["trainer.strategy=ddp", "trainer.devices=2", "trainer.precision=64-true", "trainer.max_epochs=2"]
    words += ["data.group_images=3", "data.batch_size=2", "checkpoint.every_steps=1", "ema.decay=0.5", f"name={name}"]
    return configure(Path("data"), *words, "data.columns.categorical=[study]", "model.join=gated_attention")


def train_unbroken_and_killed() -> None:
    unbroken, killed = on_two("unbroken"), on_two("killed")
    wait(fork_group(2, lambda rank: train(unbroken, resume=True)))
    kill_at(4, fork_group(2, lambda rank: train_until_killed(killed, 4)), killed.fold_folder / "latest.pt")
    wait(fork_group(2, lambda rank: train(killed, resume=True)))
    assert_ended_like(killed.fold_folder, unbroken.fold_folder)


@pytest.mark.slow
def test_groups_resume_to_the_same_end_and_two_processes_score_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_competition(Path("data"), 13, 2)
    make_folds(configure(Path("data")))
    run_as_script(__file__, tmp_path)
    alone = on_two("unbroken").model_copy(
        update={"trainer": {"accelerator": "cpu", "devices": 1, "precision": "64-true"}}
    )
    fold = OpenFold(alone)
    module = CompetitionModule(alone.model_dump(mode="json"), list(fold.table.classes))
    module.load_state_dict(load_checkpoint(alone.fold_folder / "latest.pt")["state_dict"])
    (scores,) = build_trainer(alone, []).validate(module, fold.data, verbose=False)
    last = {name: float(value) for name, value in rows(alone.fold_folder)[-1].items() if name.startswith("val/")}
    assert last == pytest.approx(scores, abs=1e-6)
    stored = Predictions(alone.fold_folder / "oof.npz")
    assert stored.image_ids == fold.val_set.image_ids.tolist()
    own = score_predictions(alone, fold.table, [alone.fold_folder / "oof.npz"])
    best = min(float(row["val/loss"]) for row in rows(alone.fold_folder))
    assert own["log_loss"] == pytest.approx(best, abs=1e-6)


if __name__ == "__main__":
    get_ready(["classification"])
    os.chdir(sys.argv[1])
    train_unbroken_and_killed()
