"""Columns of a table beside the images: what a fold learns of them, what is refused, a competition only they tell."""

import csv
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import PROJECT, TINY, bundled
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from trainings import run_here

from competition.config.loading import load_config, task_names, validate
from competition.config.optional_data import Columns
from competition.data.folds import make_folds
from competition.files.table_columns import ColumnValues
from competition.networks.beside import beside
from competition.networks.columns import ColumnJoin, fingerprint
from competition.notebook import OpenFold
from competition.prediction.stored import Predictions
from competition.support.errors import CompetitionError
from competition.tasks.classification.dataset import mix_batch
from competition.tasks.classification.model import build_network
from competition.tasks.classification.settings import TaskConfig
from competition.training.freezing import Frozen

Command = Callable[..., CompletedProcess[str]]
KEYS = {"train_csv": "train.csv", "test_csv": "test.csv"}
COLUMNS = ("data.columns={numeric: [age], categorical: [site]}", "data.test_csv=test.csv", "data.image_size=32")


def write(path: Path, header: list[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def make_competition(folder: Path, num_train: int, num_test: int) -> Path:
    """Write images of noise: who is older than 50 is sick, but in the west, where it is the others."""
    rng, rows = np.random.default_rng(0), dict[str, list[list[str]]]()
    for part, number in (("train", num_train), ("test", num_test)):
        (folder / f"{part}_images").mkdir(parents=True)
        rows[part] = []
        for name in (f"{part}{index}.png" for index in range(number)):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{part}_images" / name)
            age, site = rng.choice([*rng.uniform(20, 45, 4), *rng.uniform(55, 80, 4)]), rng.choice(["north", "west"])
            rows[part].append([name, f"{age:.1f}", site, "sick" if (age > 50) != (site == "west") else "well"])
    write(folder / "train.csv", ["image_id", "age", "site", "label"], rows["train"])
    write(folder / "test.csv", ["image_id", "age", "site"], (row[:3] for row in rows["test"]))
    write(folder / "sample_submission.csv", ["image_id", "sick", "well"], ([row[0], 0.5, 0.5] for row in rows["test"]))
    write(folder / "solution.csv", ["image_id", "label"], ([row[0], row[3]] for row in rows["test"]))
    return folder


def sites_apart(data: Path) -> None:
    """Move a column of both tables to a table of its own, which calls the images `scan`."""
    frames = {name: pd.read_csv(data / name, dtype=str) for name in ("train.csv", "test.csv")}
    sites = pd.concat(frames.values())[["image_id", "site"]].rename(columns={"image_id": "scan"})
    sites.sample(frac=1, random_state=0).to_csv(data / "sites.csv", index=False)
    for name, frame in frames.items():
        frame.drop(columns="site").to_csv(data / name, index=False)


APART = [f"data.{key}={file} & sites.csv on image_id=scan" for key, file in KEYS.items()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_competition(tmp_path / "data", 16, 4)


def configure(data: Path, *words: str) -> TaskConfig:
    config = load_config(
        [PROJECT / "configs" / "classification.yaml"],
        [*TINY, *COLUMNS, f"data.dir={data}", f"data.folds={data / 'folds.csv'}", *words],
    )
    assert isinstance(config, TaskConfig)
    return config


def change(path: Path, row: int, column: str, value: str) -> None:
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame.loc[row, column] = value
    frame.to_csv(path, index=False)


def known(config: TaskConfig) -> dict[str, Any]:
    """Return what the network of a fold has learnt of the columns before it is trained."""
    network = OpenFold(config).module().network
    [join] = [module for module in network.modules() if isinstance(module, ColumnJoin)]
    return join.known


def test_values_of_the_validation_fold_reach_neither_scales_nor_known_texts(data: Path) -> None:
    config = configure(data)
    make_folds(config)
    before = known(config)
    folds = pd.read_csv(data / "folds.csv")["fold"]
    for fold, is_same in ((0, True), (1, False)):
        row = int(np.flatnonzero(folds == fold)[0])
        change(data / "train.csv", row, "age", "1e6")
        change(data / "train.csv", row, "site", "moon")
        assert (known(config) == before) == is_same


def join_of(way: str = "concat") -> ColumnJoin:
    torch.manual_seed(0)
    join = ColumnJoin(Columns(numeric=["age"], categorical=["site"]), 8, way)  # ty: ignore[invalid-argument-type]
    values = ColumnValues(np.array([[10], [30], [np.nan]], np.float32), np.array([["a"], ["b"], [""]], dtype=object))
    join.fit(values)
    return join


def told(*pairs: tuple[float, str]) -> dict[str, torch.Tensor]:
    numbers = torch.tensor([[number] for number, _ in pairs])
    return {"numbers": numbers, "texts": torch.tensor([[fingerprint(text)] for _, text in pairs])}


def test_missing_and_unseen_values_have_places_of_their_own() -> None:
    join = join_of().eval()
    assert join.known == {"scales": [[20.0, 10.0]], "texts": [["a", "b"]]}
    nan = float("nan")
    rows = told((20, "a"), (20, "b"), (20, ""), (20, "new"), (20, "other"), (nan, "a"), (1e30, "a"), (1e20, "a"))
    same, b, missing, new, other, no_number, far, as_far = join(torch.zeros(8, 8), **rows)[:, 8:]
    torch.testing.assert_close(new, other)
    torch.testing.assert_close(far, as_far)
    apart = [same, b, missing, new, no_number, far]
    assert all(not torch.allclose(one, two) for i, one in enumerate(apart) for two in apart[:i])


@pytest.mark.parametrize("way", ["concat", "film"])
def test_what_is_known_goes_with_the_weights_and_no_average_changes_it(way: str) -> None:
    join, features, rows = join_of(way).eval(), torch.randn(3, 8), told((10, "a"), (25, "b"), (3, "c"))
    if way == "film":
        torch.testing.assert_close(join(features, **rows), features)  # as if there were none, at the start
        torch.nn.init.normal_(join.film.weight)
    average = AveragedModel(join, avg_fn=get_ema_avg_fn(0.5), use_buffers=True)
    for _ in range(3):
        average.update_parameters(join)
    fresh = ColumnJoin(join.columns, 8, way)  # ty: ignore[invalid-argument-type]
    fresh.load_state_dict({name: value.clone() for name, value in average.module.state_dict().items()})
    assert fresh.known == join.known
    torch.testing.assert_close(fresh.eval()(features, **rows), join(features, **rows))


def test_training_hides_values_so_that_stand_ins_learn(data: Path) -> None:
    join = join_of().train()
    rows = told(*[(20, "a")] * 400)
    join(torch.zeros(400, 8), **rows).sum().backward()
    [embedding] = join.embeddings
    slope = embedding.get_parameter("weight").grad
    assert slope is not None
    assert (slope.abs().sum(dim=1) > 0).tolist() == [True, True, True, False]  # missing, unknown, a; never b


def test_mixed_images_mix_what_columns_say(data: Path) -> None:
    config = configure(data, "mix.mixup=1.0")
    make_folds(config)
    fold = OpenFold(config)
    batch = fold.train_set.collate([fold.train_set[index] for index in range(4)])
    mixed = mix_batch(batch | {"image": batch["image"].float()}, config, np.random.default_rng(0))
    network = fold.module().network.eval()
    join = network.get_submodule("columns")
    features = torch.zeros(4, 64)
    with torch.no_grad():
        plain, found = (join(features, **beside(one))[:, 64:] for one in (batch, mixed))
    share = mixed["share"]
    torch.testing.assert_close(found, plain * share + plain[mixed["partners"]] * (1 - share))


def test_without_columns_the_network_is_that_of_timm(data: Path) -> None:
    config = configure(data, "data.columns=null")
    expected = timm.create_model("test_resnet", num_classes=2).state_dict()
    assert {name: value.shape for name, value in build_network(config, 2).state_dict().items()} == {
        name: value.shape for name, value in expected.items()
    }


def test_the_encoder_rests_and_begins_with_other_weights_as_ever(data: Path, tmp_path: Path) -> None:
    network = build_network(configure(data), 2)
    resting = Frozen(network, configure(data, "model.freeze=encoder").model).names
    assert resting == {name for name, _ in network.named_parameters() if name.startswith("encoder.")}
    save_file(network.state_dict(), tmp_path / "told.safetensors")
    pretrained = f"model.pretrained={tmp_path / 'told.safetensors'}"
    for words in ([], ["data.columns=null"]):
        state = build_network(configure(data, pretrained, *words), 2).state_dict()
        name = "conv1.0.weight" if words else "encoder.conv1.0.weight"
        assert torch.equal(state[name], network.state_dict()["encoder.conv1.0.weight"])


@pytest.mark.parametrize(
    ("encoder", "pool"),
    [
        ("test_resnet", None),
        ("test_resnet", "catavgmax"),
        ("test_resnet", "gem"),
        ("test_vit", "avg"),
        ("test_convnext", None),
        ("test_efficientnet", "catavgmax"),
    ],
)
def test_any_encoder_hands_over_its_features(encoder: str, pool: str | None, data: Path) -> None:
    words = [f"model.encoder={encoder}", "data.image_size=160", *([f"model.pool={pool}"] if pool else [])]
    network = build_network(configure(data, *words), 3).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 160, 160)).shape == (2, 3)


@pytest.mark.parametrize(
    ("file", "column", "cell", "said"),
    [
        ("train.csv", "age", "old", r"train\.csv: line 4: found 'old'; column age: expected a number, or nothing"),
        ("test.csv", "age", "inf", r"test\.csv: line 4: found 'inf'; column age: expected a number, or nothing"),
        ("test.csv", "image_id", "x.png", r"test\.csv: has no row of image 'test2\.png', of which data\.columns needs"),
    ],
)
def test_check_names_file_row_and_column(
    file: str, column: str, cell: str, said: str, data: Path, command: Command
) -> None:
    change(data / file, 2, column, cell)
    done = command("check", PROJECT / "configs" / "classification.yaml", *COLUMNS, f"data.dir={data}")
    assert done.returncode == 1
    assert re.search(said, done.stderr), done.stderr


def test_a_column_that_a_table_lacks_is_named_and_unseen_texts_are_told(data: Path, command: Command) -> None:
    words = [PROJECT / "configs" / "classification.yaml", *COLUMNS, f"data.dir={data}", "data.near_duplicates=false"]
    change(data / "test.csv", 1, "site", "moon")
    done = command("check", *words)
    assert done.returncode == 0, done.stderr
    assert "column site: 1 test images have a value that no training image has, as 'moon'" in done.stdout
    done = command("check", *words, "data.columns.numeric=[weight]")
    assert done.returncode == 1
    assert "train.csv: column 'weight' is missing" in done.stderr


def test_check_names_images_that_a_table_beside_train_csv_lacks(data: Path, command: Command) -> None:
    words = [PROJECT / "configs" / "classification.yaml", *COLUMNS, *APART, f"data.dir={data}"]
    sites_apart(data)
    row = pd.read_csv(data / "sites.csv")["scan"].tolist().index("test2.png")
    change(data / "sites.csv", row, "site", "moon")
    done = command("check", *words)
    assert done.returncode == 0, done.stderr
    assert "column site: 1 test images have a value that no training image has, as 'moon'" in done.stdout
    change(data / "sites.csv", row, "scan", "lost.png")
    done = command("check", *words)
    assert done.returncode == 1
    assert "test.csv & sites.csv on image_id=scan: 1 of 4 rows have no row in sites.csv, as test2.png" in done.stderr


@pytest.mark.parametrize("task", [name for name in task_names() if name != "classification"])
def test_networks_that_look_at_images_alone_refuse_columns(task: str) -> None:
    values = {"name": "t", "task": task, "data": {"columns": {"numeric": ["age"]}}}
    with pytest.raises(CompetitionError, match=rf"data\.columns: networks of {task} look at images alone"):
        validate(values, {}, "test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let the whole path run on a competition whose images tell nothing, and one of whose columns stands in a table of
    its own."""
    folder = tmp_path_factory.mktemp("told")
    sites_apart(make_competition(folder / "data", 48, 12))
    words = [*TINY, *COLUMNS, *APART, "name=t", "data.num_folds=2", "trainer.max_epochs=8", "optimizer.lr=0.02"]
    words += ["model.join_columns=film", "data.augmentation={horizontal_flip: 0.5}", "tta=[hflip]"]
    done = run_here(folder, [PROJECT / "configs" / "classification.yaml", *words])
    assert done.returncode == 0, done.stdout
    return folder


@pytest.mark.slow
def test_what_only_columns_tell_is_learnt_and_bundled(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    scores = pd.read_csv("outputs/t/cv.csv", index_col=0)
    assert scores["accuracy"]["pooled"] > 0.75, scores  # by the images alone one half is right
    bundled("offline").infer(Path("outputs/t/bundle"), Path("data"), Path("found.csv"))
    found, submitted = (pd.read_csv(path, index_col=0) for path in ("found.csv", "outputs/t/submission.csv"))
    np.testing.assert_allclose(found, submitted, atol=1e-5)
    predictor = bundled("predictor").Predictor(Path("outputs/t/bundle"), Path("data"))
    image_id = submitted.index[0]
    [row] = predictor(image_id).to_dict("records")
    assert row["sick"] == pytest.approx(submitted.loc[image_id, "sick"], abs=1e-5)
    age, own = (pd.read_csv(f"data/{name}.csv", index_col=0).loc[image_id].item() for name in ("test", "sites"))
    given = {
        site: predictor(image_id, columns={"age": str(age), "site": site})["sick"].item() for site in ("north", "west")
    }
    assert given[own] == pytest.approx(row["sick"], abs=1e-5)
    assert abs(given["north"] - given["west"]) > 0.3
    with pytest.raises(CompetitionError, match=r"columns: the networks of this bundle look at age, site; found 'sex'"):
        predictor(image_id, columns={"sex": "F"})
    with pytest.raises(CompetitionError, match=r"found 'old'; column age: expected a number"):
        predictor(image_id, columns={"age": "old"})


@pytest.mark.slow
def test_predictions_go_by_what_the_fold_knew_whatever_train_csv_says_now(
    trained: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    before = Predictions(Path("outputs/t/test.npz"))[0]
    for row in range(20):
        change(Path("data/train.csv"), row, "age", "1e6")
    done = command("predict", "t")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        Predictions(Path("outputs/t/test.npz"))[0]["probabilities"], before["probabilities"], atol=1e-6
    )
