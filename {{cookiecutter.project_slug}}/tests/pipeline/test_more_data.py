"""What pays: a further set of images, wrong labels that are found, pseudo-labels in rounds; trainings that learn."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from trainings import run_here

from competition.config.loading import load_config, task_names
from competition.files.maps import write_maps
from competition.prediction.stored import Predictions
from competition.support.optional_rooms import has_room

Command = Callable[..., CompletedProcess[str]]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("classification" not in task_names(), reason="tried with classes"),
]
SIDE, FEW, MANY, WRONG = 32, 24, 160, 12
WORDS = (
    *("model.encoder=test_resnet", "data.image_size=32", "data.batch_size=8", "data.num_workers=0", "data.num_folds=2"),
    *("trainer.accelerator=cpu", "trainer.max_epochs=6", "optimizer.lr=0.01", "data.augmentation={}"),
    *("metrics=[accuracy, log_loss]", "data.classes=[across, down]"),
)


def write_stripes(folder: Path, number: int, seed: int, prefix: str) -> pd.DataFrame:
    """Write images of stripes across or down, in noise; return their labels."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(seed), []
    for index in range(number):
        label = ["across", "down"][int(rng.integers(2))]
        wave = np.sin(np.arange(SIDE) * rng.uniform(0.6, 1.0) + rng.uniform(0, 6.3))
        pixels = 128 + 40 * (wave[:, None] if label == "across" else wave[None]) + rng.normal(0, 70, (SIDE, SIDE))
        image_id = f"{prefix}{index:03}.png"
        cv2.imwrite(str(folder / image_id), np.repeat(np.clip(pixels, 0, 255).astype(np.uint8)[..., None], 3, axis=2))
        rows.append((image_id, label))
    return pd.DataFrame(rows, columns=["image_id", "label"])


@pytest.fixture
def stripes(tmp_path: Path, command: Command, project: Path) -> list[str]:
    """Make a competition of few images, and beside it a set of many; return a config file and words."""
    data = tmp_path / "data"
    write_stripes(data / "train_images", FEW, 0, "train").to_csv(data / "train.csv", index=False)
    test = write_stripes(data / "test_images", FEW, 1, "test")
    test.to_csv(data / "solution.csv", index=False)
    sample = test[["image_id"]].assign(across=0.5, down=0.5)
    sample.to_csv(data / "sample_submission.csv", index=False)
    more = write_stripes(tmp_path / "more" / "images", MANY, 2, "train")
    more.assign(label=more["label"].map({"across": "h", "down": "v"})).to_csv(tmp_path / "more/labels.csv", index=False)
    return [str(project / "configs" / "classification.yaml"), *WORDS, f"data.dir={data}"]


def accuracy(folder: Path, truth: pd.Series) -> float:
    stored = [Predictions(path) for path in sorted(folder.glob("fold*/oof.npz"))]
    return float(np.mean([one["probabilities"].argmax() == truth[name] for file in stored for name, _, one in file]))


def test_a_further_set_pays(stripes: list[str], command: Command, tmp_path: Path) -> None:
    assert command("folds", *stripes).returncode == 0
    extra = (
        f"data.extra=[{{dir: {tmp_path / 'more'}, csv: labels.csv, images: images, classes: {{h: across, v: down}}}}]"
    )
    for words in (["name=few", "trainer.max_epochs=3"], ["name=many", "trainer.max_epochs=3", extra]):
        if extra in words:
            assert "160 images more in the training part" in command("check", *stripes, *words).stdout
        for fold in (0, 1):
            done = command("train", *stripes, *words, f"fold={fold}")
            assert done.returncode == 0, done.stderr
    frame = pd.read_csv(tmp_path / "data" / "train.csv", index_col="image_id")["label"]
    truth = (frame == "down").astype(int)
    few, many = (accuracy(tmp_path / "outputs" / name, truth) for name in ("few", "many"))
    assert many > few + 0.2
    assert many > 0.85


def test_what_another_run_says_of_pixels_pays(stripes: list[str], command: Command, tmp_path: Path) -> None:
    frame = pd.read_csv(tmp_path / "data" / "train.csv", index_col="image_id")["label"]
    truth = (frame == "down").astype(int)
    said = (("train", str(name), np.full((1, 4, 4), down, np.float32), (SIDE, SIDE)) for name, down in truth.items())
    write_maps(tmp_path / "outputs" / "masks" / "maps", ["down"], said)
    assert command("folds", *stripes).returncode == 0
    maps = ["data.maps={run: masks, classes: [down]}", "data.channels=6"]
    for words in (["name=plain"], ["name=told", *maps]):
        done = command("train", *stripes, "trainer.max_epochs=3", *words)
        assert done.returncode == 0, done.stderr
    plain, told = (accuracy(tmp_path / "outputs" / name, truth) for name in ("plain", "told"))
    assert told > plain + 0.2


@pytest.mark.skipif(not has_room("pages"), reason="this repo has no pages")
def test_wrong_labels_are_found_by_networks_that_have_not_seen_them(
    stripes: list[str], command: Command, tmp_path: Path
) -> None:
    frame = pd.read_csv(tmp_path / "more" / "labels.csv")
    planted = frame["image_id"][:WRONG]
    frame.loc[: WRONG - 1, "label"] = frame["label"][:WRONG].map({"h": "v", "v": "h"})
    frame.to_csv(tmp_path / "more" / "labels.csv", index=False)
    words = [*stripes, f"data.dir={tmp_path / 'more'}", "data.train_csv=labels.csv", "data.train_images=images"]
    words += ["data.classes=[h, v]", "name=noisy"]
    assert command("folds", *words).returncode == 0
    for fold in (0, 1):
        done = command("train", *words, f"fold={fold}")
        assert done.returncode == 0, done.stderr
    assert command("report", "noisy").returncode == 0
    ranked = pd.read_csv(tmp_path / "outputs" / "noisy" / "suspects.csv")["image_id"]
    assert len(set(planted) & set(ranked.head(2 * WRONG))) >= 0.75 * WRONG


def test_rounds_learn_from_pseudo_labels_of_the_run_before(stripes: list[str], tmp_path: Path) -> None:
    config, *words = stripes
    words = [*words, "trainer.max_epochs=1", "name=base"]
    done = run_here(tmp_path, [config, *words, "--rounds", "1", "--confidence", "0", "--quota", "10"])
    assert done.returncode == 0, done.stdout
    first, second = tmp_path / "outputs" / "base", tmp_path / "outputs" / "base_round1"
    assert sorted(path.name for path in first.glob("pseudo*.csv")) == [
        "pseudo.csv",
        "pseudo_fold0.csv",
        "pseudo_fold1.csv",
    ]
    kept = yaml.safe_load((second / "fold0" / "config.yaml").read_text())
    assert kept["data"]["pseudo"].endswith("outputs/base/pseudo.csv")
    assert load_config([second / "fold1" / "config.yaml"]).fold == 1
    assert "fold 0: " in done.stdout
    assert (second / "submission.csv").is_file()
    again = run_here(tmp_path, [config, *words, "--rounds", "1", "--confidence", "0", "--quota", "10"])
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("is done already") == 4
