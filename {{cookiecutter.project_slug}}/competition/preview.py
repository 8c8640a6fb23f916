"""`competition train CONFIG... --preview`: what every epoch will hold and at which learning rate, without training."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from competition.data import per_device_batch_size
from competition.epoch_plan import plan_epochs, plan_warnings
from competition.files import replacing
from competition.folds import read_folds
from competition.pseudo import training_part
from competition.sampling import build_sampler
from competition.schedule import learning_rate_factor
from competition.settings import Config
from competition.task import Task
from competition.trainer import build_trainer

COLUMNS = ("epoch", "positives", "negatives", "share", "images", "batches", "steps", "lr_first", "lr_last")
Row = tuple[int, int, int, float, int, int, int, float, float]


def preview(config: Config) -> tuple[list[str], Path]:
    """Return the table of epochs, line by line, and the path of the plot."""
    trainer = build_trainer(config, [])
    table = Task(config.task).table.read_table(config)
    table, rows = training_part(config, table, read_folds(config, table))
    batch_size = per_device_batch_size(config, trainer)
    sampler = build_sampler(config, table, rows, world_size=trainer.world_size)
    plans = plan_epochs(sampler, batch_size, trainer)
    ends = np.cumsum([plan.steps for plan in plans]).tolist()
    factor = learning_rate_factor(config.scheduler, ends[-1])
    lines: list[Row] = []
    for epoch, (plan, end) in enumerate(zip(plans, ends, strict=True)):
        counts = sampler.counts(epoch)
        drawn = (counts.positives, counts.negatives, counts.share)
        first, last = (config.optimizer.lr * factor(step) for step in (end - plan.steps, end - 1))
        lines.append((epoch + 1, *drawn, plan.images, plan.batches, plan.steps, first, last))
    path = config.fold_folder / "preview.png"
    _draw(lines, path)
    return [_format(lines), *plan_warnings(sampler, plans, batch_size, trainer)], path


def _format(lines: list[Row]) -> str:
    header = "".join(f"{name:>11}" for name in COLUMNS)
    rows = [
        f"{e:>11}{p:>11}{n:>11}{share:>11.3f}{i:>11}{b:>11}{s:>11}{first:>11.2e}{last:>11.2e}"
        for e, p, n, share, i, b, s, first, last in lines
    ]
    return "\n".join([header, *rows])


def _draw(lines: list[Row], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = dict(zip(COLUMNS, zip(*lines, strict=True), strict=True))
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    axes[0].bar(columns["epoch"], columns["positives"], label="positives")
    axes[0].bar(columns["epoch"], columns["negatives"], bottom=columns["positives"], label="negatives")
    axes[0].set(title="images drawn", xlabel="epoch")
    axes[0].legend()
    axes[1].plot(columns["epoch"], columns["share"], marker=".")
    axes[1].set(title="share of positives", xlabel="epoch", ylim=(0, 1.05))
    axes[2].plot(columns["epoch"], columns["lr_last"], marker=".")
    axes[2].set(title="learning rate at the end of the epoch", xlabel="epoch")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)
