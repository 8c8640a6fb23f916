"""Every architecture of masks from train.csv to the submission of its bundle."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from tiny import PROJECT, TINY
from trainings import run_whole_way

from competition.tasks.made_up_images import write_sample
from competition.tasks.segmentation.settings import SegmentationModel

pytestmark = pytest.mark.slow
ARCHITECTURES = get_args(SegmentationModel.model_fields["architecture"].annotation)
ENCODERS = {"dpt": "tu-test_vit"}  # it is for plain transformers
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
    model += ["data.image_size=128"] if architecture == "pan" else []  # which halves the last features thrice
    run_whole_way(tmp_path, [PROJECT / "configs" / "segmentation.yaml", *TINY, *SMALL, *model])
