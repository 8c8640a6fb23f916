"""A competition whose answer only the neighbouring slices tell, from `check` to a bundle's submission."""

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import numpy as np
import pandas as pd
import pytest
from tiny import PROJECT, bundled

from competition.config.loading import load_config
from competition.files.item_source import test_source as source_of_test
from competition.runs.folder import Run

Command = Callable[..., CompletedProcess[str]]
CONFIG = PROJECT / "configs" / "classification.yaml"
NUM_SLICES = 10
STACK = "data.stack={by: 'case{case}_slice_{slice}', take: [-1, 0, 1], edge: repeat}"
WORDS = (
    *("data.image_file={image_id}.png", "data.image_size=32", "data.batch_size=16", "data.num_workers=0"),
    *("data.augmentation={horizontal_flip: 0.5}", "data.mean=[0.5]", "data.std=[0.25]"),
    *("model.encoder=test_resnet", "optimizer.lr=3e-3", "trainer.max_epochs=8", "trainer.accelerator=cpu"),
    *("metrics=[accuracy]", "data.near_duplicates=false", "data.cache=disk"),
)


def write_scans(folder: Path, cases: range, seed: int) -> Iterator[tuple[str, int]]:
    """Write slices of any brightness; yield each with whether the next one is brighter."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for case in cases:
        levels = rng.permutation(NUM_SLICES) * 20 + 30
        for number, level in enumerate(levels):
            pixels = np.clip(rng.normal(level, 8, (36, 40)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"case{case}_slice_{number + 5}.png"), pixels)
            yield f"case{case}_slice_{number + 5}", int(number + 1 < NUM_SLICES and levels[number + 1] > level)


@pytest.fixture
def truth(tmp_path: Path) -> dict[str, int]:
    """Write the competition; return the answers for the test images."""
    data = tmp_path / "data"
    rows = list(write_scans(data / "train_images", range(20), 0))
    kept = rows[:3] + rows[4:]  # a slice without a row is a neighbour, too
    pd.DataFrame(kept, columns=["image_id", "label"]).to_csv(data / "train.csv", index=False)
    answers = dict(write_scans(data / "test_images", range(30, 34), 1))
    pd.DataFrame({"image_id": list(answers), "0": 0.5, "1": 0.5}).to_csv(data / "sample_submission.csv", index=False)
    return answers


def best_score(name: str) -> float:
    with Path(f"outputs/{name}/fold0/metrics.csv").open(newline="") as file:
        return max(float(row["val/accuracy"]) for row in csv.DictReader(file))


@pytest.mark.slow
def test_what_only_neighbours_tell_is_learnt_and_handed_in_from_training_to_a_bundle(
    tmp_path: Path, truth: dict[str, int], command: Command
) -> None:
    def done(verb: str, *words: str) -> str:
        ended = command(verb, CONFIG, *WORDS, *words)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    said = done("check", STACK)
    found = re.search(r"warning: images of one stack may come into different folds: data\.group_pattern='(.+?)'", said)
    assert found is not None
    together = f"data.group_pattern='{found[1]}'"
    done("folds", STACK)
    assert re.search(
        r"warning: \d+ images have neighbours of their stack in other folds, as 'case", done("check", STACK)
    )
    (tmp_path / "data" / "folds.csv").unlink()
    done("folds", STACK, together)
    assert "stack" not in done("check", STACK, together)

    done("train", STACK, together, "fold=0", "name=stacked")
    done("train", together, "fold=0", "name=alone", "data.channels=1")
    assert best_score("stacked") > 0.9
    assert best_score("alone") < 0.85

    assert command("predict", "stacked").returncode == 0
    assert command("submit", "stacked").returncode == 0
    handed_in = pd.read_csv("outputs/stacked/submission.csv").set_index("image_id")
    said = handed_in.loc[[*truth], "1"].to_numpy(dtype=float) > 0.5
    assert np.mean(said == np.array([*truth.values()])) > 0.9
    bundle, _ = bundled("build").make_bundle(Run.open("stacked"), with_wheels=False)
    again = pd.read_csv(bundled("offline").infer(bundle, tmp_path / "data", tmp_path / "again.csv")).set_index(
        "image_id"
    )
    np.testing.assert_allclose(again, handed_in, atol=1e-4)
    predictor, image_id = bundled("predictor").Predictor(bundle, tmp_path / "data"), "case31_slice_7"
    config = load_config([CONFIG], [*WORDS, STACK])
    for row in (predictor(image_id), predictor(image_id, source_of_test(config, image_id).read())):
        np.testing.assert_allclose(row["1"], handed_in.loc[[image_id], "1"], atol=1e-4)


def test_check_reads_slices_of_volumes_and_says_where_they_are_torn_over_folds(
    tmp_path: Path, command: Command
) -> None:
    data = tmp_path / "data"
    ids = []
    for part, cases in (("train_images", range(4)), ("test_images", range(4, 6))):
        (data / part).mkdir(parents=True)
        for case in cases:
            volume = np.random.default_rng(case).integers(0, 255, (5, 36, 40), dtype=np.uint8)
            np.save(data / part / f"case{case}.npy", volume)
            ids += [f"case{case}_{number}" for number in range(1, 6)]
    train = pd.DataFrame({"image_id": ids[:20], "label": [0, 1] * 10})
    train.to_csv(data / "train.csv", index=False)
    pd.DataFrame({"image_id": ids[20:], "0": 0.5, "1": 0.5}).to_csv(data / "sample_submission.csv", index=False)
    volumes = ("data.image_file={case}.npy[{slice}-1]", "data.id_parts={case}_{slice}", "data.stack={take: [-1, 0, 1]}")
    words = (CONFIG, *WORDS, *volumes)
    said = command("check", *words).stdout
    assert "may come into different folds: data.group, data.group_pattern or data.group_file keeps" in said
    assert command("folds", *words).returncode == 0
    assert re.search(
        r"warning: \d+ images have neighbours of their stack in other folds, as 'case", command("check", *words).stdout
    )
    np.save(data / "train_images" / "case2.npy", np.zeros((4, 36, 40), np.uint8))
    done = command("check", *words)
    assert done.returncode == 1
    assert (
        "case2.npy: has 4 slices, none that is number 4 of [4]; they are counted from 0 (train.csv line 16)"
        in done.stderr
    )
