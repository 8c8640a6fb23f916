"""Localise, crop, classify: a run that sees only what another one found, by masks, from train.csv to a bundle's answer."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import numpy as np
import pandas as pd
import pytest
from tiny import PROJECT, TINY

from competition.bundle import infer_script
from competition.bundle.predictor import Predictor
from competition.bundle.stages import Stage
from competition.config.loading import task_names
from competition.files.images import read_image
from competition.support.errors import CompetitionError

Command = Callable[..., CompletedProcess[str]]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not {"classification", "segmentation"} <= set(task_names()), reason="one finds, one classifies"),
]
SIDE, PATCH, TRAIN, TEST = 96, 16, 48, 24
STRIPES = ["across", "down"]  # too narrow to be told in an image that is resized to a third


def write_image(path: Path, rng: np.random.Generator) -> tuple[str, str]:
    """Write a grey image that has a bright patch of stripes somewhere; return their direction and the patch as runs."""
    label = STRIPES[int(rng.integers(2))]
    stripes = np.where(np.arange(PATCH) % 4 < 2, 255.0, 120.0)
    image = 60 + rng.normal(0, 20, (SIDE, SIDE))
    top, left = rng.integers(4, SIDE - PATCH - 4, 2).tolist()
    image[top : top + PATCH, left : left + PATCH] = stripes[:, None] if label == "across" else stripes[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2))
    return label, " ".join(f"{column * SIDE + top + 1} {PATCH}" for column in range(left, left + PATCH))


def hand_out(folder: Path) -> dict[str, str]:
    """Write a competition of directions, and beside it tables of where patches are; return what is right of the test
    images."""
    rng = np.random.default_rng(0)
    names = {
        part: [f"{part}{number:02}.png" for number in range(count)]
        for part, count in (("train", TRAIN), ("test", TEST))
    }
    each = {part: [write_image(folder / f"{part}_images" / name, rng) for name in ids] for part, ids in names.items()}
    pd.DataFrame({"image_id": names["train"], "label": [label for label, _ in each["train"]]}).to_csv(
        folder / "train.csv", index=False
    )
    pd.DataFrame({"image_id": names["test"], **dict.fromkeys(STRIPES, 0.5)}).to_csv(
        folder / "sample_submission.csv", index=False
    )
    for name, ids, runs in (
        ("patches.csv", names["train"], [runs for _, runs in each["train"]]),
        ("patches_sample.csv", names["test"], ["1 1"] * TEST),
    ):
        pd.DataFrame({"image_id": ids, "class_id": "patch", "rle": runs}).to_csv(folder / name, index=False)
    return dict(zip(names["test"], [label for label, _ in each["test"]], strict=True))


def right(submission: pd.DataFrame, truth: dict[str, str]) -> float:
    said = submission.set_index("image_id")[STRIPES].astype(float).idxmax(axis=1)
    return float(np.mean([said[image_id] == label for image_id, label in truth.items()]))


def test_of_a_patch_that_another_run_finds_the_class_is_told_in_a_bundle_too(tmp_path: Path, command: Command) -> None:
    data = tmp_path / "data"
    truth = hand_out(data)
    words = [*TINY, f"data.dir={data}", "data.num_folds=2", "model.pretrained=false", "data.batch_size=8"]
    words += ["optimizer.lr=0.01", "data.augmentation={}"]
    finder = [PROJECT / "configs/segmentation.yaml", *words, "name=finder", "trainer.max_epochs=4"]
    finder += ["data.train_csv=patches.csv", "data.sample_submission=patches_sample.csv", "data.folds=finder.csv"]
    teller = [PROJECT / "configs/classification.yaml", *words, "data.image_size=32", "trainer.max_epochs=5"]
    looking = [*teller, "name=looking", "data.crop={run: finder, margin: 0}"]

    def do(*line: object) -> str:
        done = command(*line)
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout

    def learn(*config: object) -> None:
        for verb in (["check"], ["folds"]):
            do(*verb, *config)
        for fold in (0, 1):
            do("train", *config, f"fold={fold}")

    learn(*finder)
    for verb in ("tune", "predict", "crops"):
        do(verb, "finder")
    learn(*looking)
    for name in ("whole",):
        for fold in (0, 1):
            do("train", *teller, f"name={name}", f"fold={fold}")
    for name in ("looking", "whole"):
        for verb in ("tune", "predict", "submit"):
            do(verb, name)
    outputs = tmp_path / "outputs"
    by_patch, by_image = (right(pd.read_csv(outputs / name / "submission.csv"), truth) for name in ("looking", "whole"))
    print(by_patch, by_image)
    assert by_patch > by_image + 0.2
    assert command("bundle", "looking", "--no-wheels").stderr == (
        "outputs/finder/bundle: no bundle there; make it first with `competition bundle finder`\n"
    )
    do("bundle", "finder", "--no-wheels")
    assert "finder: where 8 test images have something is found again" in do("bundle", "looking", "--no-wheels")
    bundle = outputs / "looking" / "bundle"
    infer_script.infer(bundle, data)
    assert Path("submission.csv").read_bytes() == (outputs / "looking" / "submission.csv").read_bytes()
