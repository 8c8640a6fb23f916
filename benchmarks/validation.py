"""The time of an exact validation on two processes beside scoring every image on each of them.

    python benchmarks/validation.py [TASK] [IMAGES]

Both are timed in turn in the same two processes, so that a machine whose speed drifts slows both; the first of each
does not count. Every process has one thread, and needs a core of its own.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

PROJECT = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"
sys.path.insert(0, str(PROJECT))

from competition.config.loading import load_config  # noqa: E402
from competition.data.loaders import ShareOfRank  # noqa: E402
from competition.tasks.contract import Task  # noqa: E402
from competition.tasks.made_up_images import write_sample  # noqa: E402
from competition.training.fold_data import FoldData  # noqa: E402
from competition.training.module import CompetitionModule  # noqa: E402
from competition.training.trainer import build_trainer  # noqa: E402

ROUNDS = 3
WORDS = (
    *("trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp"),
    *("data.num_workers=0", "data.image_size=128", "data.batch_size=16", "model.encoder=test_resnet"),
)


class Everything(FoldData):
    """Hands every image to every process."""

    def val_dataloader(self) -> torch.utils.data.DataLoader:
        loader = super().val_dataloader()
        assert isinstance(loader.sampler, ShareOfRank)
        loader.sampler.indices = range(len(self.val_set))
        return loader


def measure(task: str) -> None:
    """Validate in one of two processes; the first prints the ratio."""
    config = load_config([PROJECT / "configs" / f"{task}.yaml"], list(WORDS))
    table = Task(task).table.read_table(config)
    folds = (np.arange(len(table.image_ids)) < 2).astype(np.int64)  # all but two are validation images
    seconds: dict[type[FoldData], list[float]] = {FoldData: [], Everything: []}
    module = CompetitionModule(config.model_dump(mode="json"), list(table.classes))
    trainer = build_trainer(config, [])
    for _ in range(ROUNDS + 1):
        for kind, measured in seconds.items():
            began = time.perf_counter()
            trainer.validate(module, kind(config, table, folds), verbose=False)
            measured.append(time.perf_counter() - began)
    if trainer.is_global_zero:
        shared, whole = (measured[1:] for measured in seconds.values())
        ratios = [one / other for one, other in zip(shared, whole, strict=True)]
        print(f"{task}: shared {statistics.median(shared):.2f} s, all on each {statistics.median(whole):.2f} s")
        print(f"ratios {' '.join(f'{ratio:.2f}' for ratio in ratios)}; median {statistics.median(ratios):.2f}")


def main(task: str, size: int) -> None:
    """Make data and start two processes that validate on it."""
    workspace = Path(tempfile.mkdtemp())
    try:
        write_sample(task, workspace / "data", size)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*command, __file__, task], cwd=workspace, env=environment, check=True)
    finally:
        shutil.rmtree(workspace)


if __name__ == "__main__":
    words = sys.argv[1:]
    name = words[0] if words else "segmentation"
    if "LOCAL_RANK" in os.environ:
        torch.set_num_threads(1)
        measure(name)
    else:
        main(name, int(words[1]) if len(words) > 1 else 120)
