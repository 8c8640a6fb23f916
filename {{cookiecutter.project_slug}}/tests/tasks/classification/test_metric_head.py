"""Heads that learn distances: margins, answers by the nearest training images, classes that are new."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY
from torch.nn import functional
from trainings import call, run_here, run_on_two

from competition.config.loading import load_config
from competition.config.settings import with_decode
from competition.data.folds import read_folds
from competition.prediction.stored import Predictions
from competition.runs.folder import read_metrics
from competition.scoring.out_of_fold import score_predictions
from competition.support.errors import CompetitionError
from competition.support.optional_rooms import has_room
from competition.tasks.classification.decode import average, decode
from competition.tasks.classification.metric_head import MetricHead
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.settings.model import ClassificationModel
from competition.tasks.contract import Task
from competition.training.checkpoint import load_checkpoint

HEADS = ("arcface", "subcenter_arcface", "cosface")
CONFIG = """
task: classification
data: {num_folds: 2, augmentation: {horizontal_flip: 0.5}}
format: {new: new_one, train: {column: name}, submission: {layout: top}}
model: {head: subcenter_arcface, metric_learning: {size: 16, margin: 0.2, scale: 12, centers: 2}}
loss: {cross_entropy: 1}
metrics: [map5, accuracy]
checkpoint: {monitor: val/map5}
"""


def head(kind: str, num_classes: int = 5, **learnt: float) -> MetricHead:
    torch.manual_seed(0)
    model = ClassificationModel.model_validate({"head": kind, "metric_learning": {"size": 6, **learnt}})
    return MetricHead(8, num_classes, model)


def test_a_class_is_as_near_as_its_nearest_image_and_one_without_images_is_farthest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("competition.tasks.classification.metric_head.AT_ONCE", 7)
    part = head("arcface", scale=10).eval()
    features, known = torch.randn(9, 8), functional.normalize(torch.randn(50, 6), dim=1).half()
    labels = torch.randint(0, 4, (50,))  # none is of class 4
    part.remember(known, labels)
    embedded = (features @ part.embed.weight.T).detach().numpy()
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    cosines = embedded @ known.float().numpy().T
    wanted = np.stack([cosines[:, labels.numpy() == number].max(axis=1) for number in range(4)], axis=1)
    found = part(features).detach().numpy()
    np.testing.assert_allclose(found[:, :4], 10 * wanted, atol=1e-4)
    assert (found[:, 4] == -10).all()


@pytest.mark.parametrize("kind", HEADS)
def test_the_true_class_alone_is_short_of_the_margin(kind: str) -> None:
    part = head(kind, margin=0.4, scale=20)
    cosines = torch.linspace(-1, 1, 35).view(7, 5)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    found = part.logits(cosines, functional.one_hot(labels, 5).float())
    for row, (given, label) in enumerate(zip(cosines.tolist(), labels.tolist(), strict=True)):
        angle = math.acos(given[label])
        less = given[label] - 0.4 if kind == "cosface" else math.cos(angle + 0.4)
        if kind != "cosface" and angle + 0.4 > math.pi:
            less = given[label] - 0.4 * math.sin(0.4)
        wanted = [value if place != label else less for place, value in enumerate(given)]
        torch.testing.assert_close(found[row], 20 * torch.tensor(wanted), atol=2e-3, rtol=0)
    assert torch.equal(part.eval().logits(cosines, functional.one_hot(labels, 5).float()), cosines)


@pytest.mark.parametrize("kind", HEADS)
def test_gradients_are_finite_where_an_image_lies_on_a_centre_or_opposite(kind: str) -> None:
    part = head(kind)
    cosines = torch.tensor([[1.0, -1.0, 0.0, 0.5, 1.0], [-1.0, 1.0, 0.0, 0.5, -1.0]], requires_grad=True)
    truth = functional.one_hot(torch.tensor([0, 0]), 5).float()
    functional.cross_entropy(part.logits(cosines, truth), truth).backward()
    assert cosines.grad is not None
    assert cosines.grad.isfinite().all()


def test_what_is_remembered_goes_with_the_weights_and_is_no_parameter_and_no_buffer() -> None:
    part, other = head("arcface"), head("arcface")
    assert set(part.state_dict()) == {"embed.weight", "weight"}
    part.remember(torch.randn(3, 6).half(), torch.tensor([0, 1, 1]))
    assert not list(part.buffers())
    other.load_state_dict(part.state_dict())
    assert torch.equal(other.eval()(torch.ones(1, 8)), part.eval()(torch.ones(1, 8)))
    part.forget()
    other.load_state_dict(part.state_dict())
    assert other.embeddings is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["format.target=multi", "format.train.layout=columns", "loss.bce=1"], "found multi"),
        (["model.head=arcface", "loss.focal=1"], "found focal"),
        (["model.head=arcface", "data.window={size: 32}"], "does not go with data.window"),
        (["optimizer.name=schedulefree_adamw", "scheduler.name=constant"], "does not go with schedulefree_adamw"),
    ],
)
def test_what_cannot_be_learnt_so_is_refused_in_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("task: classification\nmodel: {head: cosface}\n")
    with pytest.raises(CompetitionError, match=said):
        load_config([path], words)


def of_new_classes(**decode_keys: float) -> TaskConfig:
    config = TaskConfig.model_validate(
        {
            "name": "t",
            "task": "classification",
            "format": {"new": "new_one", "submission": {"layout": "top"}},
            "model": {"head": "arcface"},
        }
    )
    return with_decode(config, decode_keys)


def test_a_network_that_never_saw_a_class_has_no_say_in_it() -> None:
    said = [{"probabilities": np.array(each, np.float32)} for each in ([0.8, 0.0, 0.2], [0.6, 0.9, 0.4])]
    np.testing.assert_allclose(average(said, of_new_classes())["probabilities"], [0.7, 0.9, 0.3], atol=1e-6)
    weighted = average(said, of_new_classes(), [3, 1])["probabilities"]
    np.testing.assert_allclose(weighted, [0.75, 0.9, 0.25], atol=1e-6)


def test_an_image_of_a_class_that_was_never_seen_is_rightly_called_new() -> None:
    config = of_new_classes(new_threshold=0.7)
    answer = decode({"probabilities": np.array([0.6, 0.0, 0.5], np.float32)}, 1, 1, config)
    score = Task("classification").score
    for label, wanted in ((1, 1.0), (0, 0.5), (2, 1 / 3)):
        case = score.evidence(answer, {"label": label}, ["map5"])
        assert score.scores([case], ["map5"], 3)["map5"] == pytest.approx(wanted)


# -- a competition of many classes with few images each, some of which are in one fold only, and of new ones


HUES = 16
RARE = (4, 8, 12)  # hues of which train.csv has one image: in one of two folds their class is new
IN_TEST = 4  # images of each class, and of as many new ones


def draw(path: Path, hue: float, rng: np.random.Generator) -> None:
    """Draw a disc, whose hue is that of its class, on grey."""
    size = 64
    y, x = np.mgrid[:size, :size]
    center, radius = rng.uniform(24, 40, 2), rng.uniform(12, 20)
    inside = ((y - center[0]) ** 2 + (x - center[1]) ** 2 < radius**2)[..., None]
    color = Image.new("HSV", (1, 1), (round(hue * 255), 255, round(rng.uniform(200, 255)))).convert("RGB")
    pixels = np.where(inside, np.asarray(color), 128) + rng.normal(0, 6, (size, size, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a competition: even hues are known (some by one image), odd ones are new."""
    folder, rng = tmp_path_factory.mktemp("hues"), np.random.default_rng(0)
    rows = []
    for number in range(0, HUES, 2):
        for image in range(1 if number in RARE else 8):
            rows.append((f"h{number}_{image}.png", f"hue{number}"))
            draw(folder / "data/train_images" / rows[-1][0], number / HUES, rng)
    write(folder / "data/train.csv", ["image_id", "name"], rows)
    tests = [(f"t{number}_{image}.png", number) for number in range(HUES) for image in range(IN_TEST)]
    for name, number in tests:
        draw(folder / "data/test_images" / name, number / HUES, rng)
    first = " ".join(["new_one", *sorted({name for _, name in rows})][:5])
    write(folder / "data/sample_submission.csv", ["image_id", "predictions"], [(name, first) for name, _ in tests])
    solution = [(name, f"hue{number}" if number % 2 == 0 else "new_one") for name, number in tests]
    write(folder / "solution.csv", ["image_id", "name"], solution)
    (folder / "c.yaml").write_text(CONFIG)
    return folder


def write(path: Path, header: list[str], rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


WORDS = [*TINY, "data.image_size=32", "data.batch_size=6", "trainer.max_epochs=8", "optimizer.lr=0.01"]


@pytest.fixture(scope="module")
def run_of_heads(competition: Path) -> Path:
    done = run_here(competition, ["c.yaml", *WORDS, "ema.decay=0.9"])
    assert done.returncode == 0, done.stdout
    return competition


@pytest.mark.slow
def test_known_classes_are_told_apart_and_new_ones_called_new_through_the_bundle(run_of_heads: Path) -> None:
    folder = run_of_heads / "outputs/c"
    with (folder / "submission.csv").open(newline="") as file:
        answers = {row["image_id"]: row["predictions"].split() for row in csv.DictReader(file)}
    with (run_of_heads / "solution.csv").open(newline="") as file:
        truth = {row["image_id"]: row["name"] for row in csv.DictReader(file)}
    common = [name for name, label in truth.items() if label != "new_one" and int(label[3:]) not in RARE]
    new = [name for name, label in truth.items() if label == "new_one"]
    known = np.mean([next(a for a in answers[name] if a != "new_one") == truth[name] for name in common])
    stored = Predictions(folder / "test.npz")
    sure = {name: stored[at]["probabilities"].max() for at, name in enumerate(stored.image_ids)}
    less_sure = np.mean([sure[one] > sure[other] for one in common for other in new])
    assert known > 0.7  # by chance an eighth
    assert less_sure > 0.8  # of pairs of a common and a new one; by chance half
    assert load_config([folder / "fold0/config.yaml", folder / "postprocess.yaml"]).decode.new_threshold != 0.5
    assert (folder / "bundle").is_dir() == has_room(
        "bundle"
    )  # which has predicted some images again, and found the same


@pytest.mark.slow
def test_what_was_validated_is_what_is_saved_predicted_and_scored(run_of_heads: Path) -> None:
    look_at(run_of_heads / "outputs/c/fold0", run_of_heads / "data")


@pytest.mark.slow
def test_two_processes_remember_each_image_once_and_score_as_one_does(
    run_of_heads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_of_heads)
    run_on_two(
        "train", "c.yaml", *WORDS, "trainer.max_epochs=1", "trainer.devices=2", "trainer.strategy=ddp", "name=two"
    )
    look_at(run_of_heads / "outputs/two/fold0", run_of_heads / "data")


@pytest.mark.slow
def test_weights_of_an_epoch_that_was_not_validated_remember_too(
    run_of_heads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_of_heads)
    rare = ["trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2", "checkpoint.predict_with=latest", "name=rare"]
    assert call("train", "c.yaml", *WORDS, *rare) == 0
    state = load_checkpoint(run_of_heads / "outputs/rare/fold0/latest.pt")["state_dict"]
    assert [key for key in state if key.endswith(".remembered")]


def look_at(folder: Path, data: Path) -> None:
    """Look whether the best weights remember the training images, and were validated by that."""
    best = load_checkpoint(folder / "best_score.pt")
    state = best["state_dict"]
    [name] = [key for key in state if key.endswith(".remembered")]
    config = load_config([folder / "config.yaml"], [f"data.dir={data}"])
    table = Task(config.task).table.read_table(config)
    rows = np.flatnonzero(read_folds(config, table) != 0)
    assert len(state[name]) == len(rows)
    labels = state[f"{name}_labels"].tolist()
    assert labels == [table.target(int(row), 1, 1)["label"] for row in rows]
    stored = Predictions(folder / "oof.npz")
    unseen = sorted(set(range(len(table.classes))) - set(labels))
    assert unseen
    for index in range(len(stored)):
        zero = np.flatnonzero(stored[index]["probabilities"] == 0).tolist()
        assert zero == unseen
    [validated] = [row for row in read_metrics(folder) if int(row["epoch"]) == best["epoch"] + 1]
    [scored] = [score_predictions(config, table, [folder / "oof.npz"])["map5"]]
    assert float(validated["val/map5"]) == pytest.approx(scored, abs=1e-6)
