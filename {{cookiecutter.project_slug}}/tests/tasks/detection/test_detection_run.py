"""Every architecture of detectors from train.csv to the submission of its bundle; stopped, and on two processes.

Run as a script, this file trains one on two processes, which are forks:
    python tests/tasks/detection/test_detection_run.py FOLDER
"""

import csv
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from detection_architectures import TINY, of_all_places, skip_without
from tiny import PROJECT
from tiny import TINY as SMALLEST
from trainings import assert_ended_like, call, fork_group, get_ready, run_as_script, run_whole_way, wait

from competition.config.loading import dump_yaml, load_config
from competition.config.settings import Config
from competition.data.folds import make_folds, read_folds
from competition.pipeline.train_fold import train
from competition.prediction.stored import Predictions, PredictionWriter
from competition.runs.folder import Run
from competition.scoring.tune import tune
from competition.support.atomic_files import write_csv
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.training.checkpoint import load_checkpoint
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule
from competition.training.trainer import build_trainer

pytestmark = pytest.mark.slow
WORDS = (
    *("name=t", "data.dir=data", "data.image_size=[64, 96]", "data.batch_size=4", "data.num_workers=0", "fold=0"),
    *("trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.devices=1", "mix.mosaic=0.5", "ema.decay=0.5"),
    *("decode.min_score=0.02", "tta=[hflip]", "loss.auxiliary=0.5"),
)


def words_of(folder: Path, architecture: str, *more: str) -> list[str]:
    """Write a config of a small network into a folder; return the words that train it."""
    path = folder / f"{architecture}.yaml"
    base = PROJECT / "configs" / "detection.yaml"
    path.write_text(dump_yaml({"base": str(base), "model": of_all_places(architecture)}))
    return [str(path), *WORDS, *more]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("architectures") / "data"
    write_sample("detection", folder, 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield folder
    torch.set_num_threads(threads)


@pytest.mark.parametrize("architecture", [name for name in TINY if name != "tood"])
def test_from_train_csv_to_the_submission_of_its_bundle(architecture: str, data: Path, tmp_path: Path) -> None:
    skip_without(architecture)
    shutil.copytree(data, tmp_path / "data")
    words = words_of(tmp_path, architecture)
    run = run_whole_way(tmp_path, words)
    if architecture == "dfine":  # the noise of true boxes is drawn again after a stop
        stopped = tmp_path / "stopped"
        shutil.copytree(data, stopped / "data")
        shutil.copy(tmp_path / "data" / "folds.csv", stopped / "data")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(stopped)
            assert call("train", *words, "trainer.max_time=00:00:00:00") == 3
            assert call("train", *words, "--resume") == 0
        assert_ended_like(stopped / "outputs" / "t" / "fold0", run / "fold0")


def test_two_processes_score_what_one_does_and_wait_for_no_weight(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    shutil.copytree(data, tmp_path / "data")
    empty = pd.read_csv(tmp_path / "data" / "train.csv").set_index("image_id")
    empty.loc[empty.index[::2], ["class_id", "x", "y", "w", "h"]] = None  # so that a process has batches without a box
    empty[~empty.index.duplicated() | empty["x"].notna()].to_csv(tmp_path / "data" / "train.csv")
    make_folds(load_config([Path(words_of(tmp_path, "dfine")[0])], [f"data.dir={tmp_path / 'data'}"]))
    said = run_as_script(__file__, tmp_path)
    assert said.splitlines()[0] == "with fcos: []"  # who uses it imports no other
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        config = config_of_two(tmp_path)
        with (config.fold_folder / "metrics.csv").open(encoding="utf-8") as file:
            row = list(csv.DictReader(file))[-1]
        assert float(row["val/loss"]) == pytest.approx(loss_in_one_process(config), rel=1e-6)


def test_a_head_tells_in_which_images_squares_are_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every image has a square at the right; which of them count tells its left edge, of which the places that such a
    # network looks at for a box see nothing. (A head with group norm knows of the whole image.)
    write_squares(tmp_path / "data", "train", 64)
    write_squares(tmp_path / "data", "test", 6)
    words = ["name=t", "fold=0", "trainer.max_epochs=5", "optimizer.lr=2e-3", "data.batch_size=2", "loss.auxiliary=1"]
    words += ["model.architecture=faster_rcnn", "data.image_size=[64, 128]", "metrics=[f1, map50]"]
    words += ["data.augmentation={}", "sampler.share=natural", "tta=[vflip]"]
    run_whole_way(tmp_path, [PROJECT / "configs" / "detection.yaml", *SMALLEST, *words])
    monkeypatch.chdir(tmp_path)
    run = Run.open("t")
    assert run.config.decode.presence_threshold or run.config.decode.scale_by_presence
    by_boxes_and_head = tune(run).pooled["f1"]
    for path in run.out_of_fold_files():
        leave_boxes_alone(path)
    assert by_boxes_and_head > tune(run).pooled["f1"] + 0.1


def write_squares(folder: Path, part: str, number: int) -> None:
    """Write images with a square each, which is a box where their left edge is bright."""
    rng, rows = np.random.default_rng(len(part)), list[list[object]]()
    (folder / f"{part}_images").mkdir(parents=True)
    for index in range(number):
        is_box, y, x = index % 2 == 0, rng.integers(2, 34), rng.integers(90, 98)
        image = rng.normal(90, 10, (64, 128, 3))
        image[:, :12] += 60 if is_box else -60
        image[y : y + 28, x : x + 28] = (200, 60, 60)
        cv2.imwrite(str(folder / f"{part}_images" / f"{part}{index}.png"), image.clip(0, 255).astype(np.uint8))
        rows.append([f"{part}{index}.png", *(("square", x, y, 28, 28) if is_box else ("", "", "", "", ""))])
    if part == "train":
        write_csv(folder / "train.csv", ("image_id", "class_id", "x", "y", "w", "h"), rows)
    else:
        write_csv(folder / "sample_submission.csv", ("image_id", "PredictionString"), [(row[0], "") for row in rows])


def leave_boxes_alone(path: Path) -> None:
    """Take what the head says out of a file of predictions."""
    stored = Predictions(path)
    with PredictionWriter(path.parent) as writer:
        for image_id, size, prediction in stored:
            boxes = {key: values for key, values in prediction.items() if key != "presence"}
            writer.add(image_id, *size, boxes)
        writer.finish(path, stored.classes, stored.views, stored.precision)


def config_of_two(folder: Path) -> Config:
    words = words_of(folder, "dfine", "trainer.strategy=ddp", "trainer.devices=2", "trainer.precision=64-true")
    words = [word for word in words if not word.startswith(("ema", "tta", "trainer.devices=1", "data.batch_size"))]
    return load_config([Path(words[0])], [*words[1:], "data.batch_size=2", "checkpoint.predict_with=latest"])


def loss_in_one_process(config: Config) -> float:
    alone = config.model_copy(update={"trainer": {"accelerator": "cpu", "devices": 1, "precision": "64-true"}})
    table = Task("detection").table.read_table(alone)
    module = CompetitionModule(alone.model_dump(mode="json"), list(table.classes))
    module.load_state_dict(load_checkpoint(config.fold_folder / "latest.pt")["state_dict"])
    data = FoldData(alone, table, read_folds(alone, table))
    (scores,) = build_trainer(alone, []).validate(module, data, verbose=False)
    return float(scores["val/loss"])


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    get_ready(["detection"])
    with_fcos = load_config([PROJECT / "configs" / "detection.yaml"], ["model.architecture=fcos"])
    Task("detection").model.build_network(with_fcos, 3)
    others = [name for name in sys.modules if name.startswith("competition.tasks.detection.architectures.")]
    print(f"with fcos: {others}", flush=True)
    import transformers.loss.loss_d_fine  # noqa: F401 - once, for both

    wait(fork_group(2, lambda rank: train(config_of_two(Path(sys.argv[1])))))
