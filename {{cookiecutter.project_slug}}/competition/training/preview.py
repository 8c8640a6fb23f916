"""`competition train CONFIG... --preview`: what every epoch will hold and at which learning rate, without training."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from competition.config.settings import Config
from competition.data.folds import read_folds
from competition.data.pseudo_labels import training_part
from competition.sampling.batches import build_sampler
from competition.sampling.epoch_plan import plan_epochs, plan_warnings
from competition.sampling.share_schedule import EpochCounts
from competition.support.files import replacing
from competition.tasks.contract import Task
from competition.training.fold_data import train_batches
from competition.training.optimizer import learning_rate_factor
from competition.training.trainer import build_trainer

Row = dict[str, float]  # by column, in order; counts are whole numbers


def preview(config: Config) -> tuple[list[str], Path]:
    """Return the table of epochs, line by line, and the path of the plot."""
    trainer = build_trainer(config, [])
    table = Task(config.task).table.read_table(config)
    table, rows = training_part(config, table, read_folds(config, table))
    sampler = build_sampler(config, table, rows, world_size=trainer.world_size)
    batches = train_batches(config, sampler, trainer)
    plans = plan_epochs(batches, trainer)
    ends = np.cumsum([plan.steps for plan in plans]).tolist()
    factor = learning_rate_factor(config.scheduler, ends[-1])
    lines: list[Row] = []
    for epoch, (plan, end) in enumerate(zip(plans, ends, strict=True)):
        first, last = (config.optimizer.lr * factor(step) for step in (end - plan.steps, end - 1))
        held = {"images": plan.images, "batches": plan.batches, "steps": plan.steps}
        drawn = _drawn(sampler.counts(epoch)) if config.sampler.tells_positives else {}
        lines.append({"epoch": epoch + 1, **drawn, **held, "lr_first": first, "lr_last": last})
    path = config.fold_folder / "preview.png"
    _draw(lines, path)
    return [_format(lines), *plan_warnings(batches, plans)], path


def _drawn(counts: EpochCounts) -> Row:
    return {"positives": counts.positives, "negatives": counts.negatives, "share": counts.share}


def _format(lines: list[Row]) -> str:
    forms = {"share": ".3f", "lr_first": ".2e", "lr_last": ".2e"}
    header = "".join(f"{name:>11}" for name in lines[0])
    return "\n".join([header, *("".join(f"{v:>11{forms.get(name, '')}}" for name, v in row.items()) for row in lines)])


def _draw(lines: list[Row], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = {name: [row[name] for row in lines] for name in lines[0]}
    has_positives = "share" in columns
    figure, axes = plt.subplots(1, 2 + has_positives, figsize=(13, 3.6), layout="constrained")
    if has_positives:
        axes[0].bar(columns["epoch"], columns["positives"], label="positives")
        axes[0].bar(columns["epoch"], columns["negatives"], bottom=columns["positives"], label="negatives")
        axes[0].set(title="images drawn", xlabel="epoch")
        axes[0].legend()
        axes[1].plot(columns["epoch"], columns["share"], marker=".")
        axes[1].set(title="share of positives", xlabel="epoch", ylim=(0, 1.05))
    else:
        axes[0].bar(columns["epoch"], columns["images"])
        axes[0].set(title="images", xlabel="epoch")
    axes[-1].plot(columns["epoch"], columns["lr_last"], marker=".")
    axes[-1].set(title="learning rate at the end of the epoch", xlabel="epoch")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)
