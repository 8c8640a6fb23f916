"""Every family of optimizers, a list of augmentations and adapters: from train.csv to the submission of a bundle."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import PROJECT, tiny_words
from trainings import run_whole_way

from competition.config.loading import task_names
from competition.tasks.made_up_images import write_sample

pytestmark = pytest.mark.slow
TASK = task_names()[0]
CONFIG = PROJECT / "configs" / f"{TASK}.yaml"
SMALL = ("data.image_size=32", "fold=0", "name=t", "trainer.limit_train_batches=2", "scheduler.name=constant")
AUGMENTATION = (
    "data.augmentation.more=[{Rotate: {p: 0.5}}, {Sequential: {transforms: [{Blur: {p: 1}}, HorizontalFlip]}}, "
    "{OneOf: {transforms: [GaussNoise, {RandomGamma: {p: 1}}]}}, {SomeOf: {transforms: [CLAHE, VerticalFlip], n: 1}}]"
)
# One of each kind: with momentum, by signs, by matrices, of torch's own, that averages what it learns.
FAMILIES = {
    "sgd": (),
    "lion": (),
    "muon": (),
    "NAdam": (),
    "schedulefree_adamw": ("checkpoint.keep=2", "checkpoint.predict_with=soup", "trainer.max_epochs=2"),
    "adopt, much changed images": (AUGMENTATION,),
    "adamw, adapters": ("model.lora.rank=2", "ema.decay=0.5"),
}
OF_ADAPTERS = {"classification": "test_vit", "segmentation": "tu-test_convnext"}  # encoders with linear layers


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("families") / "data"
    write_sample(TASK, folder, 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield folder
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", FAMILIES)
def test_from_train_csv_to_the_submission_of_its_bundle(family: str, data: Path, tmp_path: Path) -> None:
    name, _, rest = family.partition(", ")
    if name.startswith("schedulefree"):
        pytest.importorskip("schedulefree")
    if rest == "adapters":
        pytest.importorskip("peft")
    shutil.copytree(data, tmp_path / "data")
    more = [*FAMILIES[family], f"optimizer.name={name}"]
    if rest == "adapters":
        more.append(f"model.encoder={OF_ADAPTERS.get(TASK, 'test_convnext')}")
    run_whole_way(tmp_path, [CONFIG, *tiny_words(TASK), *SMALL, *more])
