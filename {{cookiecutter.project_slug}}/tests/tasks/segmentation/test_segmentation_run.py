"""Every architecture of masks from train.csv to the submission of its bundle; what a head of the image is good for."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import torch
from tiny import PROJECT, TINY
from trainings import run_whole_way

from competition.prediction.stored import Predictions, PredictionWriter
from competition.runs.folder import Run
from competition.scoring.tune import tune
from competition.support.atomic_files import write_csv
from competition.tasks.made_up_images import write_sample
from competition.tasks.segmentation.formats.rle import encode_rle
from competition.tasks.segmentation.settings import SegmentationModel

pytestmark = pytest.mark.slow
ARCHITECTURES = get_args(SegmentationModel.model_fields["architecture"].annotation)
ENCODERS = {"dpt": "tu-test_vit"}  # it is for plain transformers
AS_PUBLISHED = "linknet"  # which has no other width
SMALL = ("fold=0", "name=t", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "sampler.share=natural")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("architectures") / "data"
    write_sample("segmentation", folder, 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield folder
    torch.set_num_threads(threads)


@pytest.mark.parametrize("architecture", [one for one in ARCHITECTURES if one != "unet"])  # that is test_run.py's
def test_from_train_csv_to_the_submission_of_its_bundle(architecture: str, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    encoder = ENCODERS.get(architecture, "tu-test_resnet")
    model = [f"model.architecture={architecture}", f"model.encoder={encoder}"]
    model += [] if architecture == AS_PUBLISHED else ["model.decoder_channels=32"]
    model += ["data.image_size=128"] if architecture == "pan" else []  # which halves the last features thrice
    run_whole_way(tmp_path, [PROJECT / "configs" / "segmentation.yaml", *TINY, *SMALL, *model])


def test_a_head_tells_which_masks_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every image has a square; which of them count, only the mean of the noise around them tells.
    write_squares(tmp_path / "data", "train", 96)
    write_squares(tmp_path / "data", "test", 6)
    words = ["name=t", "trainer.max_epochs=12", "data.batch_size=8", "loss.auxiliary=1"]
    words += ["model.architecture=linknet"]  # the least to compute
    words += ["metrics=[dice]", "data.augmentation={}", "sampler.share=natural", "tta=[hflip]"]
    run_whole_way(tmp_path, [PROJECT / "configs" / "segmentation.yaml", *TINY, *words])
    monkeypatch.chdir(tmp_path)
    run = Run.open("t")
    assert run.config.decode.presence_threshold != [0.0]
    by_masks_and_head = tune(run).cross_fitted
    for path in run.out_of_fold_files():
        leave_masks_alone(path)
    by_masks = tune(run).cross_fitted
    assert by_masks_and_head is not None
    assert by_masks is not None
    assert by_masks_and_head["dice"] > by_masks["dice"] + 0.2


def write_squares(folder: Path, part: str, number: int) -> None:
    """Write images of noise with a square each, which is a mask in the brighter half of them."""
    rng, rows = np.random.default_rng(len(part)), list[list[str]]()
    (folder / f"{part}_images").mkdir(parents=True)
    for index in range(number):
        is_mask, (y, x) = index % 2 == 0, rng.integers(8, 44, 2)
        image = np.clip(rng.normal(95 + 10 * is_mask, 40, (64, 64, 3)), 0, 255)
        mask = np.zeros((64, 64), np.uint8)
        mask[y : y + 12, x : x + 12] = 1
        image[mask > 0] = (200, 60, 60)
        cv2.imwrite(str(folder / f"{part}_images" / f"{part}{index}.png"), image.astype(np.uint8))
        rows.append([f"{part}{index}.png", "square", encode_rle(mask * is_mask)])
    name = "train.csv" if part == "train" else "sample_submission.csv"
    write_csv(folder / name, ("image_id", "class_id", "rle"), rows)


def leave_masks_alone(path: Path) -> None:
    """Take what the head says out of a file of predictions."""
    stored = Predictions(path)
    with PredictionWriter(path.parent) as writer:
        for image_id, size, prediction in stored:
            writer.add(image_id, *size, {"probabilities": prediction["probabilities"]})
        writer.finish(path, stored.classes, stored.views, stored.precision)
