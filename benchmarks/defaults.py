"""What a shipped default is worth: fold 0 trained with today's config, and with one key changed at a time.

    OMP_NUM_THREADS=1 python benchmarks/defaults.py segmentation|detection|classification DATA [KEY=VALUE ...]

From random weights, on one thread, the same number of epochs each, and scored once after the last: no epoch is chosen.
Today's config is trained by two seeds, on the same folds: a change within their range says nothing. Words behind
DATA hold for every row; ROWS='ema|lr' keeps only the rows that match. Prints a row as soon as it is trained.
"""

import csv
import os
import re
import resource
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"
sys.path.insert(0, str(PROJECT))

from competition.config.loading import load_config  # noqa: E402
from competition.config.settings import Config  # noqa: E402
from competition.data.folds import make_folds  # noqa: E402
from competition.pipeline.train_fold import train  # noqa: E402

SIZES = {  # what a core trains in about a minute
    "segmentation": ["data.image_size=64", "model.encoder=resnet10t", "trainer.max_epochs=6"],
    "detection": ["data.image_size=[96, 128]", "trainer.max_epochs=5"],
    "classification": ["data.image_size=40", "model.encoder=resnet10t", "trainer.max_epochs=4"],
}
NO_AUGMENTATION = [f"data.augmentation.{name}=null" for name in ("crop", "shift_scale_rotate", "brightness_contrast")]
MORE_AUGMENTATION = [
    "data.augmentation.crop={probability: 0.8, smallest: 0.4}",
    "data.augmentation.shift_scale_rotate.probability=0.8",
    "data.augmentation.brightness_contrast.probability=0.8",
]


def changes(config: Config) -> dict[str, list[str]]:
    """Return what each row says beside today's config."""
    lr, decay, batch = config.optimizer.lr, config.optimizer.weight_decay, int(config.data.batch_size)
    return {
        "as it is": [],
        "as it is, seed 1": ["seed=1"],
        "lr x 3": [f"optimizer.lr={3 * lr:g}"],
        "lr x 1/3": [f"optimizer.lr={lr / 3:.2g}"],
        "batch x 1/2": [f"data.batch_size={max(batch // 2, 1)}"],
        "batch x 2": [f"data.batch_size={2 * batch}"],
        "flips alone": NO_AUGMENTATION,
        "more augmentation": MORE_AUGMENTATION,
        "ema 0.9": ["ema={decay: 0.9}"],  # a few hundred steps: a longer average would still hold the first ones
        "scheduler onecycle": ["scheduler.name=onecycle"],
        "scheduler cosine": ["scheduler.name=cosine"],
        "weight_decay 0": ["optimizer.weight_decay=0"],
        "weight_decay x 10": [f"optimizer.weight_decay={10 * decay:g}"],
    }


def cpu_seconds() -> float:
    """Return what this process and those it waited for have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def trained(config: Config) -> tuple[list[float], float]:
    """Train; return the config's metrics of the last epoch on fold 0, and CPU seconds."""
    before = cpu_seconds()
    with redirect_stdout(StringIO()):  # what a training says of itself
        folder = train(config)
    seconds = cpu_seconds() - before
    last = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))[-1]
    return [float(last[f"val/{name}"]) for name in config.metrics], seconds


def main() -> None:
    task, data, *words = sys.argv[1:]
    data = Path(data).resolve()
    with tempfile.TemporaryDirectory(prefix="competition-") as folder:
        os.chdir(folder)
        paths = [PROJECT / "configs" / f"{task}.yaml", PROJECT / "configs" / "trainer" / "cpu.yaml"]
        shared = [f"data.dir={data}", "data.folds=folds.csv", "data.num_workers=0", "data.cache=memory", "fold=0"]
        shared += [*SIZES[task], *words]
        config = load_config(paths, shared)
        shared += [
            f"trainer.check_val_every_n_epoch={config.trainer['max_epochs']}",
            "trainer.enable_progress_bar=false",
        ]
        make_folds(config)
        print(
            f"| {task} | {' | '.join(config.metrics)} | seconds |\n|---|{'---|' * len(config.metrics)}---|", flush=True
        )
        for number, (name, changed) in enumerate(changes(config).items()):
            if re.search(os.environ.get("ROWS", ""), name):
                scores, seconds = trained(load_config(paths, [*shared, *changed, f"name=row{number}"]))
                print(f"| {name} | {' | '.join(f'{score:.3f}' for score in scores)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
