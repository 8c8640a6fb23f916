"""What another run says of an image is learnt of that image, whatever becomes of it; and what is refused."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from tiny import PROJECT, TINY
from torch import Tensor, nn
from trainings import call, write_teacher

from competition.config.loading import load_config, validate
from competition.data.dataset import Batch
from competition.data.folds import make_folds
from competition.notebook import OpenFold, open_fold
from competition.pipeline.train_fold import note_tables
from competition.prediction.stored import Predictions
from competition.runs.folder import LATEST, remember_config
from competition.runs.provenance import data_fingerprint
from competition.support.errors import CompetitionError
from competition.tasks.classification.loss import image_losses
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample

Command = Callable[..., CompletedProcess[str]]
CONFIG = PROJECT / "configs" / "classification.yaml"
PSEUDO = "data.pseudo=data/solution.csv"
TAUGHT = ("loss.distil.run=big", "loss.distil.weight=0.25", "loss.distil.temperature=3")


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    write_sample("classification", Path("data"), size=24)
    make_folds(load_config([CONFIG], list(TINY)))
    return [*TINY, *TAUGHT, "data.image_size=32"]


def marks(words: list[str]) -> dict[str, np.ndarray]:
    """Write a teacher that says something else of each image; return that."""
    config = load_config([CONFIG], words)
    table, rng = Task(config.task).table.read_table(config), np.random.default_rng(0)
    said = {str(one): rng.dirichlet(np.ones(len(table.classes))) for one in table.image_ids}
    ids = Task(config.task).submission.read_test_ids(config, table.classes)
    tests = {str(one): rng.dirichlet(np.ones(len(table.classes))) for one in ids}
    write_teacher(config, "big", {"fold0/oof.npz": said, "test.npz": tests}, table.classes)
    return said | tests


def opened(words: list[str], *more: str) -> OpenFold:
    return open_fold(str(CONFIG), *words, *more)


def test_each_image_is_taught_what_was_said_of_it_augmented_or_a_pseudo_label(words: list[str]) -> None:
    said = marks(words)
    fold = opened(words, PSEUDO, "data.batch_size=8")
    batches = [fold.batch(number) for number in range(2)]
    ids = [image_id for batch in batches for image_id in batch["image_id"]]
    assert {one in set(fold.table.image_ids) for one in ids} == {True, False}  # test images, too
    found = torch.cat([batch["teacher"] for batch in batches]).numpy()
    np.testing.assert_array_equal(found, np.stack([said[one] for one in ids]).astype(np.float32))


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_of_mixed_images_it_is_mixed_as_they_are(way: str, words: list[str]) -> None:
    said = marks(words)
    plain, mixed = (opened(words, *more).batch() for more in ((), (f"mix.{way}=1", "mix.probability=1")))
    share, own = float(mixed["share"]), np.stack([said[one] for one in plain["image_id"]])
    others = (mixed["teacher"].numpy() - share * own) / (1 - share)
    partners = np.array([np.abs(own - other).sum(axis=1).argmin() for other in others])
    np.testing.assert_allclose(others, own[partners], atol=1e-4)
    assert sorted(partners) == list(range(len(own)))
    assert torch.equal(mixed["partner"], plain["label"][partners])
    if way == "mixup":
        expected = plain["image"] * share + plain["image"][partners] * (1 - share)
        torch.testing.assert_close(mixed["image"], expected)


def losses_of(fold: OpenFold, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the logits and losses of a batch by a network that is always the same."""
    torch.manual_seed(0)
    module = fold.module().eval()
    with torch.no_grad():
        return module(batch), module.image_losses(batch)


def test_the_loss_is_the_divergence_of_flattened_probabilities_by_its_weight(words: list[str]) -> None:
    marks(words)
    fold = opened(words)
    batch = fold.batch()
    logits, both = losses_of(fold, batch)
    _, own = losses_of(fold, {key: value for key, value in batch.items() if key != "teacher"})
    powers = [one.double() ** (1 / 3) for one in (batch["teacher"], logits.double().softmax(dim=1))]
    known, found = (one / one.sum(dim=1, keepdim=True) for one in powers)
    expected = 0.25 * 9 * (known * (known / found).log()).sum(dim=1)
    torch.testing.assert_close((both - own).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["multi", "regression", "bounded"])
def test_who_says_what_the_teacher_says_loses_nothing_and_learns_towards_it(form: str) -> None:
    bounds = {"bounds": [0, 10]} if form == "bounded" else {}
    kind = "regression" if form == "bounded" else form
    values: dict[str, Any] = {"name": "t", "task": "classification", "metrics": ["rmse" if bounds else "mae"]}
    values |= {"format": {"target": kind, "train": {"layout": "columns"}} | bounds}
    values |= {"loss": {"distil": {"run": "big"}}} | ({} if kind == "regression" else {"metrics": ["roc_auc"]})
    config = validate(values, {}, "test")
    assert isinstance(config, TaskConfig)
    outputs = torch.tensor([[2.0, -1.0]], requires_grad=True)
    said = outputs.detach() if form == "regression" else outputs.detach().sigmoid() * (10 if bounds else 1)
    key = "value" if kind == "regression" else "labels"
    batch = {key: torch.full((1, 2), 1.0)}
    own, same, other = (
        image_losses(nn.Identity(), outputs, batch | more, config)
        for more in ({}, {"teacher": said}, {"teacher": said * 0.5})
    )
    torch.testing.assert_close(same, own)
    assert float(other.detach()) > float(own.detach())
    (slope,) = torch.autograd.grad((other - own).sum(), outputs)
    assert (slope[0] * (said - said * 0.5)[0] > 0).all()  # downhill is towards what the teacher says


def test_validation_has_the_loss_of_the_truth_alone(words: list[str]) -> None:
    marks(words)
    fold = opened(words)
    assert "teacher" not in fold.val_set.collate([fold.val_set[0]])


def test_images_of_a_further_set_are_learnt_by_their_labels_alone(words: list[str]) -> None:
    marks(words)
    fold = opened(words, "data.extra=[{csv: train.csv, weight: 1}]", "data.batch_size=16")
    batch = fold.batch()
    of_set = torch.tensor([one.startswith("extra0/") for one in batch["image_id"]])
    assert 0 < int(of_set.sum()) < 16
    assert torch.equal(batch["teacher"].isnan().all(dim=1), of_set)
    _, both = losses_of(fold, batch)
    _, own = losses_of(fold, {key: value for key, value in batch.items() if key != "teacher"})
    assert torch.equal(both != own, ~of_set)


def test_a_run_is_known_to_be_made_of_what_its_teacher_says(words: list[str]) -> None:
    def fingerprints() -> list[str]:
        return [data_fingerprint(load_config([CONFIG], [*words, *more])) for more in ([], [PSEUDO])]

    said, before = marks(words), fingerprints()
    table = Task("classification").table.read_table(load_config([CONFIG], words))
    other = {"test.npz": {one: 1 - values for one, values in said.items()}}
    write_teacher(load_config([CONFIG], words), "big", other, table.classes)
    assert [one != other for one, other in zip(before, fingerprints(), strict=True)] == [False, True]
    write_teacher(load_config([CONFIG], words), "big", {"fold0/oof.npz": other["test.npz"]}, table.classes)
    assert fingerprints()[0] != before[0]


# -- refusals


def test_a_run_learns_by_one_teacher_as_it_says_it_now(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    package = "competition.support.freshness.PACKAGE"
    monkeypatch.setattr(package, Path.cwd() / "competition")
    folds = [load_config([CONFIG], [*words, PSEUDO, f"fold={fold}"]) for fold in (0, 1)]
    said = marks(words)
    folds[0].fold_folder.mkdir(parents=True)
    note_tables(folds[0])
    remember_config(folds[0].fold_folder, folds[0])
    (folds[0].fold_folder / LATEST).touch()
    folds[1].fold_folder.mkdir()
    for config in folds:
        note_tables(config)
    table = Task("classification").table.read_table(folds[0])
    more = dict.fromkeys(("fold1/oof.npz", "fold0/test.npz"), said)  # it was trained further, and asked
    write_teacher(folds[0], "big", more, table.classes)
    monkeypatch.setattr(package, Path.cwd() / "elsewhere" / "competition")  # it was copied
    for config in folds:
        note_tables(config)
    write_teacher(folds[0], "big", {"fold0/oof.npz": {one: 1 - values for one, values in said.items()}}, table.classes)
    with pytest.raises(CompetitionError, match=r"oof\.npz: is another than when .*fold0 was begun, which would"):
        note_tables(folds[0])
    with pytest.raises(CompetitionError, match=r"oof\.npz: is another than when .*fold0 was begun, which learnt"):
        note_tables(folds[1])
    other = load_config([CONFIG], [*words, "name=other"])
    other.fold_folder.mkdir(parents=True)
    note_tables(other)


def test_an_image_it_says_nothing_of_and_other_classes_are_one_line(words: list[str], command: Command) -> None:
    config = load_config([CONFIG], words)
    table = Task(config.task).table.read_table(config)
    said = {str(one): np.full(len(table.classes), 0.5) for one in table.image_ids[3:]}
    write_teacher(config, "big", {"fold0/oof.npz": said}, table.classes)
    done = command("train", str(CONFIG), *words)
    assert done.returncode == 1
    assert done.stderr.startswith("loss.distil.run: outputs/big/fold0/oof.npz say nothing of the image ")
    assert len(done.stderr.splitlines()) == 1
    assert not Path("outputs/classification").exists() or not list(Path("outputs/classification").rglob("config.yaml"))
    write_teacher(config, "big", {"fold0/oof.npz": said}, ["x", *table.classes[1:]])
    with pytest.raises(CompetitionError, match=r"oof\.npz: is of the classes x, "):
        opened(words)


def test_a_run_that_is_not_there_or_is_itself_is_one_line(words: list[str]) -> None:
    with pytest.raises(CompetitionError, match="outputs/big: no such run; "):
        opened(words)
    with pytest.raises(CompetitionError, match=r"loss\.distil\.run: found big, this run itself"):
        opened(words, "name=big")


# -- what it is good for


@pytest.mark.slow
def test_what_only_another_run_knows_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_sample("classification", Path("data"), size=60)
    header, *rows = Path("data/train.csv").read_text().splitlines()
    truth = dict(row.split(",") for row in rows)
    classes = sorted(set(truth.values()))
    shuffled = np.random.default_rng(0).permutation(list(truth.values()))  # train.csv tells nothing
    Path("data/train.csv").write_text("\n".join([header, *map(",".join, zip(truth, shuffled, strict=True))]) + "\n")
    words = [*TINY, "data.image_size=32", "trainer.max_epochs=12", "optimizer.lr=3e-3", "model.encoder=test_resnet"]
    make_folds(load_config([CONFIG], words))
    said = {one: (np.array(classes) == label) * 0.9 + 0.1 / len(classes) for one, label in truth.items()}
    write_teacher(load_config([CONFIG], words), "big", {"fold0/oof.npz": said}, classes)
    right = {}
    for name, more in {"alone": [], "taught": [*TAUGHT, "loss.distil.weight=10"]}.items():
        assert call("train", CONFIG, *words, *more, "checkpoint.predict_with=latest", f"name={name}") == 0
        stored = Predictions(Path("outputs", name, "fold0", "oof.npz"))
        found = [classes[one["probabilities"].argmax()] == truth[image_id] for image_id, _, one in stored]
        right[name] = np.mean(found)
    assert right["taught"] > right["alone"] + 0.2
